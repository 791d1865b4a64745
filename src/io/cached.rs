//! Whether the system holds a file in its memory.

use std::fs::File;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::stored::read_at;

/// Places of a file that are looked at.
const PLACES: u64 = 32;
/// What they may take. A byte that the system holds takes a microsecond or two, one from the fastest usual disks some seventy: so
/// a few may be missing, or the system may have something else to do meanwhile.
const SHORT: Duration = Duration::from_micros(10 * PLACES);

/// Whether the system holds these bytes of a file, or nearly all, as some here and there, and how fast they come, make
/// believe.
pub(super) fn is_cached(file: &File, bytes: Range<u64>) -> bool {
    let start = Instant::now();
    (0..PLACES).all(|place| {
        let at = bytes.start + (bytes.end - bytes.start) / PLACES * place;
        read_at(file, &mut [0], at).is_ok() && start.elapsed() < SHORT
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_just_written_is_cached_and_what_cannot_be_read_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bytes");
        std::fs::write(&path, vec![7; 1 << 20]).expect("written");
        let file = File::open(&path).expect("readable");
        // Other programs may take the processor again and again, but not always.
        assert!((0..100).any(|_| is_cached(&file, 352..1 << 20)));
        let unreadable = std::fs::OpenOptions::new().write(true).open(&path).expect("writable");
        assert!(!is_cached(&unreadable, 0..1 << 20));
    }
}
