//! What the linear forms have in two columns that all voxels share, made orthonormal on the host: 32-bit normal equations of
//! such columns would have no digits left.

use crate::kernel::lanes::{Lanes, Table};

/// Two columns as orthonormal ones; one of zeros stays one.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedColumns {
    /// The first column as a unit vector, and its length.
    pub(super) first: Table,
    pub(super) first_length: f64,
    /// The second column without the first as a unit vector, its length, and its coefficient on the first.
    pub(super) second: Table,
    pub(super) second_length: f64,
    pub(super) second_on_first: f64,
}

impl SharedColumns {
    pub(super) fn new(first: Vec<f64>, second: &[f64]) -> Self {
        let first_length = dot(&first, &first).sqrt();
        let first = unit(first, first_length);
        let second_on_first = dot(&first, second);
        let rest = without(second, &first);
        let second_length = dot(&rest, &rest).sqrt();
        Self {
            second: unit(rest, second_length).into_iter().collect(),
            first: first.into_iter().collect(),
            first_length,
            second_length,
            second_on_first,
        }
    }

    /// What a column has beside both.
    pub(super) fn beside(&self, column: &[f64]) -> Vec<f64> {
        without(&without(column, &self.first), &self.second)
    }

    /// The coefficients of both columns, from products with the unit vectors.
    #[inline(always)]
    pub(super) fn coefficients<L: Lanes>(&self, lanes: L, [first, second]: [L::F; 2]) -> [L::F; 2] {
        let inverse = |length: f64| if length > 0.0 { 1.0 / length } else { 0.0 };
        let second = second * lanes.splat(inverse(self.second_length));
        let first = (first - lanes.splat(self.second_on_first) * second) * lanes.splat(inverse(self.first_length));
        [first, second]
    }
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn unit(column: Vec<f64>, length: f64) -> Vec<f64> {
    column.into_iter().map(|x| if length > 0.0 { x / length } else { 0.0 }).collect()
}

/// A column without its part along a unit vector: twice, so that what is left is orthogonal to the last digit.
fn without(column: &[f64], unit: &[f64]) -> Vec<f64> {
    let mut rest = column.to_vec();
    for _ in 0..2 {
        let share = dot(&rest, unit);
        rest.iter_mut().zip(unit).for_each(|(x, u)| *x -= share * u);
    }
    rest
}
