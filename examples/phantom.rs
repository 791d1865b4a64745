//! Writes a DCE series with known truth: a head with a lesion that fills from its base outward.
//!
//! `cargo run --release --example phantom -- --out phantom`

mod support;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use perfuse::io::Overwrite;
use perfuse::phantom::{Noise, Phantom, StoredType, Tissue};
use perfuse::{Error, Result, SignalKind, VoxelMap};
use serde_json::{Value, json};
use support::arguments::Numbers;

const EXAMPLES: &str = "\
Examples:
  phantom --out phantom
      128 x 128 x 12 voxels, 80 frames 3 s apart, then: perfusion_maps phantom/series.nii.gz --out maps
  phantom --out clean --noise 0 --float --shape 64,64,8 --dt 1 --frames 200
      Small, fast, without noise.

DIR then holds series.nii.gz with its times in series.json, lesion.nii.gz (a mask), labels.nii.gz (the tissues),
truth/ID.nii.gz, and phantom.json, which says what they are.";

/// A DCE series with known truth.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 110)]
struct Arguments {
    /// Folder for the files; made if it isn't there, e.g. --out phantom
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Voxels along x, y and z; the head fills whatever there is, e.g. --shape 64,64,8
    #[arg(long, value_name = "X,Y,Z", default_value = "128,128,12")]
    shape: Numbers<3>,
    /// Voxel size along x, y and z in mm, e.g. --voxel-size 0.5,0.5,1.4
    #[arg(long, value_name = "X,Y,Z", default_value = "1.8,1.8,5")]
    voxel_size: Numbers<3, f64>,
    /// Seconds between frames, e.g. --dt 1.5
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    dt: f64,
    /// Number of frames, e.g. --frames 120
    #[arg(long, value_name = "N", default_value_t = 80)]
    frames: usize,
    /// When the bolus arrives, in seconds after the first frame, e.g. --arrival 20
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    arrival: f64,
    /// SD of the Rician noise; tissue has a signal of 45 to 420, 0 for none, e.g. --noise 20
    #[arg(long, value_name = "SD", default_value_t = 8.0)]
    noise: f64,
    /// Which noise, e.g. --seed 7
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Store 32-bit floats instead of 16-bit integers
    #[arg(long)]
    float: bool,
    /// Replace earlier files in DIR
    #[arg(long)]
    force: bool,
    /// Say nothing but warnings and errors
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    support::finish(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    let out = &arguments.out;
    let record = out.join("phantom.json");
    support::refuse_existing(&record, arguments.force)?;
    let noise = if arguments.noise == 0.0 { Noise::None } else { Noise::Rician(arguments.noise) };
    let phantom = Phantom::brain_with_lesion()
        .shape(arguments.shape.0)
        .voxel_size_mm(arguments.voxel_size.0)
        .frames(arguments.frames, arguments.dt)
        .bolus_arrival_s(arguments.arrival)
        .noise(noise)
        .seed(arguments.seed)
        .stored_type(if arguments.float { StoredType::Float32 } else { StoredType::Int16 })
        .build()?;

    let truth = out.join("truth");
    std::fs::create_dir_all(&truth).map_err(|source| Error::Io { action: "create", path: truth.clone(), source })?;
    let overwrite = if arguments.force { Overwrite::Replace } else { Overwrite::Refuse };
    phantom.series.save(out.join("series.nii.gz"), overwrite)?;
    phantom.lesion.save(out.join("lesion.nii.gz"), overwrite)?;
    phantom.labels.save(out.join("labels.nii.gz"), overwrite)?;
    let mut maps = Vec::new();
    for (quantity, values) in &phantom.truth {
        let map = VoxelMap::from_array(values.view()).with_geometry(phantom.series.geometry().clone());
        map.save(truth.join(format!("{}.nii.gz", quantity.id)), overwrite)?;
        let unit = quantity.unit.text(SignalKind::Signal);
        maps.push(json!({"id": quantity.id, "unit": unit, "definition": quantity.definition}));
    }
    let tissues: Vec<Value> =
        Tissue::ALL.iter().map(|tissue| json!({"label": tissue.label(), "name": tissue.name()})).collect();
    let about = json!({
        "shape": phantom.series.shape(),
        "voxel_size_mm": arguments.voxel_size.0,
        "frame_spacing_s": arguments.dt,
        "bolus_arrival_s": arguments.arrival,
        "noise": {"kind": "rician", "sd": arguments.noise, "seed": arguments.seed},
        "lesion_base_voxel": phantom.lesion_base,
        "labels": tissues,
        "truth": maps,
    });
    support::write_file(&record, format!("{about:#}\n"))?;

    if !arguments.quiet {
        let [x, y, z, t] = phantom.series.shape();
        let lesion = phantom.lesion.voxel_count();
        let out = out.display();
        support::print(&format!(
            "series     {out}/series.nii.gz: {x} x {y} x {z} voxels, {t} frames, every {} s\n\
             masks      {out}/lesion.nii.gz ({lesion} voxels), {out}/labels.nii.gz (tissues)\n\
             truth      {} maps in {out}/truth; {out}/phantom.json says what they are\n",
            arguments.dt,
            phantom.truth.len(),
        ));
    }
    Ok(())
}
