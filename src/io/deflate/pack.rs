//! Deflating (RFC 1951) of samples. Their lower bytes are noise, in which a search for repetitions finds next to nothing at
//! most of the cost; what repeats is the sample before, over the background. So there are Huffman codes, made for each block,
//! and runs of one sample, nothing else.

/// Bytes that get codes of their own.
pub(in crate::io) const BLOCK: usize = 1 << 16;
/// Samples that repeat for fewer bytes stay literals.
const LEAST_RUN: usize = 16;
const LONGEST_MATCH: usize = 258;
const LONGEST_CODE: usize = 15;
const END: usize = 256;
const SYMBOLS: usize = 286;

const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Bits on their way into bytes.
#[derive(Debug, Default)]
struct Bits {
    out: Vec<u8>,
    word: u64,
    count: u32,
}

impl Bits {
    /// Adds bits; no more than 56 may be waiting with them.
    #[inline(always)]
    fn put(&mut self, bits: u64, count: u32) {
        self.word |= bits << self.count;
        self.count += count;
    }

    /// Writes whole bytes; fewer than 8 bits stay.
    #[inline(always)]
    fn flush(&mut self) {
        let bytes = self.count as usize / 8;
        self.out.extend_from_slice(&self.word.to_le_bytes());
        self.out.truncate(self.out.len() - (8 - bytes));
        // All 64 bits can't be waiting.
        self.word >>= bytes * 8;
        self.count &= 7;
    }

    fn align(&mut self) {
        self.count = self.count.next_multiple_of(8);
        self.flush();
    }
}

/// Stretches of a block: so many literals, then so many bytes that repeat what lies one sample before.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    literals: usize,
    run: usize,
}

/// Deflates bytes made of samples of 1, 2, 4 or 8 bytes into blocks that end at a whole byte; the last one may follow or
/// not. Whatever is deflated so can be put together.
pub(in crate::io) fn deflate(bytes: &[u8], sample_bytes: usize, last: bool) -> Vec<u8> {
    let mut bits = Bits { out: Vec::with_capacity(bytes.len() + bytes.len() / 64 + 64), ..Bits::default() };
    let mut stretches = Vec::new();
    for block in bytes.chunks(BLOCK) {
        find_runs(block, sample_bytes, &mut stretches);
        put_block(block, sample_bytes, &stretches, &mut bits);
    }
    // An empty stored block ends at a byte, and costs five.
    bits.put(u64::from(last), 3);
    bits.align();
    bits.out.extend_from_slice(&[0, 0, 0xff, 0xff]);
    bits.out
}

/// Cuts a block into literals and runs.
fn find_runs(block: &[u8], sample: usize, stretches: &mut Vec<Stretch>) {
    stretches.clear();
    let (mut literals_from, mut at) = (0, sample);
    while at + LEAST_RUN <= block.len() {
        let same = block[at..at + LEAST_RUN] == block[at - sample..at - sample + LEAST_RUN];
        if !same {
            at += sample;
            continue;
        }
        let more = block[at + LEAST_RUN..].iter().zip(&block[at + LEAST_RUN - sample..]).take_while(|(a, b)| a == b);
        let run = LEAST_RUN + more.count();
        stretches.push(Stretch { literals: at - literals_from, run });
        at += run;
        literals_from = at;
        // The next sample that begins here has this one before it.
        at = at.next_multiple_of(sample);
    }
    stretches.push(Stretch { literals: block.len() - literals_from, run: 0 });
}

/// The pieces that a run is told in: as long as possible, none shorter than a match can be.
fn pieces(run: usize) -> impl Iterator<Item = usize> {
    let mut left = run;
    std::iter::from_fn(move || {
        let piece = match left {
            0 => return None,
            259 | 260 => 256,
            more => more.min(LONGEST_MATCH),
        };
        left -= piece;
        Some(piece)
    })
}

/// The symbol of a length, its extra bits and their number.
fn length_symbol(length: usize) -> (usize, u64, u32) {
    match length {
        0..=10 => (254 + length, 0, 0),
        LONGEST_MATCH => (285, 0, 0),
        _ => {
            let above = length - 3;
            let extra = above.ilog2() - 2;
            (257 + 4 * extra as usize + (above >> extra), (above & ((1 << extra) - 1)) as u64, extra)
        }
    }
}

fn put_block(block: &[u8], sample: usize, stretches: &[Stretch], bits: &mut Bits) {
    let mut counts = [0u32; SYMBOLS];
    let mut at = 0;
    for stretch in stretches {
        count_bytes(&block[at..at + stretch.literals], &mut counts);
        pieces(stretch.run).for_each(|piece| counts[length_symbol(piece).0] += 1);
        at += stretch.literals + stretch.run;
    }
    counts[END] = 1;
    let lengths = code_lengths(&counts);
    let codes = codes(&lengths);
    let header = header(&lengths, sample, stretches.len() > 1);
    let body: u64 = counts.iter().zip(&lengths).map(|(count, length)| u64::from(*count) * u64::from(*length)).sum();
    // Runs take a few bits more; where they are worth a thought, the block is far from this limit.
    if header.iter().map(|(_, bits)| u64::from(*bits)).sum::<u64>() + body >= 8 * block.len() as u64 {
        return put_stored(block, bits);
    }
    for (value, count) in header {
        bits.put(value, count);
        bits.flush();
    }
    let distance_extra = match sample {
        // Distances of 7 and 8 share a symbol; the bit says 8.
        8 => (0b10, 2),
        _ => (0, 1),
    };
    let mut at = 0;
    for stretch in stretches {
        put_literals(&block[at..at + stretch.literals], &codes, bits);
        for piece in pieces(stretch.run) {
            let (symbol, extra, extra_bits) = length_symbol(piece);
            let (code, length) = codes[symbol];
            bits.put(code.into(), length.into());
            bits.put(extra, extra_bits);
            bits.put(distance_extra.0, distance_extra.1);
            bits.flush();
        }
        at += stretch.literals + stretch.run;
    }
    let (code, length) = codes[END];
    bits.put(code.into(), length.into());
    bits.flush();
}

#[inline(always)]
fn put_literals(literals: &[u8], codes: &[(u16, u8); SYMBOLS], bits: &mut Bits) {
    let (threes, rest) = literals.as_chunks::<3>();
    for three in threes {
        // 7 bits may be waiting before three codes of 15.
        for byte in three {
            let (code, length) = codes[usize::from(*byte)];
            bits.put(code.into(), length.into());
        }
        bits.flush();
    }
    for byte in rest {
        let (code, length) = codes[usize::from(*byte)];
        bits.put(code.into(), length.into());
    }
    bits.flush();
}

fn put_stored(block: &[u8], bits: &mut Bits) {
    for part in block.chunks(0xffff) {
        bits.put(0, 3);
        bits.align();
        let length = part.len() as u16;
        bits.out.extend_from_slice(&length.to_le_bytes());
        bits.out.extend_from_slice(&(!length).to_le_bytes());
        bits.out.extend_from_slice(part);
    }
}

/// Adds to the counts of bytes; four tables, because counting the same byte twice in a row waits for memory.
fn count_bytes(bytes: &[u8], counts: &mut [u32; SYMBOLS]) {
    if bytes.len() < 256 {
        bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        return;
    }
    let mut tables = [[0u32; 256]; 4];
    let (fours, rest) = bytes.as_chunks::<4>();
    for four in fours {
        for (table, byte) in tables.iter_mut().zip(four) {
            table[usize::from(*byte)] += 1;
        }
    }
    rest.iter().for_each(|byte| tables[0][usize::from(*byte)] += 1);
    for table in &tables {
        counts.iter_mut().zip(table).for_each(|(count, more)| *count += more);
    }
}

/// The block's beginning with its code lengths, as values and numbers of bits.
fn header(lengths: &[u8; SYMBOLS], sample: usize, runs: bool) -> Vec<(u64, u32)> {
    let symbols = if runs { SYMBOLS } else { END + 1 };
    let distance = match sample {
        1 => 0,
        2 => 1,
        4 => 3,
        _ => 5,
    };
    let mut all: Vec<u8> = lengths[..symbols].to_vec();
    // One distance at most, with a code of one bit.
    let distances = if runs { distance + 1 } else { 1 };
    all.extend((0..distances).map(|symbol| u8::from(runs && symbol == distance)));
    let mut told: Vec<(usize, u64, u32)> = Vec::new();
    let mut at = 0;
    while at < all.len() {
        let value = all[at];
        let same = all[at..].iter().take_while(|length| **length == value).count();
        match same {
            3.. if value == 0 => {
                let times = same.min(138);
                told.push(if times < 11 { (17, times as u64 - 3, 3) } else { (18, times as u64 - 11, 7) });
                at += times;
            }
            4.. => {
                let times = (same - 1).min(6);
                told.push((value.into(), 0, 0));
                told.push((16, times as u64 - 3, 2));
                at += times + 1;
            }
            _ => {
                told.push((value.into(), 0, 0));
                at += 1;
            }
        }
    }
    let mut counts = [0u32; 19];
    told.iter().for_each(|(symbol, ..)| counts[*symbol] += 1);
    let of_lengths = limited_lengths(&counts, 7);
    let codes = canonical(&of_lengths);
    let used = ORDER.iter().rposition(|place| of_lengths[*place] > 0).unwrap_or(0).max(3) + 1;
    let mut header = vec![
        // Not the last block; codes of its own.
        (0b100, 3),
        (symbols as u64 - 257, 5),
        (distances as u64 - 1, 5),
        (used as u64 - 4, 4),
    ];
    header.extend(ORDER[..used].iter().map(|place| (u64::from(of_lengths[*place]), 3)));
    for (symbol, extra, extra_bits) in told {
        let (code, length) = codes[symbol];
        header.push((code.into(), length.into()));
        header.push((extra, extra_bits));
    }
    header
}

fn code_lengths(counts: &[u32; SYMBOLS]) -> [u8; SYMBOLS] {
    limited_lengths(counts, LONGEST_CODE)
}

fn codes(lengths: &[u8; SYMBOLS]) -> [(u16, u8); SYMBOLS] {
    canonical(lengths)
}

/// Huffman's code lengths, none longer than `longest`. A single symbol gets one bit, and a second one that is never used
/// beside it: some readers refuse a code that leaves bits unused.
fn limited_lengths<const N: usize>(counts: &[u32; N], longest: usize) -> [u8; N] {
    let mut lengths = [0u8; N];
    let mut used: Vec<(u64, usize)> =
        (0..N).filter(|symbol| counts[*symbol] > 0).map(|symbol| (counts[symbol].into(), symbol)).collect();
    if used.len() < 2 {
        lengths[used.first().map_or(0, |(_, symbol)| *symbol)] = 1;
        lengths[usize::from(used.first().is_none_or(|(_, symbol)| *symbol == 0))] = 1;
        return lengths;
    }
    used.sort_unstable();
    // The two lightest trees become one, again and again; new trees arise in the order of their weight, so two queues do.
    let n = used.len();
    let mut weights: Vec<u64> = used.iter().map(|(count, _)| *count).collect();
    let mut parents = vec![0usize; 2 * n - 1];
    let (mut leaf, mut tree) = (0, n);
    for next in n..2 * n - 1 {
        let mut lightest = || {
            let of_leaves = leaf < n && (tree >= weights.len() || weights[leaf] <= weights[tree]);
            let found = if of_leaves { leaf } else { tree };
            if of_leaves {
                leaf += 1
            } else {
                tree += 1
            }
            found
        };
        let (a, b) = (lightest(), lightest());
        parents[a] = next;
        parents[b] = next;
        weights.push(weights[a] + weights[b]);
    }
    let mut depths = vec![0usize; 2 * n - 1];
    for node in (0..2 * n - 2).rev() {
        depths[node] = depths[parents[node]] + 1;
    }
    let mut of_length = vec![0usize; longest + 1];
    for depth in &depths[..n] {
        of_length[(*depth).min(longest)] += 1;
    }
    // Codes that were cut take more than there is: lengthen a shorter one for each bit pattern that is missing.
    let taken =
        |of_length: &[usize]| (1..=longest).map(|length| of_length[length] << (longest - length)).sum::<usize>();
    while taken(&of_length) > 1 << longest {
        let shorter = (1..longest).rev().find(|length| of_length[*length] > 0).unwrap_or(1);
        of_length[shorter] -= 1;
        of_length[shorter + 1] += 2;
        of_length[longest] -= 1;
    }
    // The rarest symbols get the longest codes.
    let mut symbols = used.iter();
    for length in (1..=longest).rev() {
        for (_, symbol) in symbols.by_ref().take(of_length[length]) {
            lengths[*symbol] = length as u8;
        }
    }
    lengths
}

/// The canonical codes of these lengths, with the first bit lowest, as they are sent.
fn canonical<const N: usize>(lengths: &[u8; N]) -> [(u16, u8); N] {
    let mut next = [0u16; LONGEST_CODE + 2];
    for length in lengths.iter().filter(|length| **length > 0) {
        next[*length as usize + 1] += 1;
    }
    // Counts, one place on, become the first code of each length.
    let mut code = 0;
    for place in &mut next[1..] {
        code = (code + *place) << 1;
        *place = code;
    }
    let mut codes = [(0, 0); N];
    for (symbol, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
        let code = next[*length as usize];
        next[*length as usize] += 1;
        codes[symbol] = (code.reverse_bits() >> (16 - u32::from(*length)), *length);
    }
    codes
}
