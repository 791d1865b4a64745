//! placeholder to be grown
use ndarray::Array4;
use perfuse::{Descriptors, Engine, RunOptions, Series, TimeAxis};

#[test]
fn ramp() {
    let curve = |t: usize| if t < 5 { 100.0 } else { 100.0 + 2.0 * (t - 4) as f32 };
    let samples = Array4::from_shape_fn((37, 1, 1, 20), |(_, _, _, t)| curve(t));
    let series = Series::from_array(samples.view(), TimeAxis::uniform(1.0, 20).unwrap()).unwrap();
    let kernel = Descriptors::new();
    for (id, v) in Engine::reference_values(&kernel, &series, [0, 0, 0], &RunOptions::new()).unwrap() {
        println!("{id} {v}");
    }
    let maps = Engine::cpu().run(&kernel, &series).unwrap();
    println!("{:?}", maps.record());
    println!("{}", Engine::cpu().verify(&kernel, &series, &RunOptions::new()).unwrap());
}
