//! Pharmacokinetic fits against curves of known parameters and against an independent optimiser
//! (`support/pharmacokinetic_oracle.rs`): models of one rate.

mod support;

use ndarray::Array4;
use perfuse::input_function::Fluid;
use perfuse::kernels::descriptors::MapSelection;
use perfuse::kernels::fit::{Delay, Model, Parameter};
use perfuse::{Engine, InputFunction, Maps, PharmacokineticFit, RunOptions, Series, TimeAxis};
use rayon::prelude::*;
use support::oracle::Random;
use support::pharmacokinetic_oracle::{
    Case, Design, Model as Truth, SAMPLINGS, Sampling, best_fit, cramer_rao_bound, sum_of_squares,
};

const MODELS: [Truth; 5] =
    [Truth::Tofts, Truth::ExtendedTofts, Truth::Patlak, Truth::OneCompartment, Truth::TwoCompartmentUptake];

/// Curves of one model on the same frames with the same input function.
struct Group {
    model: Truth,
    cases: Vec<Case>,
    series: Series,
    fit: PharmacokineticFit,
}

impl Group {
    fn new(model: Truth, design: &Design, cases: Vec<Case>, delay: bool) -> Self {
        let times = TimeAxis::from_seconds(design.times_s.clone()).expect("times");
        let frames = design.times_s.len();
        let samples = Array4::from_shape_fn((cases.len(), 1, 1, frames), |(i, _, _, t)| cases[i].curve[t]);
        let series = Series::from_array(samples.view(), times).expect("a series");
        let Ok(input) = InputFunction::new(design.aif.times_s.clone(), design.aif.values.clone(), Fluid::Plasma) else {
            panic!("an input function")
        };
        let name: Model = model.name().parse().expect("a model of this name");
        let fit = PharmacokineticFit::new(name, input).delay(if delay { Delay::Free } else { Delay::None });
        Self { model, cases, series, fit }
    }

    fn random(model: Truth, sampling: Sampling, delay: Option<(f64, f64)>, count: usize, random: &mut Random) -> Self {
        let design = Design::random(random, sampling);
        let cases = (0..count).map(|_| design.case(model, delay, random)).collect();
        Self::new(model, &design, cases, delay.is_some())
    }

    fn names(&self) -> Vec<&'static str> {
        let fitted = self.model.parameter_names().len() - usize::from(!self.free_delay());
        self.model.parameter_names()[..fitted].to_vec()
    }

    fn free_delay(&self) -> bool {
        !matches!(self.cases[0].parameters.last(), Some(delay) if *delay == 0.0)
    }

    /// The parameters of every curve as the definition in f64 finds them.
    fn definition(&self) -> Vec<Vec<f64>> {
        let names = self.names();
        (0..self.cases.len())
            .into_par_iter()
            .map(|voxel| {
                let values = Engine::reference_values(&self.fit, &self.series, [voxel, 0, 0], &RunOptions::new())
                    .expect("a run");
                let of = |id: &str| values.iter().find(|(name, _)| name == id).expect("the map").1;
                names.iter().map(|id| of(id)).collect()
            })
            .collect()
    }

    /// The same on an engine.
    fn on(&self, engine: &Engine) -> Vec<Vec<f64>> {
        let maps = engine.run(&self.fit, &self.series).expect("a run");
        self.of_maps(&maps)
    }

    fn of_maps(&self, maps: &Maps) -> Vec<Vec<f64>> {
        let maps: Vec<_> = self.names().iter().map(|id| maps.get(id).expect("a map")).collect();
        (0..self.cases.len()).map(|i| maps.iter().map(|map| f64::from(map[[i, 0, 0]])).collect()).collect()
    }
}

/// The largest relative deviation from the truth where the curve tells: Cramér-Rao bound at a noise of 1e-6 of the peak
/// below 1e-3 of the value (of a delay: of a second).
#[derive(Default, Clone, Copy)]
struct Worst {
    compared: usize,
    deviation: f64,
    case: usize,
    parameter: usize,
}

fn worst(group: &Group, found: &[Vec<f64>]) -> Worst {
    let names = group.names();
    let mut worst = Worst::default();
    for (case, (truth, found)) in group.cases.iter().zip(found).enumerate() {
        let peak = truth.curve.iter().fold(0.0f64, |peak, c| peak.max(c.abs()));
        let mut free = vec![true; truth.parameters.len()];
        free.iter_mut().skip(names.len()).for_each(|free| *free = false);
        let bounds = cramer_rao_bound(truth, &free, 1e-6 * peak);
        for (i, name) in names.iter().enumerate() {
            let scale = if *name == "delay" { 1.0 } else { truth.parameters[i].abs() };
            if bounds[i] < 1e-3 * scale {
                worst.compared += 1;
                let deviation = (found[i] - truth.parameters[i]).abs() / scale;
                if !(deviation <= worst.deviation) {
                    (worst.deviation, worst.case, worst.parameter) = (deviation, case, i);
                }
            }
        }
    }
    worst
}

/// Draws, fits and compares; prints what it saw.
fn recover(model: Truth, delay: Option<(f64, f64)>, groups: usize, cases: usize) -> (f64, f64) {
    let mut largest = (0.0f64, 0.0f64);
    for (s, sampling) in SAMPLINGS.into_iter().enumerate() {
        for seed in 0..groups {
            let mut random = Random::new(1000 + 100 * s as u64 + seed as u64);
            let group = Group::random(model, sampling, delay, cases, &mut random);
            for (engine, found) in [group.definition(), group.on(&Engine::cpu())].into_iter().enumerate() {
                let worst = worst(&group, &found);
                let allowed = if engine == 0 { 1e-6 } else { 1e-3 };
                if !(worst.deviation <= allowed) {
                    println!(
                        "{} {sampling:?} seed {seed} engine {engine}: {:.2e} of {} in case {} {:?} found {:?}",
                        model.name(),
                        worst.deviation,
                        group.names()[worst.parameter],
                        worst.case,
                        group.cases[worst.case].parameters,
                        found[worst.case],
                    );
                }
                assert!(worst.compared > cases / 2, "{} compared", worst.compared);
                let worst = if worst.deviation.is_nan() { f64::INFINITY } else { worst.deviation };
                if engine == 0 { largest.0 = largest.0.max(worst) } else { largest.1 = largest.1.max(worst) }
            }
        }
    }
    println!("{}: definition {:.2e}, CPU engine {:.2e}", model.name(), largest.0, largest.1);
    largest
}

#[test]
fn noise_free_curves_give_their_parameters() {
    for model in MODELS {
        let (definition, cpu) = recover(model, None, 7, 160);
        assert!(definition <= 1e-6 && cpu <= 1e-3, "{}", model.name());
    }
}
