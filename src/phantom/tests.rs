use super::*;

fn small() -> Phantom {
    Phantom::brain_with_lesion().shape([40, 44, 6]).voxel_size_mm([5.0, 5.0, 8.0]).frames(40, 6.0)
}

#[test]
fn the_same_settings_give_the_same_bytes() {
    let bytes = |seed| match small().seed(seed).build().unwrap().series.voxels().unwrap() {
        Voxels::I16(samples) => samples.clone(),
        other => panic!("stored as {}", other.type_name()),
    };
    assert_eq!(bytes(3), bytes(3));
    assert_ne!(bytes(3), bytes(4));
}

#[test]
fn truth_agrees_with_the_curves_and_the_noise_free_series() {
    let times =
        TimeAxis::from_seconds((0..50).map(|i| 4.0 + 2.0 * f64::from(i) + 0.05 * f64::from(i * i)).collect()).unwrap();
    let phantom = small().times(times.clone()).noise(Noise::None).stored_type(StoredType::Float32).build().unwrap();
    let [baseline, onset, peak, last] =
        ["baseline", "onset", "peak_enhancement", "final_enhancement"].map(|id| phantom.truth(id).unwrap());
    let mut seen = [0; 11];
    for ((x, y, z), label) in phantom.labels.labels().indexed_iter() {
        let curve = phantom.curve([x, y, z]).unwrap();
        let samples = phantom.series.curve([x, y, z]).unwrap();
        for (time, sample) in times.seconds().iter().zip(&samples) {
            assert_eq!(*sample as f32, curve.value(*time) as f32);
        }
        let voxel = [x, y, z];
        let largest = samples.iter().fold(f64::MIN, |m, s| m.max(*s)) - samples[0];
        assert!((f64::from(peak[voxel]) - largest).abs() < 1e-3, "{voxel:?}");
        assert!((f64::from(last[voxel]) - (samples[49] - samples[0])).abs() < 1e-3);
        assert_eq!(f64::from(baseline[voxel]), samples[0]);
        if onset[voxel].is_nan() {
            assert_eq!(peak[voxel], 0.0);
        } else if *label != Tissue::Artery.label() && *label != Tissue::SagittalSinus.label() {
            let time = f64::from(onset[voxel]) + 4.0;
            assert!(curve.enhancement.value(time - 0.01) == 0.0 && curve.enhancement.value(time + 0.01) > 0.0);
        }
        seen[*label as usize] += 1;
    }
    assert!(seen.iter().all(|n| *n > 0), "{seen:?}");
}

#[test]
fn the_lesion_fills_from_its_base_outward_and_only_in_part() {
    let phantom = Phantom::brain_with_lesion().noise(Noise::None).build().unwrap();
    let onset = phantom.truth("onset").unwrap();
    let base = phantom.lesion_base;
    let size = phantom.series.geometry().voxel_size_mm();
    let mut pairs = Vec::new();
    let mut unfilled = 0;
    for ((x, y, z), label) in phantom.lesion.labels().indexed_iter() {
        if *label == 0 {
            continue;
        }
        let d =
            [x, y, z].iter().enumerate().map(|(a, v)| ((*v as f64 - base[a]) * size[a]).powi(2)).sum::<f64>().sqrt();
        if onset[[x, y, z]].is_nan() { unfilled += 1 } else { pairs.push((d, f64::from(onset[[x, y, z]]))) }
    }
    assert!(unfilled * 20 > pairs.len() && unfilled < pairs.len(), "{unfilled} of {}", pairs.len());
    // Mean onset rises from shell to shell, and more from each to the next.
    let mean = |from: f64, to: f64| {
        let inside: Vec<f64> = pairs.iter().filter(|(d, _)| (from..to).contains(d)).map(|p| p.1).collect();
        inside.iter().sum::<f64>() / inside.len() as f64
    };
    let shells = [mean(0.0, 7.0), mean(7.0, 14.0), mean(14.0, 21.0)];
    assert!(shells[1] > shells[0] && shells[2] - shells[1] > shells[1] - shells[0], "{shells:?}");
}

#[test]
fn noise_has_the_standard_deviation_asked_for() {
    for (noise, sd) in [(Noise::Gaussian(6.0), 6.0), (Noise::Rician(6.0), 6.0)] {
        let make = |noise| small().noise(noise).stored_type(StoredType::Float32).build().unwrap();
        let (noisy, clean) = (make(noise), make(Noise::None));
        let label = Tissue::WhiteMatter.label();
        let (mut sum, mut squares, mut n) = (0.0, 0.0, 0.0);
        for (voxel, l) in noisy.labels.labels().indexed_iter() {
            if *l == label {
                let voxel = [voxel.0, voxel.1, voxel.2];
                for (a, b) in noisy.series.curve(voxel).unwrap().iter().zip(clean.series.curve(voxel).unwrap()) {
                    sum += a - b;
                    squares += (a - b).powi(2);
                    n += 1.0;
                }
            }
        }
        let measured = f64::sqrt(squares / n - (sum / n) * (sum / n));
        assert!((measured - sd).abs() < 0.02 * sd, "{noise:?}: {measured}");
    }
    // In air the magnitude of Rician noise has the mean sqrt(π/2) of its standard deviation.
    let phantom = small().noise(Noise::Rician(6.0)).stored_type(StoredType::Float32).build().unwrap();
    let air = phantom.series.curve([0, 0, 0]).unwrap();
    let mean = air.iter().sum::<f64>() / air.len() as f64;
    assert!((mean - 7.52).abs() < 2.0, "{mean}");
}

#[test]
fn refuses_bad_settings_and_survives_odd_ones() {
    assert!(small().shape([0, 4, 4]).build().is_err());
    assert!(small().shape([usize::MAX, 4, 4]).build().is_err());
    assert!(small().voxel_size_mm([0.0, 1.0, 1.0]).build().is_err());
    assert!(small().noise(Noise::Gaussian(-1.0)).build().is_err());
    assert!(small().bolus_arrival_s(f64::NAN).build().is_err());
    assert!(small().frames(1, 3.0).build().is_err());
    for shape in [[1, 1, 1], [7, 1, 3], [1, 64, 1]] {
        small().shape(shape).build().unwrap();
    }
    small().bolus_arrival_s(1e6).build().unwrap();
    small().bolus_arrival_s(-50.0).build().unwrap();
}
