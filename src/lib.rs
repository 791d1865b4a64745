//! Perfusion maps from dynamic contrast series (DCE-MRI, DSC-MRI, CT perfusion), on the CPU or on any GPU, with one exact
//! definition of every map against which both can be checked.
//!
//! For research; not a medical device. Motion is not corrected here: register the frames first.
//!
//! # A tour
//!
//! A [`Series`] holds the samples in their stored type, the times of its frames ([`TimeAxis`], uneven ones too) and where
//! its voxels lie. It comes from NIfTI files or from an array; a stack of images with several flip angles or inversion times
//! has no times. A *kernel* says what is computed per voxel: [`Descriptors`], the semi-quantitative maps, with all that can
//! be chosen about them; [`kernels::t1`], T1 maps; [`kernels::concentration`], from signal to concentration, whose curves
//! are a series for the next kernel ([`Series::from_curves`]). An [`Engine`] runs a kernel
//! over a series; the result is [`Maps`]: arrays by name, with unit and definition ([`Quantity`]), a status word per voxel
//! ([`status`]) and the record of the run.
//!
//! ```
//! use ndarray::Array4;
//! use perfuse::{Descriptors, Engine, Quantity, Series, TimeAxis, status};
//!
//! // Two voxels, 40 frames, 3 s apart: one enhances from 21 s on, the other doesn't.
//! let samples = Array4::from_shape_fn((2, 1, 1, 40), |(x, _, _, t)| {
//!     let since_arrival = (3.0 * t as f32 - 21.0).max(0.0);
//!     if x == 0 { 300.0 + 2.0 * since_arrival } else { 300.0 }
//! });
//! let series = Series::from_array(samples.view(), TimeAxis::uniform(3.0, 40)?)?;
//!
//! let maps = Engine::cpu().run(&Descriptors::new().baseline_frames(0..7), &series)?;
//!
//! let onset = maps.get(Quantity::ONSET)?; // [x, y, z], in seconds after the first frame
//! assert!((onset[[0, 0, 0]] - 21.0).abs() < 1e-3);
//! assert!(onset[[1, 0, 0]].is_nan());
//! assert!(maps.status()[[1, 0, 0]] & status::NOT_ENHANCING != 0);
//! # Ok::<(), perfuse::Error>(())
//! ```
//!
//! Three engines compute the same maps: [`Engine::cpu`] (32-bit vector instructions, all cores), [`Engine::gpu`] (WGSL) and
//! [`Engine::reference`] (the definition in f64, slow). [`Engine::auto`] takes a real GPU if there is one, else the CPU,
//! never software Vulkan. [`Engine::verify`] compares an engine with the definition on the data in hand:
//!
//! ```
//! use perfuse::phantom::Phantom;
//! use perfuse::{Descriptors, Engine, RunOptions};
//!
//! let phantom = Phantom::brain_with_lesion().shape([12, 12, 2]).build()?;
//! let verification = Engine::cpu().verify(&Descriptors::new(), &phantom.series, &RunOptions::new())?;
//! assert!(verification.passed(), "{verification}");
//! # Ok::<(), perfuse::Error>(())
//! ```
//!
//! A mask, progress, cancelling and a memory limit are [`RunOptions`]. What goes wrong is an [`Error`] that says what was
//! found and how to mend it.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `gpu` | yes | the GPU engine, through wgpu: Vulkan, Metal, DirectX 12 |
//! | `nifti` | yes | the module `io`: `Series::open`, `Mask::open`, `VoxelMap::open`, `Maps::save` |
//! | `render` | yes | the modules `render` and `report`: maps, curves and cines as pictures, reports as HTML |
//!
//! Without features the crate takes arrays and gives arrays, on the CPU.
//!
//! # Modules
//!
//! | module | what is in it |
//! |---|---|
//! | [`kernels::descriptors`] | semi-quantitative maps, with the onset methods, baseline and noise policies |
//! | [`kernels::t1`] | T1 mapping: variable flip angle, inversion recovery, Look-Locker |
//! | [`kernels::concentration`] | signal to concentration of contrast agent |
//! | [`kernels::fit`] | pharmacokinetic models |
//! | [`kernels::filling_time`] | when a front arrives and a common level is crossed |
//! | [`analysis`] | what composes kernels: [`analysis::dce`], the arterial delay from onsets and the choice between models; [`analysis::filling`], how a lesion fills |
//! | [`input_function`] | the concentration in the artery: population functions, masks, files, detection |
//! | [`engine`] | what computes; `engine::gpu` lists devices and their limits |
//! | `io` | reading and writing NIfTI (feature `nifti`) |
//! | `render` | pictures and cines (feature `render`) |
//! | `report` | reports as one HTML file (feature `render`) |
//! | [`phantom`] | series with known truth |
//! | [`status`] | the status bits |
//! | [`kernel`] | the contract, for writing a kernel |
//! | [`reduction`] | sums over the whole series that kernels start from |

pub mod analysis;
mod assemble;
pub mod engine;
mod error;
mod geometry;
pub mod input_function;
#[cfg(feature = "nifti")]
pub mod io;
pub mod kernel;
pub mod kernels;
mod maps;
pub mod phantom;
mod prefetch;
mod quantity;
pub mod reduction;
#[cfg(feature = "render")]
pub mod render;
#[cfg(feature = "render")]
pub mod report;
mod series;
mod special;
pub mod status;
mod stored;
mod time;
mod units;
mod voxels;

pub use engine::{Cancel, Engine, NonFinite, RunOptions, Verification};
pub use error::{Error, Result};
pub use geometry::Geometry;
pub use input_function::InputFunction;
pub use kernels::descriptors::Descriptors;
pub use kernels::fit::PharmacokineticFit;
pub use maps::{Map, MapData, Maps, RunRecord, SettingValue, StageTime};
pub use quantity::{Quantity, SignalKind, Unit};
pub use series::{Mask, Scaling, Series, VoxelMap};
pub use time::{FrameReference, SampleAxis, TimeAxis};
pub use units::{FlipAngle, Seconds};
pub use voxels::{Sample, SampleType, Voxels};

// The samples of the README are tests, too.
#[cfg(all(doctest, feature = "nifti"))]
#[doc = include_str!("../README.md")]
struct Readme;
