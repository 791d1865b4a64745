use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

use super::*;

/// xorshift64*: the same bytes every time.
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

/// Inflates with input and output in portions of these sizes.
fn inflate(deflated: &[u8], portion: usize, stop: usize) -> Result<Vec<u8>, Damage> {
    let mut all = Vec::new();
    let mut window = vec![0u8; HISTORY + stop + OUTPUT_SLACK];
    let mut input = vec![0u8; portion + 2 * INPUT_PADDING];
    let mut inflater = Inflater::new();
    let (mut read, mut len, mut at, mut oldest) = (0, 0, 0, HISTORY);
    loop {
        let mut pos = HISTORY;
        let pause = loop {
            let mut given = Input { bytes: &input, len, at, more: read < deflated.len() };
            let pause = inflater.run(&mut given, &mut window, &mut pos, oldest, HISTORY + stop)?;
            at = given.at;
            if pause != Pause::Input {
                break pause;
            }
            input.copy_within(at..len, 0);
            len -= at;
            at = 0;
            let more = (portion + INPUT_PADDING - len).min(deflated.len() - read);
            input[len..len + more].copy_from_slice(&deflated[read..read + more]);
            (read, len) = (read + more, len + more);
            input[len..].fill(0);
        };
        all.extend_from_slice(&window[HISTORY..pos]);
        if pause == Pause::End {
            return Ok(all);
        }
        window.copy_within(pos - HISTORY..pos, 0);
        oldest = oldest.saturating_sub(pos - HISTORY);
    }
}

fn by_flate2(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}

fn back_by_flate2(deflated: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    DeflateDecoder::new(deflated).read_to_end(&mut bytes).expect("a good stream");
    bytes
}

/// Bytes of many kinds: noise, text-like, runs of every length, samples with background.
fn kinds() -> Vec<Vec<u8>> {
    let mut random = Random(0x5eed);
    let noise: Vec<u8> = (0..200_000).map(|_| random.next() as u8).collect();
    let few: Vec<u8> = (0..150_000).map(|_| b"aab cd\n"[random.below(7)]).collect();
    // Codes as long as they can be: each byte half as frequent as the one before.
    let skewed: Vec<u8> = (0..300_000).map(|_| (random.next().trailing_zeros() as u8).min(40)).collect();
    let runs: Vec<u8> =
        (0..700).flat_map(|length| std::iter::repeat_n(random.next() as u8, length).chain([1, 2])).collect();
    let mut samples = Vec::new();
    for i in 0..60_000usize {
        let inside = i / 3_000 % 2 == 0;
        let value = if inside { 100.0 + (random.next() % 1000) as f32 * 0.01 } else { f32::NAN };
        samples.extend(value.to_le_bytes());
    }
    let shorts: Vec<u8> = (0..100_000).flat_map(|_| (300 + random.below(40) as i16).to_le_bytes()).collect();
    let far: Vec<u8> = noise[..HISTORY].iter().chain(&noise[..HISTORY]).chain(&noise[5..900]).copied().collect();
    vec![vec![], vec![7], vec![7; 2], vec![9; 100_000], noise, few, skewed, runs, samples, shorts, far]
}

#[test]
fn what_another_library_deflates_is_inflated() {
    for bytes in kinds() {
        for level in [0, 1, 3, 6, 9] {
            let deflated = by_flate2(&bytes, level);
            for (portion, stop) in [(1 << 20, 1 << 20), (3000, 1000), (1024, 40_000)] {
                assert!(inflate(&deflated, portion, stop).as_deref() == Ok(&bytes[..]), "level {level}, {portion}");
            }
        }
    }
}

#[test]
fn what_is_deflated_is_inflated_by_both() {
    for bytes in kinds() {
        for sample in [1, 2, 4, 8] {
            let cut = bytes.len() / 3 / sample * sample;
            let deflated =
                [deflate(&bytes[..cut], sample, false), deflate(&bytes[cut..], sample, false), deflate(&[], 1, true)]
                    .concat();
            assert!(back_by_flate2(&deflated) == bytes, "{} bytes in samples of {sample}", bytes.len());
            assert!(inflate(&deflated, 1 << 16, 1 << 16).as_deref() == Ok(&bytes[..]));
            assert!(deflated.len() <= bytes.len() + bytes.len() / 1000 + 64, "{} from {}", deflated.len(), bytes.len());
        }
    }
    let background = deflate(&[0; 1 << 20], 4, true);
    assert!(background.len() < 4000, "a background takes {} bytes", background.len());
}

#[test]
fn samples_become_smaller_than_the_lowest_level_makes_them() {
    for bytes in kinds().into_iter().skip(8).take(2) {
        let (ours, theirs) = (deflate(&bytes, 4, true).len(), by_flate2(&bytes, 1).len());
        assert!(ours < theirs, "{ours} bytes, {theirs} by zlib's level 1");
    }
}

#[test]
fn damaged_streams_are_errors() {
    let mut random = Random(0xbad);
    let originals: Vec<Vec<u8>> =
        kinds().iter().map(|bytes| by_flate2(&bytes[..bytes.len().min(20_000)], 6)).filter(|d| d.len() > 9).collect();
    let mut bad = 0;
    for i in 0..4000 {
        let mut stream = originals[i % originals.len()].clone();
        match random.below(3) {
            0 => stream.truncate(random.below(stream.len())),
            1 => {
                let at = random.below(stream.len());
                stream[at] ^= 1 << random.below(8);
            }
            _ => {
                // Damaged at its beginning, where the tables are.
                let at = random.below(stream.len().min(100));
                stream[at] = random.next() as u8;
            }
        }
        // Neither a panic nor an endless stream; flate2 agrees on which ones are good.
        let ours = inflate(&stream, 2000, 5000);
        let mut theirs = Vec::new();
        match DeflateDecoder::new(&stream[..]).read_to_end(&mut theirs) {
            Ok(_) => assert!(ours.as_deref() == Ok(&theirs[..])),
            Err(_) => {
                assert!(ours.is_err());
                bad += 1;
            }
        }
    }
    assert!(bad > 1000, "{bad} of 4000 were bad");
}

#[test]
fn every_way_to_be_wrong_is_named() {
    let error = |bytes: &[u8]| inflate(bytes, 100, 100).expect_err("a damaged stream");
    assert_eq!(error(&[]), Damage::Truncated);
    assert_eq!(error(&[0b111]), Damage::Invalid("there is a block of no known type"));
    assert_eq!(error(&[1, 1, 0, 0xff, 0xff]), Damage::Invalid("the length of a stored block contradicts itself"));
    assert_eq!(error(&[1, 3, 0, 0xfc, 0xff, 1]), Damage::Truncated);
    // Fixed codes: a match right at the beginning.
    assert_eq!(error(&[0x03, 0x02, 0, 0]), Damage::Invalid("it refers to bytes before its beginning"));
}
