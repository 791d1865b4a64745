//! Seeded fuzzing of the reader: damaged headers and gzip streams never panic and never make it allocate more than the
//! file can justify. One test function, because it watches the whole process's memory.

mod nifti_bytes;

use std::path::Path;

use nifti_bytes::{big_endian, gzip, nifti1, nifti2};
use perfuse::Series;
use perfuse::io::{ReadOptions, planned_bytes};

const HEADERS: usize = 100_000;
const STREAMS: usize = 10_000;
/// Deflate can't expand further.
const MOST_FROM_ONE_BYTE: u64 = 1032;
/// Address space that the process may grow by: threads of the test runner, buffers, inputs. A hostile header asks for more.
const SLACK_KIB: u64 = 64 * 1024;

/// xorshift64*: the same files every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Reads with a given spacing, so that damaged times don't hide damaged samples, and without.
fn read(bytes: &[u8], stored: u64, random: &mut Random) -> bool {
    if let Ok(planned) = planned_bytes(bytes) {
        assert!(planned <= stored, "{planned} bytes planned where {stored} are justified");
    }
    let options = if random.below(4) == 0 { ReadOptions::new() } else { ReadOptions::new().frame_spacing_s(1.0) };
    match Series::from_nifti_bytes(Path::new("fuzzed.nii"), bytes, &options) {
        Ok(series) => {
            let bytes = series.sample_bytes();
            assert!(bytes <= stored, "{bytes} bytes read where {stored} are justified");
            true
        }
        Err(error) => {
            // What is refused is refused in words.
            assert!(error.to_string().contains("fuzzed.nii"), "{error}");
            false
        }
    }
}

fn mutate(file: &mut [u8], random: &mut Random) {
    // Fields that decide on sizes, in either version: damaged more often than chance would.
    const FIELDS: [usize; 14] = [0, 40, 42, 44, 48, 70, 72, 108, 12, 14, 16, 24, 32, 168];
    const HOSTILE: [u64; 10] = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, u64::MAX, 1 << 40];
    for _ in 0..1 + random.below(6) {
        match random.below(3) {
            0 => {
                let at = random.below(file.len());
                file[at] = random.next() as u8;
            }
            1 => {
                let at = random.below(file.len());
                file[at] ^= 1 << random.below(8);
            }
            _ => {
                let at = FIELDS[random.below(FIELDS.len())];
                let width = [1, 2, 4, 8][random.below(4)];
                let value = if random.below(3) == 0 { random.next() } else { HOSTILE[random.below(HOSTILE.len())] };
                let bytes = if random.below(2) == 0 { value.to_le_bytes() } else { value.to_be_bytes() };
                let part = if random.below(2) == 0 { &bytes[..width] } else { &bytes[8 - width..] };
                file[at..at + width].copy_from_slice(part);
            }
        }
    }
}

/// Peak address space of this process in KiB, reservations included; 0 where the system doesn't say.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

#[test]
fn damaged_files_never_panic_and_never_allocate_what_they_cannot_justify() {
    let mut random = Random(0x5eed_0001);
    let originals = [nifti1(), nifti2(), big_endian(&nifti1()), big_endian(&nifti2())];
    // Once through everything, so that what is allocated for good is allocated.
    assert!(originals.iter().all(|file| planned_bytes(file).is_ok()));
    // The address space that the system sets aside for each thread's allocations.
    rayon::broadcast(|_| std::hint::black_box(vec![1u8; 1 << 10]));
    let before = peak_kib();

    let mut good = 0;
    for i in 0..HEADERS {
        let mut file = originals[i % originals.len()].clone();
        mutate(&mut file, &mut random);
        if random.below(10) == 0 {
            file.truncate(1 + random.below(file.len()));
        }
        let stored = file.len() as u64;
        good += usize::from(read(&file, stored, &mut random));
    }
    // Enough of them still read that the code behind the header was reached, and enough didn't.
    assert!((HEADERS / 20..HEADERS * 19 / 20).contains(&good), "{good} of {HEADERS} headers were good");

    let mut good = 0;
    for i in 0..STREAMS {
        let mut file = originals[i % originals.len()].clone();
        if random.below(2) == 0 {
            mutate(&mut file, &mut random);
        }
        let cut = random.below(file.len());
        let mut stream =
            if random.below(2) == 0 { gzip(&file) } else { [gzip(&file[..cut]), gzip(&file[cut..])].concat() };
        match random.below(4) {
            0 => stream.truncate(1 + random.below(stream.len())),
            1 => {
                for _ in 0..1 + random.below(4) {
                    let at = random.below(stream.len());
                    stream[at] = random.next() as u8;
                }
            }
            2 => stream.extend((0..random.below(40)).map(|_| random.next() as u8)),
            _ => {}
        }
        let justified = stream.len() as u64 * MOST_FROM_ONE_BYTE;
        good += usize::from(read(&stream, justified, &mut random));
    }
    assert!((STREAMS / 50..STREAMS * 49 / 50).contains(&good), "{good} of {STREAMS} streams were good");

    let grown = peak_kib().saturating_sub(before);
    assert!(grown <= SLACK_KIB, "the address space grew by {grown} KiB");
}
