//! The bars of the onset and the automatic baseline, on a part of the study that `examples/onset_study.rs` prints in full.

mod support;

use perfuse::Engine;
use perfuse::kernels::descriptors::Onset;
use support::study::{CNRS, Cell, SHAPES, SPACINGS, automatic_baseline, onset_errors};

#[test]
fn the_default_onset_is_within_half_a_frame_and_5_percent_of_the_rise() {
    for shape in SHAPES {
        for (number, spacing) in SPACINGS.into_iter().enumerate() {
            let cell = Cell { shape, spacing, cnr: 20.0 };
            let errors =
                onset_errors(&Engine::cpu(), &cell.simulate(200, 31 + number as u64), Onset::PiecewiseLinear).unwrap();
            assert!(errors.median_absolute <= cell.bar(), "{cell:?}: {errors:?}, bar {}", cell.bar());
            assert!(errors.none < 0.05, "{cell:?}: {errors:?}");
        }
    }
}

#[test]
fn the_automatic_baseline_ends_before_the_onset_and_keeps_half_of_the_frames() {
    for shape in SHAPES {
        for spacing in SPACINGS {
            for cnr in CNRS {
                let cell = Cell { shape, spacing, cnr };
                for seed in 0..8 {
                    let simulated = cell.simulate(200, 7_000 + seed);
                    let (reaches_past, kept) = automatic_baseline(&Engine::cpu(), &simulated).unwrap();
                    assert!(!reaches_past, "{cell:?}, seed {seed}: past the onset");
                    assert!(kept >= 0.5, "{cell:?}, seed {seed}: {kept} of the frames");
                }
            }
        }
    }
}
