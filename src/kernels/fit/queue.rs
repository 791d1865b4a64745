//! What searches share in which each lane goes through the voxels of blocks at its own pace.

use crate::kernel::Curve;
use crate::kernel::lanes::{Lanes, Numbers as _};

/// The most lanes that there are.
pub(super) const MOST_LANES: usize = 32;

/// Where a lane is: its voxel's block, and the number of its descent.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    pub(super) block: usize,
    pub(super) descent: usize,
}

impl Place {
    /// Takes the lane to its next voxel that is wanted, this one if it is. Returns its block; without one, the lane is done.
    #[inline(always)]
    pub(super) fn enter(&mut self, blocks: usize, wanted: impl Fn(usize) -> bool) -> Option<usize> {
        self.descent = 0;
        while self.block < blocks && !wanted(self.block) {
            self.block += 1;
        }
        (self.block < blocks).then_some(self.block)
    }
}

/// What the first extra layer gives a voxel, and whether it gives nothing: then it is fitted.
#[inline(always)]
pub(super) fn given_or_free<L: Lanes>(lanes: L, curve: &Curve<'_, L>) -> (L::F, L::M) {
    let layer = curve.extra[0];
    let known = layer.abs().lt(lanes.splat(1e30));
    (lanes.select(known, layer, lanes.splat(0.0)), !known)
}
