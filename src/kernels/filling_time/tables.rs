//! What is decided once for all voxels, in f64 on the host: the tables of the reference text and of the shader.

use std::borrow::Cow;

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::kernel::lanes::Table;
use crate::kernel::{Input, Program};
use crate::kernels::descriptors::Polarity;
use crate::maps::SettingValue;

use super::FillingTime;

/// Time constants on the grid of the fit.
pub(super) const TAUS: usize = 24;

/// Fewest frames for four parameters and a standard error.
pub(super) const FEWEST_FRAMES: usize = 8;

/// The fit's window ends at least so many frames after the arrival.
pub(super) const FEWEST_AFTER: usize = 3;

/// The standard error of the arrival takes the logarithm of the time constant as known to this, however flat the sum of
/// squares: the grid has an end.
pub(super) const LOG_TAU_SD: f64 = 1.5;

/// The tables of the filling-time kernel. Times are in seconds after the first frame, amplitudes in stored units.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    /// Frames of the series.
    pub(super) n: usize,
    /// Frames that are used: the first m.
    pub(super) m: usize,
    pub(super) t0: f64,
    pub(super) u: Table,
    /// The numbers of the frames.
    pub(super) index: Table,
    pub(super) dt: Table,
    pub(super) taus: Table,
    /// 1 - exp(-dt / tau): time constant by time constant, one entry per step.
    pub(super) rho: Table,
    pub(super) log_tau_first: f64,
    pub(super) log_tau_step: f64,
    pub(super) slope: f64,
    pub(super) intercept: f64,
    pub(super) scale: f64,
    /// +1 where contrast agent moves stored samples up, -1 where down.
    pub(super) sign: f64,
    pub(super) direction: f64,
    pub(super) enhancement_threshold: f64,
    /// In stored units.
    pub(super) level: Option<f64>,
    pub(super) half_window: usize,
}

impl Tables {
    fn set_axis(&mut self, u: Vec<f64>, used: usize) {
        self.n = u.len();
        self.m = used;
        self.index = (0..=self.n).map(|i| i as f64).collect();
        let dt: Vec<f64> = u.windows(2).map(|w| w[1] - w[0]).collect();
        let shortest = dt.iter().copied().fold(f64::INFINITY, f64::min);
        let (first, longest) = ((0.5 * shortest).ln(), (4.0 * (u[used - 1] - u[0])).ln());
        self.log_tau_first = first;
        self.log_tau_step = (longest - first) / (TAUS - 1) as f64;
        let taus: Vec<f64> = (0..TAUS).map(|j| (first + j as f64 * self.log_tau_step).exp()).collect();
        self.rho = taus.iter().flat_map(|tau| dt.iter().map(move |dt| -(-dt / tau).exp_m1())).collect();
        self.taus = taus.into_iter().collect();
        self.dt = dt.into_iter().collect();
        self.u = u.into_iter().collect();
    }

    /// The tables for a curve of which only these frames are left.
    pub(super) fn with_frames(&self, frames: &[usize]) -> Option<Self> {
        let used = frames.iter().filter(|i| **i < self.m).count();
        if used < FEWEST_FRAMES {
            return None;
        }
        let mut tables = self.clone();
        tables.set_axis(frames.iter().map(|i| self.u[*i]).collect(), used);
        Some(tables)
    }
}

/// Decides everything that is shared by all voxels.
pub(super) fn prepare(settings: &FillingTime, input: &Input<'_>) -> Result<Tables> {
    let series = input.series;
    let used = settings.frames.unwrap_or(series.frames());
    if series.frames() < FEWEST_FRAMES {
        return Err(Error::mismatch(
            series.name(),
            "the filling time",
            format!("{} frames; at least {FEWEST_FRAMES} are needed", series.frames()),
        ));
    }
    if !(FEWEST_FRAMES..=series.frames()).contains(&used) {
        let mend = format!("use {FEWEST_FRAMES} to {} frames", series.frames());
        return Err(Error::setting("frames", used, mend));
    }
    let positive = |name: &str, value: f64| {
        if value.is_finite() && value > 0.0 {
            return Ok(());
        }
        Err(Error::setting(name, value, "give a positive, finite number"))
    };
    positive("enhancement threshold", settings.enhancement_threshold)?;
    if let Some(level) = settings.level {
        positive("level", level)?;
    }
    if !(1..=series.frames()).contains(&settings.crossing_half_window) {
        let mend = format!("use 1 to {} frames on either side", series.frames());
        return Err(Error::setting("crossing window", settings.crossing_half_window, mend));
    }
    let scaling = series.scaling();
    let direction = match settings.polarity {
        Polarity::Rise => 1.0,
        Polarity::Fall => -1.0,
    };
    let times = series.times()?.seconds();
    let mut tables = Tables {
        n: 0,
        m: 0,
        t0: times[0],
        u: Table::default(),
        index: Table::default(),
        dt: Table::default(),
        taus: Table::default(),
        rho: Table::default(),
        log_tau_first: 0.0,
        log_tau_step: 0.0,
        slope: scaling.slope,
        intercept: scaling.intercept,
        scale: scaling.slope.abs(),
        sign: direction * scaling.slope.signum(),
        direction,
        enhancement_threshold: settings.enhancement_threshold,
        level: settings.level.map(|level| level / scaling.slope.abs()),
        half_window: settings.crossing_half_window,
    };
    tables.set_axis(times.iter().map(|t| t - times[0]).collect(), used);
    Ok(tables)
}

/// All settings, for the record.
pub(super) fn record(settings: &FillingTime, tables: &Tables) -> Vec<(String, SettingValue)> {
    use SettingValue::{Number, Text};
    let mut record = vec![
        ("kind".to_string(), Text(settings.kind.as_str().into())),
        ("polarity".into(), Text(settings.polarity.as_str().into())),
        ("frames_used".into(), Number(tables.m as f64)),
        ("enhancement_threshold_sd".into(), Number(settings.enhancement_threshold)),
    ];
    if let Some(level) = settings.level {
        record.push(("level".into(), Number(level)));
        record.push(("crossing_half_window_frames".into(), Number(settings.crossing_half_window as f64)));
    }
    record
}

/// The kernel's part of the uniform buffer, as `struct Settings` in the shader.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct ShaderSettings {
    frames_used: u32,
    tau_count: u32,
    dt_at: u32,
    taus_at: u32,
    rho_at: u32,
    has_level: u32,
    half_window: u32,
    fewest_after: u32,
    t0: f32,
    log_tau_first: f32,
    log_tau_step: f32,
    log_tau_information: f32,
    slope: f32,
    intercept: f32,
    scale: f32,
    sign: f32,
    direction: f32,
    enhancement_threshold: f32,
    level: f32,
    padding: u32,
}

/// The kernel for GPUs.
pub(super) fn program(tables: &Tables) -> Program {
    let mut packed: Vec<f32> = Vec::new();
    let mut place = |table: &Table| {
        let at = packed.len() as u32;
        packed.extend(table.iter().map(|x| *x as f32));
        at
    };
    let u_at = place(&tables.u);
    debug_assert_eq!(u_at, 0, "the shader finds the times first");
    let settings = ShaderSettings {
        frames_used: tables.m as u32,
        tau_count: TAUS as u32,
        dt_at: place(&tables.dt),
        taus_at: place(&tables.taus),
        rho_at: place(&tables.rho),
        has_level: u32::from(tables.level.is_some()),
        half_window: tables.half_window as u32,
        fewest_after: FEWEST_AFTER as u32,
        t0: tables.t0 as f32,
        log_tau_first: tables.log_tau_first as f32,
        log_tau_step: tables.log_tau_step as f32,
        log_tau_information: (1.0 / (LOG_TAU_SD * LOG_TAU_SD)) as f32,
        slope: tables.slope as f32,
        intercept: tables.intercept as f32,
        scale: tables.scale as f32,
        sign: tables.sign as f32,
        direction: tables.direction as f32,
        enhancement_threshold: tables.enhancement_threshold as f32,
        level: tables.level.unwrap_or(0.0) as f32,
        padding: 0,
    };
    Program {
        entry_points: Cow::Borrowed(&["search_time_constant", "filling_time"]),
        tables: Cow::Owned(packed),
        state_words: 4,
        ..Program::new("filling_time", &[include_str!("../../../shaders/filling_time.wgsl")], &settings)
    }
}

#[cfg(all(test, feature = "gpu"))]
mod tests {
    use super::*;
    use crate::engine::gpu::text;
    use crate::status;

    fn module() -> naga::Module {
        text::kernel(&[include_str!("../../../shaders/filling_time.wgsl")])
    }

    #[test]
    fn settings_are_the_same_in_both_texts() {
        text::assert_same_layout!(
            &module(), "Settings", ShaderSettings:
            frames_used tau_count dt_at taus_at rho_at has_level half_window fewest_after t0 log_tau_first log_tau_step
            log_tau_information slope intercept scale sign direction enhancement_threshold level padding
        );
    }

    #[test]
    fn constants_are_the_same_in_both_texts() {
        let constants = text::constants(&module());
        let expected = [
            ("ROW_ARRIVAL", super::super::reference::row::ARRIVAL as u32),
            ("ROW_ARRIVAL_SE", super::super::reference::row::ARRIVAL_SE as u32),
            ("ROW_BASELINE", super::super::reference::row::BASELINE as u32),
            ("ROW_PLATEAU", super::super::reference::row::PLATEAU as u32),
            ("ROW_TAU", super::super::reference::row::TAU as u32),
            ("ROW_NOISE", super::super::reference::row::NOISE as u32),
            ("ROW_CROSSING", super::super::reference::row::CROSSING as u32),
            ("ROW_CROSSING_SE", super::super::reference::row::CROSSING_SE as u32),
            ("NON_FINITE_SAMPLE", status::NON_FINITE_SAMPLE),
            ("NOT_ENHANCING", status::NOT_ENHANCING),
            ("AT_LOWER_BOUND", status::AT_LOWER_BOUND),
            ("AT_UPPER_BOUND", status::AT_UPPER_BOUND),
            ("NOT_IDENTIFIABLE", status::NOT_IDENTIFIABLE),
            ("CENSORED", status::CENSORED),
        ];
        for (name, value) in expected {
            assert_eq!(constants.get(name), Some(&value), "{name}");
        }
        assert_eq!(constants.len(), expected.len());
    }

    #[test]
    fn entry_points_have_the_workgroup_size_that_the_program_says() {
        let module = module();
        let expected = [("search_time_constant", [64, 1, 1]), ("filling_time", [64, 1, 1])];
        assert_eq!(text::entry_points(&module), expected);
    }
}
