use perfuse::kernels::descriptors::*;
use perfuse::*;
fn rng(s: &mut u64) -> f64 {
    *s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    ((*s >> 33) as f64) / (1u64 << 31) as f64
}
#[test]
fn gpu_smoke() {
    let (n, t) = (2000usize, 60usize);
    let mut s = 1u64;
    let mut v = vec![0i16; n * t];
    for i in 0..n {
        let a = 200.0 + 800.0 * rng(&mut s);
        let on = 20.0 + 20.0 * rng(&mut s);
        let tau = 5.0 + 60.0 * rng(&mut s);
        for k in 0..t {
            let tt = k as f64 * 3.0;
            let g = rng(&mut s) + rng(&mut s) + rng(&mut s) + rng(&mut s) - 2.0;
            let x = 500.0
                + if tt > on { a * (1.0 - (-(tt - on) / tau).exp()) * (-(tt - on) / 400.0).exp() } else { 0.0 }
                + g * a / 20.0 * 1.7;
            v[k * n + i] = x as i16;
        }
    }
    let series = Series::from_voxels(v, [n, 1, 1, t], TimeAxis::uniform(3.0, t).unwrap()).unwrap();
    for method in ["piecewise-linear", "saturating", "intersection", "threshold", "sd-threshold", "derivative", "30"] {
        let k = Descriptors::new().onset(method.parse().unwrap());
        for e in [Engine::cpu(), Engine::gpu(None).unwrap()] {
            let v = e.verify(&k, &series, &RunOptions::new()).unwrap();
            println!("{method} {v}");
        }
    }
}
