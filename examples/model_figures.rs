//! Draws the figures of the models' pages.
//!
//! `cargo run --release --example model_figures -- docs/models` writes one SVG per model.

mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use perfuse::input_function::{Arrival, Haematocrit, Population};
use perfuse::kernels::fit::{Model, Parameter};
use perfuse::{InputFunction, Result, TimeAxis};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 270.0;
const LAST_S: f64 = 300.0;
/// Told apart without red and green.
const COLOURS: [&str; 3] = ["#56b4e9", "#0072b2", "#e69f00"];

/// A line with its name.
type Line = (String, Vec<f64>);

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("error: say where the figures go, e.g. model_figures docs/models");
        return ExitCode::from(2);
    };
    support::finish(draw(&folder))
}

fn draw(folder: &Path) -> Result<()> {
    use Parameter::{ExchangeFlow, ExtravascularVolume, Ktrans, PlasmaFlow, PlasmaVolume, Volume};
    let times = TimeAxis::uniform(1.0, LAST_S as usize + 1)?;
    let blood = Population::Parker.input_function(&times, &Arrival::at(30.0)?)?;
    let plasma = blood.in_plasma(Haematocrit::new(0.42)?)?;
    let (flow, exchange, vp, ve) =
        ((PlasmaFlow, 40.0), (ExchangeFlow, 8.0), (PlasmaVolume, 0.06), (ExtravascularVolume, 0.25));
    for (model, parameters, varied, values) in [
        (Model::Tofts, vec![(Ktrans, 0.2), ve], Ktrans, [0.05, 0.15, 0.4]),
        (Model::ExtendedTofts, vec![(Ktrans, 0.15), ve, vp], PlasmaVolume, [0.0, 0.05, 0.12]),
        (Model::Patlak, vec![vp, (ExchangeFlow, 2.0)], ExchangeFlow, [0.0, 2.0, 6.0]),
        (Model::OneCompartment, vec![flow, (Volume, 0.1)], PlasmaFlow, [10.0, 30.0, 90.0]),
        (Model::TwoCompartmentUptake, vec![flow, (ExchangeFlow, 3.0), vp], ExchangeFlow, [0.5, 3.0, 10.0]),
        (Model::TwoCompartmentExchange, vec![flow, exchange, vp, ve], PlasmaFlow, [10.0, 30.0, 100.0]),
    ] {
        let mut lines = Vec::new();
        for value in values {
            let mut parameters = parameters.clone();
            parameters.retain(|(known, _)| *known != varied);
            parameters.push((varied, value));
            let quantity = varied.quantity();
            let unit = quantity.unit.text(perfuse::SignalKind::Concentration);
            let unit = if unit == "1" { String::new() } else { format!(" {unit}") };
            let curve = model.concentration(&parameters, &plasma, 0.0, &times)?;
            lines.push((format!("{} {value}{unit}", quantity.symbol), curve));
        }
        let text = svg(&format!("Curves of {model}"), "concentration (mM)", &lines, Some((&plasma, &times)));
        support::write_file(&folder.join(format!("{model}.svg")), &text)?;
    }
    let brix = |kep: f64, kel: f64| -> Vec<f64> {
        let (kep, kel) = (kep / 60.0, kel / 60.0);
        let value = |t: f64| kep / (kep - kel) * ((-kel * t).exp() - (-kep * t).exp());
        times.seconds().iter().map(|t| 1.0 + value((t - 30.0).max(0.0))).collect()
    };
    let lines = [0.5, 2.0, 6.0].map(|kep| (format!("kep {kep} 1/min"), brix(kep, 0.1)));
    support::write_file(&folder.join("brix.svg"), svg("Curves of brix", "signal over baseline", &lines, None))
}

/// The figure as SVG without blank lines, so that Markdown takes it as one block.
fn svg(title: &str, axis: &str, lines: &[Line], plasma: Option<(&InputFunction, &TimeAxis)>) -> String {
    let (left, right, top, bottom) = (52.0, WIDTH - 12.0, 14.0, HEIGHT - 40.0);
    let highest = lines.iter().flat_map(|(_, line)| line).fold(0.0, |a: f64, b| a.max(*b));
    let step = [0.05, 0.1, 0.2, 0.25, 0.5].into_iter().find(|step| highest / step <= 6.0).unwrap_or(1.0);
    let ceiling = (highest / step).ceil() * step;
    let x = |t: f64| left + (right - left) * t / LAST_S;
    let y = |c: f64| bottom - (bottom - top) * c / ceiling;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" font-family=\"sans-serif\" \
         font-size=\"12\" style=\"max-width:{WIDTH}px;background:#fff\"><title>{title}</title>\n"
    );
    let mut tick = 0.0;
    while tick <= ceiling + 1e-9 {
        let _ = writeln!(
            text,
            "<path d=\"M{left} {0:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\" fill=\"#333\">{tick:.2}</text>",
            y(tick),
            left - 6.0,
            y(tick) + 4.0
        );
        tick += step;
    }
    for minute in 0..=5 {
        let at = x(60.0 * f64::from(minute));
        let _ = writeln!(
            text,
            "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#333\">{}</text>",
            bottom + 18.0,
            minute * 60
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"#333\">time (s)</text>",
        (left + right) / 2.0,
        HEIGHT - 6.0
    );
    let _ = writeln!(
        text,
        "<text transform=\"translate(12 {}) rotate(-90)\" text-anchor=\"middle\" fill=\"#333\">{axis}</text>",
        (top + bottom) / 2.0
    );
    let path = |points: &mut dyn Iterator<Item = (f64, f64)>| {
        let points: Vec<String> = points.map(|(t, c)| format!("{:.1} {:.1}", x(t), y(c.min(ceiling)))).collect();
        format!("M{}", points.join("L"))
    };
    if let Some((plasma, times)) = plasma {
        let d = path(&mut times.seconds().iter().map(|t| (*t, 0.1 * plasma.at(*t).unwrap_or(0.0))));
        let _ = writeln!(text, "<path d=\"{d}\" fill=\"none\" stroke=\"#999\"/>");
    }
    for (i, (name, line)) in lines.iter().enumerate() {
        let d = path(&mut line.iter().enumerate().map(|(t, c)| (t as f64, *c)));
        let _ = writeln!(text, "<path d=\"{d}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2.2\"/>", COLOURS[i]);
        let at = top + 12.0 + 16.0 * i as f64;
        let _ = writeln!(
            text,
            "<path d=\"M{0} {1}h18\" stroke=\"{2}\" stroke-width=\"2.2\"/><text x=\"{3}\" y=\"{4}\" fill=\"#333\">{name}</text>",
            right - 190.0,
            at - 4.0,
            COLOURS[i],
            right - 166.0,
            at
        );
    }
    text + "</svg>\n"
}
