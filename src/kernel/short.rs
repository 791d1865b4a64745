//! 16-bit whole numbers side by side: what needs no fractions takes half the registers and no conversion.

use std::ops::{Add, Sub};

use fearless_simd::{Select as _, Simd, SimdBase as _, SimdCombine as _, SimdCvtFloat as _, SimdWiden as _};
use fearless_simd::{SimdMask as _, f32x16, i16x16, i32x16, mask16x16, mask32x16};

use super::lanes::{Lanes, Twice, Twin, Wide};

/// Samples of neighbouring voxels; frame i begins at `i * stride`.
#[derive(Debug, Clone, Copy)]
pub struct ShortCurve<'a> {
    /// The samples.
    pub samples: &'a [i16],
    /// From one frame to the next.
    pub stride: usize,
}

impl<'a> ShortCurve<'a> {
    /// The samples of a frame, from the voxels in hand on.
    #[inline(always)]
    pub fn frame(self, frame: usize) -> &'a [i16] {
        &self.samples[frame * self.stride..]
    }
}

/// What a scan keeps of some voxels from frames to frames; each number of all of them side by side.
#[derive(Debug)]
pub struct ScanState<'a> {
    /// 16-bit numbers.
    pub short: &'a mut [i16],
    /// A 32-bit sum.
    pub sum: &'a mut [i32],
}

/// Lanes that can count in 16 bits. Nothing overflows as long as the samples of a voxel differ by less than 2^15.
pub trait ShortLanes: Lanes {
    /// 16-bit whole numbers, one per voxel.
    type Short: Copy + Add<Output = Self::Short> + Sub<Output = Self::Short>;
    /// 32-bit whole numbers, one per voxel.
    type Long: Copy;
    /// Truth values for them.
    type ShortMask: Copy;

    /// Numbers from memory, one per voxel.
    fn short(self, stored: &[i16]) -> Self::Short;
    /// Numbers into memory, one per voxel.
    fn short_store(self, x: Self::Short, to: &mut [i16]);
    /// The same number for every voxel.
    fn short_splat(self, value: i16) -> Self::Short;
    /// The larger.
    fn short_max(self, a: Self::Short, b: Self::Short) -> Self::Short;
    /// The smaller.
    fn short_min(self, a: Self::Short, b: Self::Short) -> Self::Short;
    /// `a > b`.
    fn short_greater(self, a: Self::Short, b: Self::Short) -> Self::ShortMask;
    /// `a` where the mask holds, `b` elsewhere.
    fn short_select(self, mask: Self::ShortMask, a: Self::Short, b: Self::Short) -> Self::Short;
    /// The number in 32 bits.
    fn long(self, x: Self::Short) -> Self::Long;
    /// Numbers from memory, one per voxel.
    fn long_load(self, stored: &[i32]) -> Self::Long;
    /// Numbers into memory, one per voxel.
    fn long_store(self, x: Self::Long, to: &mut [i32]);
    /// `sum + x`.
    fn long_add(self, sum: Self::Long, x: Self::Long) -> Self::Long;
    /// The number as a float, rounded from 2^24 on.
    fn number(self, x: Self::Long) -> Self::F;
    /// Numbers of some voxels, a bit for each, side by side into memory; what follows them up to the lanes' width holds
    /// anything then.
    fn pack(self, x: Self::F, voxels: u32, to: &mut [f32]);
    /// The same of 16-bit numbers.
    fn pack_short(self, x: Self::Short, voxels: u32, to: &mut [i16]);
}

/// Each number in 32 bits.
#[inline(always)]
pub(super) fn widen<S: Simd>(x: i16x16<S>) -> i32x16<S> {
    let (low, high) = x.widen();
    low.combine(high)
}

impl<S: Simd> ShortLanes for Wide<S> {
    type Short = i16x16<S>;
    type Long = i32x16<S>;
    type ShortMask = mask16x16<S>;

    #[inline(always)]
    fn short(self, stored: &[i16]) -> i16x16<S> {
        i16x16::from_slice(self.0, &stored[..16])
    }
    #[inline(always)]
    fn short_store(self, x: i16x16<S>, to: &mut [i16]) {
        x.store_slice(&mut to[..16]);
    }
    #[inline(always)]
    fn short_splat(self, value: i16) -> i16x16<S> {
        i16x16::splat(self.0, value)
    }
    #[inline(always)]
    fn short_max(self, a: i16x16<S>, b: i16x16<S>) -> i16x16<S> {
        a.max(b)
    }
    #[inline(always)]
    fn short_min(self, a: i16x16<S>, b: i16x16<S>) -> i16x16<S> {
        a.min(b)
    }
    #[inline(always)]
    fn short_greater(self, a: i16x16<S>, b: i16x16<S>) -> mask16x16<S> {
        a.simd_gt(b)
    }
    #[inline(always)]
    fn short_select(self, mask: mask16x16<S>, a: i16x16<S>, b: i16x16<S>) -> i16x16<S> {
        mask.select(a, b)
    }
    #[inline(always)]
    fn long(self, x: i16x16<S>) -> i32x16<S> {
        widen(x)
    }
    #[inline(always)]
    fn long_load(self, stored: &[i32]) -> i32x16<S> {
        i32x16::from_slice(self.0, &stored[..16])
    }
    #[inline(always)]
    fn long_store(self, x: i32x16<S>, to: &mut [i32]) {
        x.store_slice(&mut to[..16]);
    }
    #[inline(always)]
    fn long_add(self, sum: i32x16<S>, x: i32x16<S>) -> i32x16<S> {
        sum + x
    }
    #[inline(always)]
    fn number(self, x: i32x16<S>) -> f32x16<S> {
        f32x16::float_from(x)
    }
    #[inline(always)]
    fn pack(self, x: f32x16<S>, voxels: u32, to: &mut [f32]) {
        x.compress(mask32x16::from_bitmask(self.0, u64::from(voxels))).store_slice(&mut to[..16]);
    }
    #[inline(always)]
    fn pack_short(self, x: i16x16<S>, voxels: u32, to: &mut [i16]) {
        x.compress(mask16x16::from_bitmask(self.0, u64::from(voxels))).store_slice(&mut to[..16]);
    }
}

impl<L: ShortLanes> ShortLanes for Twice<L> {
    type Short = Twin<L::Short>;
    type Long = Twin<L::Long>;
    type ShortMask = Twin<L::ShortMask>;

    #[inline(always)]
    fn short(self, stored: &[i16]) -> Self::Short {
        Twin(self.0.short(stored), self.0.short(&stored[L::WIDTH..]))
    }
    #[inline(always)]
    fn short_store(self, x: Self::Short, to: &mut [i16]) {
        self.0.short_store(x.0, to);
        self.0.short_store(x.1, &mut to[L::WIDTH..]);
    }
    #[inline(always)]
    fn short_splat(self, value: i16) -> Self::Short {
        let value = self.0.short_splat(value);
        Twin(value, value)
    }
    #[inline(always)]
    fn short_max(self, a: Self::Short, b: Self::Short) -> Self::Short {
        Twin(self.0.short_max(a.0, b.0), self.0.short_max(a.1, b.1))
    }
    #[inline(always)]
    fn short_min(self, a: Self::Short, b: Self::Short) -> Self::Short {
        Twin(self.0.short_min(a.0, b.0), self.0.short_min(a.1, b.1))
    }
    #[inline(always)]
    fn short_greater(self, a: Self::Short, b: Self::Short) -> Self::ShortMask {
        Twin(self.0.short_greater(a.0, b.0), self.0.short_greater(a.1, b.1))
    }
    #[inline(always)]
    fn short_select(self, mask: Self::ShortMask, a: Self::Short, b: Self::Short) -> Self::Short {
        Twin(self.0.short_select(mask.0, a.0, b.0), self.0.short_select(mask.1, a.1, b.1))
    }
    #[inline(always)]
    fn long(self, x: Self::Short) -> Self::Long {
        Twin(self.0.long(x.0), self.0.long(x.1))
    }
    #[inline(always)]
    fn long_load(self, stored: &[i32]) -> Self::Long {
        Twin(self.0.long_load(stored), self.0.long_load(&stored[L::WIDTH..]))
    }
    #[inline(always)]
    fn long_store(self, x: Self::Long, to: &mut [i32]) {
        self.0.long_store(x.0, to);
        self.0.long_store(x.1, &mut to[L::WIDTH..]);
    }
    #[inline(always)]
    fn long_add(self, sum: Self::Long, x: Self::Long) -> Self::Long {
        Twin(self.0.long_add(sum.0, x.0), self.0.long_add(sum.1, x.1))
    }
    #[inline(always)]
    fn number(self, x: Self::Long) -> Self::F {
        Twin(self.0.number(x.0), self.0.number(x.1))
    }
    #[inline(always)]
    fn pack(self, x: Self::F, voxels: u32, to: &mut [f32]) {
        let (low, high) = halves::<L>(voxels);
        self.0.pack(x.0, low, to);
        self.0.pack(x.1, high, &mut to[low.count_ones() as usize..]);
    }
    #[inline(always)]
    fn pack_short(self, x: Self::Short, voxels: u32, to: &mut [i16]) {
        let (low, high) = halves::<L>(voxels);
        self.0.pack_short(x.0, low, to);
        self.0.pack_short(x.1, high, &mut to[low.count_ones() as usize..]);
    }
}

/// The bits of the first vector's voxels, and those of the second one's.
#[inline(always)]
fn halves<L: Lanes>(voxels: u32) -> (u32, u32) {
    (voxels & ((1 << L::WIDTH) - 1), voxels >> L::WIDTH)
}
