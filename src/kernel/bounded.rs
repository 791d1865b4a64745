//! Numbers that carry a bound on what 32-bit arithmetic may lose: tolerances derived, not chosen.
//!
//! Every operation adds what WGSL allows a device to lose (W3C "WebGPU Shading Language", section "Floating Point
//! Accuracy"): one unit in the last place for sums and products, since their rounding direction is free; 2.5 for a
//! quotient; 4.5 for a root (the inverse root's 2 and the quotient's 2.5); 3 + 2|x| for an exponential. To first order,
//! as in Wilkinson's running error analysis ("Rounding Errors in Algebraic Processes", 1963).
//!
//! A comparison whose operands are closer than their bounds is ambiguous: a device may decide either way. [`Decisions`]
//! counts them and can take the other side, so that a result is compared with every outcome that a correct device may
//! have.

use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Neg, Range, Sub};

use super::lanes::{Lanes, Numbers, Table};

/// One unit in the last place of f32, relative.
const ULP: f64 = f32::EPSILON as f64;
/// Results below the smallest normal number may be flushed to zero.
const FLUSHED: f64 = f32::MIN_POSITIVE as f64;

/// The ambiguous comparisons of one voxel's evaluation, and how to decide them.
#[derive(Debug, Default)]
pub struct Decisions {
    state: RefCell<DecisionState>,
}

#[derive(Debug, Default)]
struct DecisionState {
    /// Bit k set: the k-th ambiguous comparison takes the side that f64 does not.
    flips: u64,
    ambiguous: u32,
}

impl Decisions {
    /// Starts an evaluation; bit k of `flips` turns the k-th ambiguous comparison.
    pub fn restart(&self, flips: u64) {
        *self.state.borrow_mut() = DecisionState { flips, ambiguous: 0 };
    }

    /// How many comparisons were ambiguous since the start.
    pub fn ambiguous(&self) -> u32 {
        self.state.borrow().ambiguous
    }

    fn decide(&self, nominal: bool, ambiguous: bool) -> bool {
        if !ambiguous {
            return nominal;
        }
        let mut state = self.state.borrow_mut();
        let index = state.ambiguous;
        state.ambiguous += 1;
        nominal ^ (index < 64 && (state.flips >> index) & 1 == 1)
    }
}

/// A number and the largest error that a 32-bit evaluation of it may have.
#[derive(Debug, Clone, Copy)]
pub struct BoundedNumber<'a> {
    value: f64,
    error: f64,
    decisions: &'a Decisions,
}

impl<'a> BoundedNumber<'a> {
    /// Adds a rounding of `ulps` units in the last place, unless the result is exact in 32 bits from exact operands.
    fn rounded(value: f64, error: f64, ulps: f64, decisions: &'a Decisions) -> Self {
        let exact = error == 0.0 && f64::from(value as f32) == value;
        let error = if exact { 0.0 } else { error + ulps * ULP * (value.abs() + error) + FLUSHED };
        Self { value, error, decisions }
    }
}

impl Add for BoundedNumber<'_> {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self::rounded(self.value + other.value, self.error + other.error, 1.0, self.decisions)
    }
}

impl Sub for BoundedNumber<'_> {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self::rounded(self.value - other.value, self.error + other.error, 1.0, self.decisions)
    }
}

impl Mul for BoundedNumber<'_> {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let error = self.value.abs() * other.error + other.value.abs() * self.error + self.error * other.error;
        Self::rounded(self.value * other.value, error, 1.0, self.decisions)
    }
}

impl Div for BoundedNumber<'_> {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        let value = self.value / other.value;
        if self.value == 0.0 && self.error == 0.0 && other.value.abs() > other.error {
            return Self { value, error: 0.0, decisions: self.decisions };
        }
        let smallest = other.value.abs() - other.error;
        let error = if smallest > 0.0 { (self.error + value.abs() * other.error) / smallest } else { f64::INFINITY };
        if error == 0.0 {
            // A division by an exact number can still round, even where the quotient is a 32-bit number.
            return Self { value, error: 2.5 * ULP * value.abs() + FLUSHED, decisions: self.decisions };
        }
        Self::rounded(value, error, 2.5, self.decisions)
    }
}

impl Neg for BoundedNumber<'_> {
    type Output = Self;
    fn neg(self) -> Self {
        Self { value: -self.value, ..self }
    }
}

impl Numbers for BoundedNumber<'_> {
    type Mask = bool;

    fn lt(self, other: Self) -> bool {
        let ambiguous = (self.value - other.value).abs() <= self.error + other.error && self.error + other.error > 0.0;
        self.decisions.decide(self.value < other.value, ambiguous)
    }
    fn le(self, other: Self) -> bool {
        let ambiguous = (self.value - other.value).abs() <= self.error + other.error && self.error + other.error > 0.0;
        self.decisions.decide(self.value <= other.value, ambiguous)
    }
    fn max(self, other: Self) -> Self {
        Self { value: self.value.max(other.value), error: self.error.max(other.error), ..self }
    }
    fn min(self, other: Self) -> Self {
        Self { value: self.value.min(other.value), error: self.error.max(other.error), ..self }
    }
    fn abs(self) -> Self {
        Self { value: self.value.abs(), ..self }
    }
    fn floor(self) -> Self {
        // Exact, but for a number whose bound reaches to the next whole one.
        let value = self.value.floor();
        let below = (self.value - self.error).floor();
        let above = (self.value + self.error).floor();
        Self { value, error: (value - below).max(above - value), ..self }
    }
    fn sqrt(self) -> Self {
        let value = self.value.sqrt();
        // The root of the interval's ends: finite even at 0, where the derivative is not.
        let error = (self.value + self.error).sqrt() - (self.value - self.error).max(0.0).sqrt();
        Self::rounded(value, error, 4.5, self.decisions)
    }
    fn ln(self) -> Self {
        let value = self.value.ln();
        let below = self.value - self.error;
        let error = if below > 0.0 { (self.value / below).ln() } else { f64::INFINITY };
        // Near 1 the bound is absolute, 2^-21; elsewhere 3 units in the last place.
        let lost = if (0.5..=2.0).contains(&self.value) { 2f64.powi(-21) } else { 3.0 * ULP * value.abs() };
        Self { value, error: error + lost, decisions: self.decisions }
    }
    fn exp(self) -> Self {
        let value = self.value.exp();
        let ulps = 3.0 + 2.0 * self.value.abs();
        Self::rounded(value, value * self.error.exp_m1(), ulps, self.decisions)
    }
}

/// A result with its bound; `value` is NaN where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BoundedWord {
    /// The value in f64, NaN if there is none; bits as a number.
    pub value: f64,
    /// The largest deviation that a 32-bit evaluation may have.
    pub error: f64,
}

/// One voxel in f64 with error bounds.
#[derive(Debug, Clone, Copy)]
pub struct Bounded<'a>(pub &'a Decisions);

impl<'a> Lanes for Bounded<'a> {
    const WIDTH: usize = 1;
    type F = BoundedNumber<'a>;
    type M = bool;
    type U = u32;
    type Stored = f64;
    type Word = BoundedWord;

    fn splat(self, value: f64) -> BoundedNumber<'a> {
        BoundedNumber { value, error: (value - f64::from(value as f32)).abs(), decisions: self.0 }
    }
    fn entry(self, table: &Table, index: usize) -> BoundedNumber<'a> {
        self.splat(table[index])
    }
    fn entries(self, table: &Table, range: Range<usize>) -> &[f64] {
        &table[range]
    }
    fn spread(self, entry: f64) -> BoundedNumber<'a> {
        self.splat(entry)
    }
    fn lookup(self, table: &Table, index: BoundedNumber<'a>) -> BoundedNumber<'a> {
        self.splat(table[index.value as usize])
    }
    fn gather_part<T: Copy>(
        self,
        memory: &[T],
        index: BoundedNumber<'a>,
        part: impl Fn(T) -> BoundedNumber<'a>,
    ) -> BoundedNumber<'a> {
        part(memory[index.value as usize])
    }
    fn load(self, stored: &[f64]) -> BoundedNumber<'a> {
        self.splat(stored[0])
    }
    fn load_short(self, stored: &[i16]) -> BoundedNumber<'a> {
        self.splat(f64::from(stored[0]))
    }
    // Every entry: where a number lies is itself uncertain.
    fn span(self, table: &Table, _: BoundedNumber<'a>, mask: bool) -> Range<usize> {
        if mask { 0..table.len() } else { 0..0 }
    }
    fn largest(self, index: BoundedNumber<'a>, mask: bool) -> usize {
        if mask { index.value as usize } else { 0 }
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
    fn settled(self, x: BoundedNumber<'a>) -> BoundedNumber<'a> {
        BoundedNumber { error: 0.0, ..x }
    }
    fn uncertain(self, x: BoundedNumber<'a>, by: BoundedNumber<'a>) -> BoundedNumber<'a> {
        BoundedNumber { error: x.error + by.value.abs(), ..x }
    }
    fn select(self, mask: bool, a: BoundedNumber<'a>, b: BoundedNumber<'a>) -> BoundedNumber<'a> {
        if mask { a } else { b }
    }
    fn bits(self, mask: bool, word: u32) -> u32 {
        if mask { word } else { 0 }
    }
    fn write(self, value: BoundedNumber<'a>, valid: bool, words: &mut [BoundedWord]) {
        words[0] = if valid {
            BoundedWord { value: value.value, error: value.error }
        } else {
            BoundedWord { value: f64::NAN, error: 0.0 }
        };
    }
    fn write_bits(self, bits: u32, words: &mut [BoundedWord]) {
        words[0] = BoundedWord { value: f64::from(bits), error: 0.0 };
    }
}
