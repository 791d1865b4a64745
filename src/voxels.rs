//! Samples in their stored type.

use bytemuck::Zeroable;

macro_rules! voxel_types {
    ($($variant:ident $type:ty, $name:literal;)*) => {
        /// Samples in their stored type: x fastest, then y, z and time.
        #[derive(Debug, Clone)]
        #[non_exhaustive]
        pub enum Voxels {
            $(#[doc = concat!("`", $name, "` samples.")] $variant(Vec<$type>),)*
        }

        /// The types that samples are stored in.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum SampleType {
            $(#[doc = concat!("`", $name, "`.")] $variant,)*
        }

        impl SampleType {
            /// Bytes per sample.
            pub fn bytes(self) -> usize {
                match self { $(SampleType::$variant => size_of::<$type>(),)* }
            }

            /// The name of the type, as in Rust.
            pub fn name(self) -> &'static str {
                match self { $(SampleType::$variant => $name,)* }
            }
        }

        impl Voxels {
            /// Number of samples.
            pub fn len(&self) -> usize {
                match self { $(Voxels::$variant(v) => v.len(),)* }
            }

            /// The type of the samples.
            pub fn sample_type(&self) -> SampleType {
                match self { $(Voxels::$variant(_) => SampleType::$variant,)* }
            }

            /// One stored sample as f64 (rounded there beyond 2^53).
            pub fn get_f64(&self, index: usize) -> f64 {
                match self { $(Voxels::$variant(v) => v[index] as f64,)* }
            }

            /// The samples as bytes, in this machine's byte order.
            pub fn as_bytes(&self) -> &[u8] {
                match self { $(Voxels::$variant(v) => bytemuck::cast_slice(v),)* }
            }

            pub(crate) fn as_bytes_mut(&mut self) -> &mut [u8] {
                match self { $(Voxels::$variant(v) => bytemuck::cast_slice_mut(v),)* }
            }

            /// So many samples of 0; `None` if there is no memory for them.
            pub(crate) fn zeros(sample: SampleType, samples: usize) -> Option<Self> {
                Some(match sample { $(SampleType::$variant => Voxels::$variant(zeros(samples)?),)* })
            }

            /// Changes the number of samples; new ones are 0.
            pub(crate) fn resize(&mut self, samples: usize) {
                match self { $(Voxels::$variant(v) => v.resize(samples, <$type>::zeroed()),)* }
            }
        }

        $(impl From<Vec<$type>> for Voxels {
            fn from(samples: Vec<$type>) -> Self { Voxels::$variant(samples) }
        }
        impl Sample for $type {})*
    };
}

/// A type that samples can be stored in.
pub trait Sample: Copy + Send + Sync + 'static
where
    Voxels: From<Vec<Self>>,
{
}

voxel_types! {
    U8 u8, "u8";
    I8 i8, "i8";
    U16 u16, "u16";
    I16 i16, "i16";
    U32 u32, "u32";
    I32 i32, "i32";
    U64 u64, "u64";
    I64 i64, "i64";
    F32 f32, "f32";
    F64 f64, "f64";
}

impl SampleType {
    /// Whether it is an integer, so that samples are quantised in steps of 1 before scaling.
    pub fn is_integer(self) -> bool {
        !matches!(self, SampleType::F32 | SampleType::F64)
    }
}

impl Voxels {
    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes per sample.
    pub fn sample_bytes(&self) -> usize {
        self.sample_type().bytes()
    }

    /// The name of the sample type, as in Rust.
    pub fn type_name(&self) -> &'static str {
        self.sample_type().name()
    }

    /// Whether the stored type is an integer, so that samples are quantised in steps of 1 before scaling.
    pub fn is_integer(&self) -> bool {
        self.sample_type().is_integer()
    }
}

/// Memory that the system hands out cleared, and only when it is first used.
fn zeros<T: Zeroable>(samples: usize) -> Option<Vec<T>> {
    bytemuck::allocation::try_zeroed_vec(samples).ok()
}

/// Turns every sample of so many bytes around.
pub(crate) fn swap_samples(bytes: &mut [u8], sample_bytes: usize) {
    fn swap<const N: usize>(bytes: &mut [u8]) {
        bytes.as_chunks_mut::<N>().0.iter_mut().for_each(|sample| sample.reverse());
    }
    match sample_bytes {
        2 => swap::<2>(bytes),
        4 => swap::<4>(bytes),
        8 => swap::<8>(bytes),
        _ => {}
    }
}
