//! Lanes: the arithmetic that a kernel's reference text is written over.
//!
//! One text serves three purposes. Over [`Double`] (one voxel, f64) it is the definition in code. Over [`Wide`] (sixteen
//! voxels, f32, the widest vector instructions that the processor has) it is the CPU engine. Over
//! [`Bounded`](crate::kernel::bounded::Bounded) (one voxel, f64 with a running bound on what 32-bit arithmetic may lose)
//! it derives, voxel by voxel, the tolerance for comparing any engine with the definition.
//!
//! So the text has no `if` on data: it computes masks and selects. What a mask excludes must not trap or matter:
//! operands are guarded before a division or a root.

use std::ops::{Add, BitAnd, BitOr, Div, Mul, Neg, Not, Range, Sub};

use fearless_simd::{
    Bytes as _, Select as _, Simd, SimdBase as _, SimdCvtFloat as _, SimdCvtTruncate as _, SimdFloat as _, f32x16,
    i16x16, i32x16, mask32x16, u32x16,
};

use super::short::widen;

/// Numbers side by side, one per voxel.
pub trait Numbers:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Neg<Output = Self>
{
    /// The result of a comparison.
    type Mask: Masks;

    /// `self < other`.
    fn lt(self, other: Self) -> Self::Mask;
    /// `self <= other`.
    fn le(self, other: Self) -> Self::Mask;
    /// `self > other`.
    #[inline(always)]
    fn gt(self, other: Self) -> Self::Mask {
        other.lt(self)
    }
    /// `self >= other`.
    #[inline(always)]
    fn ge(self, other: Self) -> Self::Mask {
        other.le(self)
    }
    /// The larger.
    fn max(self, other: Self) -> Self;
    /// The smaller.
    fn min(self, other: Self) -> Self;
    /// The magnitude.
    fn abs(self) -> Self;
    /// The largest whole number that is not above it.
    fn floor(self) -> Self;
    /// The square root of a number that is not negative.
    fn sqrt(self) -> Self;
    /// The exponential.
    fn exp(self) -> Self;
    /// The natural logarithm of a positive, normal number.
    fn ln(self) -> Self;
    /// `self * factor + addend`, rounded once where one instruction does both: not for what engines must agree on to the bit.
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        self * factor + addend
    }
    /// `self - a * b`, in the same way.
    #[inline(always)]
    fn minus_product(self, a: Self, b: Self) -> Self {
        self - a * b
    }
}

/// Truth values side by side, one per voxel.
pub trait Masks: Copy + BitAnd<Output = Self> + BitOr<Output = Self> + Not<Output = Self> {
    /// Whether it holds for at least one voxel: for leaving out work, never for deciding a result.
    fn any(self) -> bool;
}

/// A way to compute: how many voxels at once, and with what numbers.
pub trait Lanes: Copy {
    /// Voxels side by side.
    const WIDTH: usize;
    /// The distance of 1 to the next number: of 32-bit floats unless told.
    const EPSILON: f64 = f32::EPSILON as f64;
    /// Numbers.
    type F: Numbers<Mask = Self::M>;
    /// Truth values.
    type M: Masks;
    /// Bit words.
    type U: Copy + BitOr<Output = Self::U>;
    /// What samples are loaded from.
    type Stored: Copy + Send + Sync;
    /// What results are written as.
    type Word: Copy + Send + Sync;

    /// The same number for every voxel; rounded to 32 bits where the lanes are.
    fn splat(self, value: f64) -> Self::F;
    /// A whole number below 2^24 for every voxel: exact in all lanes.
    #[inline(always)]
    fn count(self, value: usize) -> Self::F {
        self.splat(value as f64)
    }
    /// A table's entry for every voxel; rounded to 32 bits where the lanes are.
    fn entry(self, table: &Table, index: usize) -> Self::F;
    /// Neighbouring entries of a table, for inner loops: [`spread`](Self::spread) makes numbers of them.
    fn entries(self, table: &Table, range: Range<usize>) -> &[Self::Stored];
    /// One of them for every voxel.
    fn spread(self, entry: Self::Stored) -> Self::F;
    /// The table's entry that each voxel's own index names: a whole number within the table.
    fn lookup(self, table: &Table, index: Self::F) -> Self::F;
    /// From working memory, the numbers at each voxel's own index: a whole number within it.
    #[inline(always)]
    fn gather(self, memory: &[Self::F], index: Self::F) -> Self::F {
        self.gather_part(memory, index, |numbers| numbers)
    }
    /// [`gather`](Self::gather) from memory that holds these lanes as a part of more.
    fn gather_part<T: Copy>(self, memory: &[T], index: Self::F, part: impl Fn(T) -> Self::F) -> Self::F;
    /// Numbers from memory, one per voxel.
    fn load(self, stored: &[Self::Stored]) -> Self::F;
    /// 16-bit whole numbers from memory, one per voxel.
    fn load_short(self, stored: &[i16]) -> Self::F;
    /// The entries of an ascending table that come into question as the last one at or below the numbers where the mask
    /// holds: for leaving out work, never for deciding a result. Empty where the mask holds nowhere.
    fn span(self, table: &Table, x: Self::F, mask: Self::M) -> Range<usize>;
    /// The largest of whole numbers where the mask holds, 0 where it holds nowhere: for leaving out work.
    fn largest(self, index: Self::F, mask: Self::M) -> usize;
    /// The same truth value for every voxel.
    fn mask(self, value: bool) -> Self::M;
    /// A bit per voxel, the first one's lowest: for leaving out work, never for deciding a result.
    fn bitmask(self, mask: Self::M) -> u32;
    /// True for the voxels whose bits are set.
    fn mask_of(self, bits: u32) -> Self::M;
    /// A number as if it were exact: what a step of a search starts from whose end doesn't depend on it to first order
    /// (Newton's near its goal). Only lanes that carry error bounds tell the difference.
    #[inline(always)]
    fn settled(self, x: Self::F) -> Self::F {
        x
    }
    /// A number that may be off by so much more than its operations say: the end of a search that was not by converging
    /// steps. Only lanes that carry error bounds tell the difference.
    #[inline(always)]
    fn uncertain(self, x: Self::F, by: Self::F) -> Self::F {
        let _ = by;
        x
    }
    /// `a` where the mask holds, `b` elsewhere.
    fn select(self, mask: Self::M, a: Self::F, b: Self::F) -> Self::F;
    /// A bit word where the mask holds, 0 elsewhere.
    fn bits(self, mask: Self::M, word: u32) -> Self::U;
    /// Does a piece of work with the vector instructions of these lanes allowed: a text that is large, or used in several
    /// places, is compiled once per lanes in a function that isn't inlined and whose whole body is one such (inlined)
    /// closure.
    #[inline(always)]
    fn within<R>(self, work: impl FnOnce() -> R) -> R {
        work()
    }
    /// Writes numbers, NaN where they are not valid.
    fn write(self, value: Self::F, valid: Self::M, words: &mut [Self::Word]);
    /// Writes bit words.
    fn write_bits(self, bits: Self::U, words: &mut [Self::Word]);
}

/// Numbers shared by all voxels, in f64 and rounded once to f32, so that no inner loop has to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    double: Vec<f64>,
    single: Vec<f32>,
    /// First entry and step, where entry i is, to the bit, what 32-bit lanes find for first + i * step.
    line: Option<(f32, f32)>,
}

impl Table {
    /// The entry for every voxel.
    #[inline(always)]
    pub fn at<L: Lanes>(&self, lanes: L, index: usize) -> L::F {
        lanes.entry(self, index)
    }
}

impl FromIterator<f64> for Table {
    fn from_iter<I: IntoIterator<Item = f64>>(entries: I) -> Self {
        let double: Vec<f64> = entries.into_iter().collect();
        let single: Vec<f32> = double.iter().map(|x| *x as f32).collect();
        let line = match single[..] {
            [first, second, ..] => Some((first, second - first)),
            _ => None,
        };
        let line = line.filter(|(first, step)| {
            single.iter().enumerate().all(|(i, entry)| (first + i as f32 * step).to_bits() == entry.to_bits())
        });
        Self { double, single, line }
    }
}

impl std::ops::Deref for Table {
    type Target = [f64];

    fn deref(&self) -> &[f64] {
        &self.double
    }
}

/// From the last entry at or below the first number to the last one at or below the second.
#[inline(always)]
fn span<T: PartialOrd>(table: &[T], bounds: Option<(T, T)>) -> Range<usize> {
    let Some((low, high)) = bounds else { return 0..0 };
    let first = table.partition_point(|entry| *entry <= low);
    let more = table[first..].iter().take_while(|entry| **entry <= high).count();
    first.saturating_sub(1)..(first + more).max(1)
}

/// One voxel in f64: the definition.
#[derive(Debug, Clone, Copy)]
pub struct Double;

impl Numbers for f64 {
    type Mask = bool;

    fn lt(self, other: Self) -> bool {
        self < other
    }
    fn le(self, other: Self) -> bool {
        self <= other
    }
    fn max(self, other: Self) -> Self {
        f64::max(self, other)
    }
    fn min(self, other: Self) -> Self {
        f64::min(self, other)
    }
    fn abs(self) -> Self {
        f64::abs(self)
    }
    fn floor(self) -> Self {
        f64::floor(self)
    }
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }
    fn exp(self) -> Self {
        f64::exp(self)
    }
    fn ln(self) -> Self {
        f64::ln(self)
    }
}

impl Masks for bool {
    fn any(self) -> bool {
        self
    }
}

impl Lanes for Double {
    const WIDTH: usize = 1;
    const EPSILON: f64 = f64::EPSILON;
    type F = f64;
    type M = bool;
    type U = u32;
    type Stored = f64;
    type Word = f64;

    fn splat(self, value: f64) -> f64 {
        value
    }
    fn entry(self, table: &Table, index: usize) -> f64 {
        table.double[index]
    }
    fn entries(self, table: &Table, range: Range<usize>) -> &[f64] {
        &table.double[range]
    }
    fn spread(self, entry: f64) -> f64 {
        entry
    }
    fn lookup(self, table: &Table, index: f64) -> f64 {
        table.double[index as usize]
    }
    fn gather_part<T: Copy>(self, memory: &[T], index: f64, part: impl Fn(T) -> f64) -> f64 {
        part(memory[index as usize])
    }
    fn load(self, stored: &[f64]) -> f64 {
        stored[0]
    }
    fn load_short(self, stored: &[i16]) -> f64 {
        f64::from(stored[0])
    }
    fn span(self, table: &Table, x: f64, mask: bool) -> Range<usize> {
        span(&table.double, mask.then_some((x, x)))
    }
    fn largest(self, index: f64, mask: bool) -> usize {
        if mask { index as usize } else { 0 }
    }
    fn mask(self, value: bool) -> bool {
        value
    }
    fn bitmask(self, mask: bool) -> u32 {
        u32::from(mask)
    }
    fn mask_of(self, bits: u32) -> bool {
        bits & 1 == 1
    }
    fn select(self, mask: bool, a: f64, b: f64) -> f64 {
        if mask { a } else { b }
    }
    fn bits(self, mask: bool, word: u32) -> u32 {
        if mask { word } else { 0 }
    }
    fn write(self, value: f64, valid: bool, words: &mut [f64]) {
        words[0] = if valid { value } else { f64::NAN };
    }
    fn write_bits(self, bits: u32, words: &mut [f64]) {
        words[0] = f64::from(bits);
    }
}

/// Sixteen voxels in f32, by the vector instructions that `S` stands for.
#[derive(Debug, Clone, Copy)]
pub struct Wide<S: Simd>(pub S);

impl<S: Simd> Numbers for f32x16<S> {
    type Mask = mask32x16<S>;

    #[inline(always)]
    fn lt(self, other: Self) -> mask32x16<S> {
        self.simd_lt(other)
    }
    #[inline(always)]
    fn le(self, other: Self) -> mask32x16<S> {
        self.simd_le(other)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        fearless_simd::SimdBase::max(self, other)
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        fearless_simd::SimdBase::min(self, other)
    }
    #[inline(always)]
    fn abs(self) -> Self {
        fearless_simd::SimdBase::abs(self)
    }
    #[inline(always)]
    fn floor(self) -> Self {
        fearless_simd::SimdFloat::floor(self)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        fearless_simd::SimdFloat::sqrt(self)
    }
    #[inline(always)]
    fn exp(self) -> Self {
        exp_f32(self)
    }
    #[inline(always)]
    fn ln(self) -> Self {
        ln_f32(self)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        fearless_simd::SimdFloat::mul_add(self, factor, addend)
    }
    #[inline(always)]
    fn minus_product(self, a: Self, b: Self) -> Self {
        fearless_simd::SimdFloat::mul_add(-a, b, self)
    }
}

/// Whole numbers, from 0 on, as places in memory.
#[inline(always)]
fn places<S: Simd>(index: f32x16<S>) -> [u32; 16] {
    u32x16::truncate_from(index).into()
}

impl<S: Simd> Masks for mask32x16<S> {
    #[inline(always)]
    fn any(self) -> bool {
        fearless_simd::SimdMask::any_true(self)
    }
}

impl<S: Simd> Lanes for Wide<S> {
    const WIDTH: usize = 16;
    type F = f32x16<S>;
    type M = mask32x16<S>;
    type U = u32x16<S>;
    type Stored = f32;
    type Word = u32;

    #[inline(always)]
    fn splat(self, value: f64) -> f32x16<S> {
        f32x16::splat(self.0, value as f32)
    }
    #[inline(always)]
    fn entry(self, table: &Table, index: usize) -> f32x16<S> {
        f32x16::splat(self.0, table.single[index])
    }
    #[inline(always)]
    fn entries(self, table: &Table, range: Range<usize>) -> &[f32] {
        &table.single[range]
    }
    #[inline(always)]
    fn spread(self, entry: f32) -> f32x16<S> {
        f32x16::splat(self.0, entry)
    }
    #[inline(always)]
    fn lookup(self, table: &Table, index: f32x16<S>) -> f32x16<S> {
        if let Some((first, step)) = table.line {
            return index * step + first;
        }
        let (places, entries) = (places(index), &table.single[..]);
        f32x16::from_fn(self.0, |lane| entries[places[lane] as usize])
    }
    #[inline(always)]
    fn gather_part<T: Copy>(self, memory: &[T], index: f32x16<S>, part: impl Fn(T) -> f32x16<S>) -> f32x16<S> {
        let places = places(index);
        f32x16::from_fn(self.0, |lane| part(memory[places[lane] as usize])[lane])
    }
    #[inline(always)]
    fn load(self, stored: &[f32]) -> f32x16<S> {
        f32x16::from_slice(self.0, &stored[..16])
    }
    #[inline(always)]
    fn load_short(self, stored: &[i16]) -> f32x16<S> {
        f32x16::float_from(widen(i16x16::from_slice(self.0, &stored[..16])))
    }
    #[inline(always)]
    fn span(self, table: &Table, x: f32x16<S>, mask: mask32x16<S>) -> Range<usize> {
        let low = mask.select(x, f32x16::splat(self.0, f32::INFINITY)).reduce_min();
        let high = mask.select(x, f32x16::splat(self.0, f32::NEG_INFINITY)).reduce_max();
        match table.line {
            Some((first, step)) if low <= high && step > 0.0 => {
                // Places by calculation, then exactly.
                let entries = &table.single[..];
                let end = |x: f32| {
                    let mut end = (((x - first) / step) as usize).saturating_add(1).min(entries.len());
                    while end < entries.len() && entries[end] <= x {
                        end += 1;
                    }
                    while end > 0 && entries[end - 1] > x {
                        end -= 1;
                    }
                    end
                };
                end(low).saturating_sub(1)..end(high).max(1)
            }
            _ => span(&table.single, (low <= high).then_some((low, high))),
        }
    }
    #[inline(always)]
    fn largest(self, index: f32x16<S>, mask: mask32x16<S>) -> usize {
        mask.select(index, f32x16::splat(self.0, 0.0)).reduce_max() as usize
    }
    #[inline(always)]
    fn mask(self, value: bool) -> mask32x16<S> {
        fearless_simd::SimdMask::splat(self.0, value)
    }
    #[inline(always)]
    fn bitmask(self, mask: mask32x16<S>) -> u32 {
        fearless_simd::SimdMask::to_bitmask(mask) as u32
    }
    #[inline(always)]
    fn mask_of(self, bits: u32) -> mask32x16<S> {
        fearless_simd::SimdMask::from_bitmask(self.0, u64::from(bits & 0xffff))
    }
    #[inline(always)]
    fn select(self, mask: mask32x16<S>, a: f32x16<S>, b: f32x16<S>) -> f32x16<S> {
        mask.select(a, b)
    }
    #[inline(always)]
    fn bits(self, mask: mask32x16<S>, word: u32) -> u32x16<S> {
        mask.select(u32x16::splat(self.0, word), u32x16::splat(self.0, 0))
    }
    #[inline(always)]
    fn within<R>(self, work: impl FnOnce() -> R) -> R {
        self.0.vectorize(work)
    }
    #[inline(always)]
    fn write(self, value: f32x16<S>, valid: mask32x16<S>, words: &mut [u32]) {
        let value = valid.select(value, f32x16::splat(self.0, f32::NAN));
        value.store_slice(bytemuck::cast_slice_mut(&mut words[..16]));
    }
    #[inline(always)]
    fn write_bits(self, bits: u32x16<S>, words: &mut [u32]) {
        bits.store_slice(&mut words[..16]);
    }
}

/// Twice the lanes: two vectors side by side, so that the second one's instructions fill the time in which the first one's
/// results are awaited.
#[derive(Debug, Clone, Copy)]
pub struct Twice<L>(pub L);

/// A pair of vectors, of numbers, truth values or bit words.
#[derive(Debug, Clone, Copy)]
pub struct Twin<T>(pub(super) T, pub(super) T);

macro_rules! twin_operators {
    ($($trait:ident $method:ident;)*) => {
        $(impl<T: Copy + $trait<Output = T>> $trait for Twin<T> {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Twin(self.0.$method(other.0), self.1.$method(other.1))
            }
        })*
    };
}

twin_operators! {
    Add add;
    Sub sub;
    Mul mul;
    Div div;
    BitAnd bitand;
    BitOr bitor;
}

impl<T: Copy + Neg<Output = T>> Neg for Twin<T> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Twin(-self.0, -self.1)
    }
}

impl<T: Copy + Not<Output = T>> Not for Twin<T> {
    type Output = Self;
    #[inline(always)]
    fn not(self) -> Self {
        Twin(!self.0, !self.1)
    }
}

impl<M: Masks> Masks for Twin<M> {
    #[inline(always)]
    fn any(self) -> bool {
        (self.0 | self.1).any()
    }
}

impl<F: Numbers> Numbers for Twin<F> {
    type Mask = Twin<F::Mask>;

    #[inline(always)]
    fn lt(self, other: Self) -> Self::Mask {
        Twin(self.0.lt(other.0), self.1.lt(other.1))
    }
    #[inline(always)]
    fn le(self, other: Self) -> Self::Mask {
        Twin(self.0.le(other.0), self.1.le(other.1))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Twin(self.0.max(other.0), self.1.max(other.1))
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Twin(self.0.min(other.0), self.1.min(other.1))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Twin(self.0.abs(), self.1.abs())
    }
    #[inline(always)]
    fn floor(self) -> Self {
        Twin(self.0.floor(), self.1.floor())
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Twin(self.0.sqrt(), self.1.sqrt())
    }
    #[inline(always)]
    fn exp(self) -> Self {
        Twin(self.0.exp(), self.1.exp())
    }
    #[inline(always)]
    fn ln(self) -> Self {
        Twin(self.0.ln(), self.1.ln())
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        Twin(self.0.mul_add(factor.0, addend.0), self.1.mul_add(factor.1, addend.1))
    }
    #[inline(always)]
    fn minus_product(self, a: Self, b: Self) -> Self {
        Twin(self.0.minus_product(a.0, b.0), self.1.minus_product(a.1, b.1))
    }
}

impl<L: Lanes> Lanes for Twice<L> {
    const WIDTH: usize = 2 * L::WIDTH;
    type F = Twin<L::F>;
    type M = Twin<L::M>;
    type U = Twin<L::U>;
    type Stored = L::Stored;
    type Word = L::Word;

    #[inline(always)]
    fn splat(self, value: f64) -> Self::F {
        let value = self.0.splat(value);
        Twin(value, value)
    }
    #[inline(always)]
    fn entry(self, table: &Table, index: usize) -> Self::F {
        let value = self.0.entry(table, index);
        Twin(value, value)
    }
    #[inline(always)]
    fn entries(self, table: &Table, range: Range<usize>) -> &[L::Stored] {
        self.0.entries(table, range)
    }
    #[inline(always)]
    fn spread(self, entry: L::Stored) -> Self::F {
        let value = self.0.spread(entry);
        Twin(value, value)
    }
    #[inline(always)]
    fn lookup(self, table: &Table, index: Self::F) -> Self::F {
        Twin(self.0.lookup(table, index.0), self.0.lookup(table, index.1))
    }
    #[inline(always)]
    fn gather_part<T: Copy>(self, memory: &[T], index: Self::F, part: impl Fn(T) -> Self::F) -> Self::F {
        Twin(
            self.0.gather_part(memory, index.0, |numbers| part(numbers).0),
            self.0.gather_part(memory, index.1, |numbers| part(numbers).1),
        )
    }
    #[inline(always)]
    fn load(self, stored: &[L::Stored]) -> Self::F {
        Twin(self.0.load(stored), self.0.load(&stored[L::WIDTH..]))
    }
    #[inline(always)]
    fn load_short(self, stored: &[i16]) -> Self::F {
        Twin(self.0.load_short(stored), self.0.load_short(&stored[L::WIDTH..]))
    }
    #[inline(always)]
    fn span(self, table: &Table, x: Self::F, mask: Self::M) -> Range<usize> {
        let (a, b) = (self.0.span(table, x.0, mask.0), self.0.span(table, x.1, mask.1));
        match (a.is_empty(), b.is_empty()) {
            (true, _) => b,
            (_, true) => a,
            _ => a.start.min(b.start)..a.end.max(b.end),
        }
    }
    #[inline(always)]
    fn largest(self, index: Self::F, mask: Self::M) -> usize {
        self.0.largest(index.0, mask.0).max(self.0.largest(index.1, mask.1))
    }
    #[inline(always)]
    fn mask(self, value: bool) -> Self::M {
        let value = self.0.mask(value);
        Twin(value, value)
    }
    #[inline(always)]
    fn bitmask(self, mask: Self::M) -> u32 {
        self.0.bitmask(mask.0) | self.0.bitmask(mask.1) << L::WIDTH
    }
    #[inline(always)]
    fn mask_of(self, bits: u32) -> Self::M {
        Twin(self.0.mask_of(bits), self.0.mask_of(bits >> L::WIDTH))
    }
    #[inline(always)]
    fn select(self, mask: Self::M, a: Self::F, b: Self::F) -> Self::F {
        Twin(self.0.select(mask.0, a.0, b.0), self.0.select(mask.1, a.1, b.1))
    }
    #[inline(always)]
    fn bits(self, mask: Self::M, word: u32) -> Self::U {
        Twin(self.0.bits(mask.0, word), self.0.bits(mask.1, word))
    }
    #[inline(always)]
    fn within<R>(self, work: impl FnOnce() -> R) -> R {
        self.0.within(work)
    }
    #[inline(always)]
    fn write(self, value: Self::F, valid: Self::M, words: &mut [L::Word]) {
        let (first, second) = words.split_at_mut(L::WIDTH);
        self.0.write(value.0, valid.0, first);
        self.0.write(value.1, valid.1, second);
    }
    #[inline(always)]
    fn write_bits(self, bits: Self::U, words: &mut [L::Word]) {
        let (first, second) = words.split_at_mut(L::WIDTH);
        self.0.write_bits(bits.0, first);
        self.0.write_bits(bits.1, second);
    }
}

/// The exponential in f32 to 2 ulp: 2^k times a polynomial on half a binade (Cody and Waite 1980: the reduction in two
/// steps; the coefficients are those of a minimax fit of (e^r - 1 - r) / r^2 on [-ln 2 / 2, ln 2 / 2]).
#[inline(always)]
fn exp_f32<S: Simd>(x: f32x16<S>) -> f32x16<S> {
    let simd = x.simd;
    let bounded = fearless_simd::SimdBase::min(fearless_simd::SimdBase::max(x, -87.0), 88.0);
    let k = (bounded * std::f32::consts::LOG2_E).round_ties_even();
    let r = (bounded - k * 0.693_359_4) - k * -2.121_944_4e-4;
    let mut p = f32x16::splat(simd, 1.987_569_1e-4);
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + coefficient;
    }
    let mantissa = p * (r * r) + r + 1.0;
    // 2^k by its exponent bits, in two halves that multiply: k + 127 lies in 1 ..= 254 after the clamp above.
    let exponents = fearless_simd::SimdCvtTruncate::truncate_from(k + 127.0);
    let exponents: u32x16<S> = exponents;
    let scale: f32x16<S> = (exponents << 23).bitcast();
    mantissa * scale
}

/// The natural logarithm in f32 of positive, normal numbers, to 2 ulp away from 1 and 2^-23 absolute near it: the
/// exponent from the bits, ln(1 + m) by a polynomial for m in [sqrt(1/2) - 1, sqrt(2) - 1].
#[inline(always)]
fn ln_f32<S: Simd>(x: f32x16<S>) -> f32x16<S> {
    let simd = x.simd;
    let bits: u32x16<S> = x.bitcast();
    // Subtracting the bits of sqrt(1/2) leaves the exponent of x / sqrt(1/2) in the upper bits.
    let shifted = bits - 0x3f35_04f3;
    let signed: i32x16<S> = shifted.bitcast();
    let exponent = signed >> 23;
    let mantissa_bits = bits - (shifted & 0xff80_0000);
    let mantissa: f32x16<S> = mantissa_bits.bitcast();
    let k: f32x16<S> = fearless_simd::SimdCvtFloat::float_from(exponent);
    let m = mantissa - 1.0;
    let mut p = f32x16::splat(simd, 7.037_684e-2);
    for coefficient in [
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ] {
        p = p * m + coefficient;
    }
    let square = m * m;
    let tail = p * m * square + k * -2.121_944_4e-4 - square * 0.5;
    tail + m + k * 0.693_359_4
}

#[cfg(test)]
mod tests {
    use super::*;
    use fearless_simd::{Level, dispatch};

    #[test]
    fn tables_of_equal_steps_are_read_as_any_other() {
        fn compare<S: Simd>(simd: S) {
            let lanes = Wide(simd);
            for (first, step) in [(0.0, 4.0), (2.5, 0.25), (0.0, 3.7)] {
                let table: Table = (0..60).map(|i| first + f64::from(i) * step).collect();
                assert_eq!(table.line.is_some(), step != 3.7, "steps of {step}");
                for i in 0..60 {
                    let read: [f32; 16] = lanes.lookup(&table, f32x16::splat(simd, i as f32)).into();
                    assert!(read.iter().all(|x| x.to_bits() == table.single[i].to_bits()));
                }
                for i in -70..300 {
                    let x = |lane: usize| (first + f64::from(i) * step * 0.25 + lane as f64 * step * 0.1) as f32;
                    let numbers = f32x16::from_fn(simd, x);
                    let found = lanes.span(&table, numbers, lanes.mask(true));
                    assert_eq!(found, span(&table.single, Some((x(0), x(15)))), "{i} in steps of {step}");
                }
                assert!(lanes.span(&table, f32x16::splat(simd, 1.0), lanes.mask(false)).is_empty());
            }
        }
        let level = Level::new();
        dispatch!(level, simd => compare(simd));
    }

    #[test]
    fn wide_exponential_is_within_two_ulp() {
        fn worst<S: Simd>(simd: S) -> f64 {
            let mut worst = 0.0f64;
            for i in 0..4000 {
                let x = f32x16::from_fn(simd, |lane| -86.0 + (i * 16 + lane) as f32 * 0.002_71);
                let y: [f32; 16] = Numbers::exp(x).into();
                let x: [f32; 16] = x.into();
                for lane in 0..16 {
                    let exact = f64::from(x[lane]).exp();
                    worst = worst.max((f64::from(y[lane]) - exact).abs() / (exact * f64::from(f32::EPSILON)));
                }
            }
            worst
        }
        let level = Level::new();
        let worst = dispatch!(level, simd => worst(simd));
        assert!(worst <= 2.0, "{worst} ulp");
    }

    #[test]
    fn wide_logarithm_is_accurate_far_from_one_and_near_it() {
        fn worst<S: Simd>(simd: S) -> f64 {
            let mut worst = 0.0f64;
            for i in 0..4000 {
                let x = f32x16::from_fn(simd, |lane| ((i * 16 + lane) as f32 * 0.0027 - 85.0).exp());
                let near = f32x16::from_fn(simd, |lane| 0.5 + (i * 16 + lane) as f32 * 2.4e-5);
                for x in [x, near] {
                    let y: [f32; 16] = Numbers::ln(x).into();
                    let x: [f32; 16] = x.into();
                    for lane in 0..16 {
                        let exact = f64::from(x[lane]).ln();
                        let error = (f64::from(y[lane]) - exact).abs();
                        worst = worst.max(error / (exact.abs().max(0.5) * f64::from(f32::EPSILON)));
                    }
                }
            }
            worst
        }
        let level = Level::new();
        let worst = dispatch!(level, simd => worst(simd));
        assert!(worst <= 2.0, "{worst} ulp");
    }
}
