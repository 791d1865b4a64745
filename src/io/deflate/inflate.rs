//! Inflating (RFC 1951), made for samples of 16 bits and more: most of their codes are short and stand for literals, so one
//! look into the table yields two of them, and one refill of the bit buffer up to eight.

use fearless_simd::{Level, dispatch};

use super::Damage;

/// Bytes that the caller keeps behind the input; zeros behind its very end.
pub(in crate::io) const INPUT_PADDING: usize = 1024;
/// Bytes that may be written behind `stop`.
pub(in crate::io) const OUTPUT_SLACK: usize = 512;

const LITERAL_BITS: u32 = 11;
const DISTANCE_BITS: u32 = 9;
const LENGTH_BITS: u32 = 7;
/// Tables with their subtables: root entries, and what codes of up to 15 bits need beyond (zlib's `enough` for these roots).
const LITERAL_TABLE: usize = (1 << LITERAL_BITS) + 1024;
const DISTANCE_TABLE: usize = (1 << DISTANCE_BITS) + 512;

// Entries. The low byte is the number of bits to take. Literals: two bytes above it, then 8 or 16, the bits that they fill.
// Lengths and distances: the bits of the code alone in four bits, so that what lies above them is the extra value, and the
// base above. Links: bits of the subtable in the second byte, half of where it begins above.
const LITERAL: u32 = 1 << 31;
const SPECIAL: u32 = 1 << 30;
const END: u32 = 1 << 29;
const INVALID: u32 = SPECIAL | 1 << 28;

const LENGTH_BASE: [u16; 29] =
    [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
const LENGTH_EXTRA: [u8; 29] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Why [`Inflater::run`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::io) enum Pause {
    /// It wants more input than it was given.
    Input,
    /// It wrote as far as it was told to, or a little farther.
    Output,
    /// The last block is over; what follows begins at the next byte of the input.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Stored(usize),
    Codes,
    Over,
}

/// What is to be read. Behind `len` lie [`INPUT_PADDING`] bytes more.
#[derive(Debug)]
pub(in crate::io) struct Input<'a> {
    pub(in crate::io) bytes: &'a [u8],
    pub(in crate::io) len: usize,
    pub(in crate::io) at: usize,
    /// Whether more can follow.
    pub(in crate::io) more: bool,
}

/// A stream of deflate blocks under way.
#[derive(Debug)]
pub(in crate::io) struct Inflater {
    bits: u64,
    count: u32,
    state: State,
    last: bool,
    /// Shifts by a variable and masks of so many bits take one instruction each where the processor has them.
    level: Level,
    literals: Box<[u32; LITERAL_TABLE]>,
    distances: Box<[u32; DISTANCE_TABLE]>,
}

impl Inflater {
    pub(in crate::io) fn new() -> Self {
        let literals = vec![INVALID; LITERAL_TABLE].try_into().expect("as long as it says");
        let distances = vec![INVALID; DISTANCE_TABLE].try_into().expect("as long as it says");
        Self { bits: 0, count: 0, state: State::Header, last: false, level: Level::new(), literals, distances }
    }

    /// Begins a new stream.
    pub(in crate::io) fn restart(&mut self) {
        (self.bits, self.count, self.state, self.last) = (0, 0, State::Header, false);
    }

    /// Inflates to `out[*pos..]` until `stop` is reached, the input runs short or the stream ends. Matches reach back to
    /// `out[oldest..]`, no farther. Behind `stop` lie [`OUTPUT_SLACK`] bytes more.
    pub(in crate::io) fn run(
        &mut self,
        input: &mut Input<'_>,
        out: &mut [u8],
        pos: &mut usize,
        oldest: usize,
        stop: usize,
    ) -> Result<Pause, Damage> {
        loop {
            if self.state == State::Over {
                return Ok(Pause::End);
            }
            if *pos >= stop {
                return Ok(Pause::Output);
            }
            if input.more && input.at + INPUT_PADDING > input.len {
                return Ok(Pause::Input);
            }
            let outcome = match self.state {
                State::Header => self.block_header(input),
                State::Stored(left) => self.stored(left, input, out, pos, stop),
                State::Codes => dispatch!(self.level, _simd => self.codes(input, out, pos, oldest, stop)),
                State::Over => Ok(()),
            };
            // Behind the end lie zeros, which may look like any damage.
            if input.at.saturating_sub(self.count as usize / 8) > input.len {
                return Err(Damage::Truncated);
            }
            outcome?;
            if self.state == State::Over {
                self.align(input);
            }
        }
    }

    /// Fills the bit buffer to 56 bits or more.
    #[inline(always)]
    fn refill(&mut self, input: &mut Input<'_>) -> Result<(), Damage> {
        let Some(word) = input.bytes.get(input.at..).and_then(|rest| rest.first_chunk::<8>()) else {
            return Err(Damage::Truncated);
        };
        self.bits |= u64::from_le_bytes(*word) << self.count;
        input.at += (63 - self.count as usize) >> 3;
        self.count |= 56;
        Ok(())
    }

    /// Takes this many bits, at most 16 that are there.
    #[inline(always)]
    fn take(&mut self, bits: u32) -> u32 {
        let value = (self.bits & ((1 << bits) - 1)) as u32;
        self.bits >>= bits;
        self.count -= bits;
        value
    }

    /// Puts whole bytes back and drops the rest of the last one.
    fn align(&mut self, input: &mut Input<'_>) {
        input.at -= (self.count / 8) as usize;
        (self.bits, self.count) = (0, 0);
    }

    fn block_header(&mut self, input: &mut Input<'_>) -> Result<(), Damage> {
        if self.last {
            self.state = State::Over;
            return Ok(());
        }
        self.refill(input)?;
        self.last = self.take(1) == 1;
        match self.take(2) {
            0 => {
                self.align(input);
                self.refill(input)?;
                let (length, check) = (self.take(16), self.take(16));
                if length ^ check != 0xffff {
                    return Err(Damage::Invalid("the length of a stored block contradicts itself"));
                }
                self.align(input);
                self.state = State::Stored(length as usize);
            }
            1 => {
                let lengths: [u8; 288] = std::array::from_fn(|symbol| match symbol {
                    0..144 => 8,
                    144..256 => 9,
                    256..280 => 7,
                    _ => 8,
                });
                self.set_tables(&lengths, &[5; 32])?;
            }
            2 => self.dynamic_header(input)?,
            _ => return Err(Damage::Invalid("there is a block of no known type")),
        }
        Ok(())
    }

    fn dynamic_header(&mut self, input: &mut Input<'_>) -> Result<(), Damage> {
        let (literals, distances, codes) =
            (self.take(5) as usize + 257, self.take(5) as usize + 1, self.take(4) as usize + 4);
        if literals > 286 || distances > 30 {
            return Err(Damage::Invalid("a block has more codes than there are"));
        }
        let mut lengths = [0u8; 19];
        for place in &ORDER[..codes] {
            self.refill(input)?;
            lengths[*place] = self.take(3) as u8;
        }
        let mut table = [INVALID; 1 << LENGTH_BITS];
        build(&lengths, LENGTH_BITS, &mut table, Incomplete::Never, |symbol| LITERAL | (symbol as u32) << 8)?;
        let mut all = [0u8; 286 + 30];
        let total = literals + distances;
        let mut i = 0;
        while i < total {
            self.refill(input)?;
            let entry = table[(self.bits & ((1 << LENGTH_BITS) - 1)) as usize];
            self.take(entry & 0xff);
            let (value, times) = match entry >> 8 & 0x1f {
                length @ 0..16 => (length as u8, 1),
                16 if i == 0 => return Err(Damage::Invalid("a block repeats a code length before the first one")),
                16 => (all[i - 1], 3 + self.take(2) as usize),
                17 => (0, 3 + self.take(3) as usize),
                _ => (0, 11 + self.take(7) as usize),
            };
            let Some(run) = all[..total].get_mut(i..i + times) else {
                return Err(Damage::Invalid("a block has more code lengths than codes"));
            };
            run.fill(value);
            i += times;
        }
        if all[256] == 0 {
            return Err(Damage::Invalid("a block has no code for its end"));
        }
        let (literals, distances) = all[..total].split_at(literals);
        self.set_tables(literals, distances)
    }

    fn set_tables(&mut self, literals: &[u8], distances: &[u8]) -> Result<(), Damage> {
        build(literals, LITERAL_BITS, &mut *self.literals, Incomplete::One, |symbol| match symbol {
            0..256 => LITERAL | 8 << 24 | (symbol as u32) << 8,
            256 => SPECIAL | END,
            257..286 => u32::from(LENGTH_BASE[symbol - 257]) << 12 | u32::from(LENGTH_EXTRA[symbol - 257]),
            _ => INVALID,
        })?;
        join_literals(self.literals.first_chunk_mut().expect("the table is longer"));
        build(distances, DISTANCE_BITS, &mut *self.distances, Incomplete::OneOrNone, |symbol| match symbol {
            0..2 => (symbol as u32 + 1) << 12,
            2..30 => {
                let extra = symbol as u32 / 2 - 1;
                (((2 + symbol as u32 % 2) << extra) + 1) << 12 | extra
            }
            _ => INVALID,
        })?;
        self.state = State::Codes;
        Ok(())
    }

    fn stored(
        &mut self,
        left: usize,
        input: &mut Input<'_>,
        out: &mut [u8],
        pos: &mut usize,
        stop: usize,
    ) -> Result<(), Damage> {
        let here = input.len.saturating_sub(input.at).min(left).min(stop - *pos);
        if here == 0 && left > 0 {
            return Err(Damage::Truncated);
        }
        out[*pos..*pos + here].copy_from_slice(&input.bytes[input.at..input.at + here]);
        *pos += here;
        input.at += here;
        self.state = if here == left { State::Header } else { State::Stored(left - here) };
        Ok(())
    }

    /// Literals and matches until the block ends or one side runs short.
    #[inline(always)]
    fn codes(
        &mut self,
        input: &mut Input<'_>,
        out: &mut [u8],
        pos: &mut usize,
        oldest: usize,
        stop: usize,
    ) -> Result<(), Damage> {
        // All that the loop changes lives in registers; the borrow checker is told what it may not touch.
        self.refill(input)?;
        let (mut bits, mut count, mut at, mut to) = (self.bits, self.count, input.at, *pos);
        let bytes = input.bytes;
        let enough = if input.more { input.len - INPUT_PADDING } else { input.len + 16 };
        let (literals, distances) = (&*self.literals, &*self.distances);
        macro_rules! refill {
            () => {
                let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) else {
                    break Err(Damage::Truncated);
                };
                bits |= u64::from_le_bytes(*word) << (count & 63);
                at += ((count ^ 63) as usize & 63) >> 3;
                count |= 56;
            };
        }
        macro_rules! take {
            ($entry:expr) => {
                bits >>= $entry & 63;
                // Only the low byte counts: what lies above it in an entry does no harm.
                count = count.wrapping_sub($entry);
            };
        }
        macro_rules! extra {
            ($entry:expr) => {
                ((bits & ((1 << ($entry & 63)) - 1)) >> ($entry >> 8 & 15)) as usize
            };
        }
        const MASK: usize = (1 << LITERAL_BITS) - 1;
        // Looked up ahead, so that the table's answer is there when the bits before it are done with.
        let mut entry = literals[bits as usize & MASK];
        let outcome = loop {
            if to >= stop || at > enough {
                break Ok(false);
            }
            refill!();
            if entry & LITERAL != 0 {
                take!(entry);
                let mut word = u64::from((entry >> 8) as u16);
                let mut filled = entry >> 24 & 31;
                entry = literals[bits as usize & MASK];
                if entry & LITERAL != 0 {
                    take!(entry);
                    word |= u64::from((entry >> 8) as u16) << filled;
                    filled += entry >> 24 & 31;
                    entry = literals[bits as usize & MASK];
                }
                let Some(eight) = out.get_mut(to..).and_then(|rest| rest.first_chunk_mut::<8>()) else {
                    break Err(Damage::Invalid("more bytes than there is room for"));
                };
                *eight = word.to_le_bytes();
                to += filled as usize / 8;
                if entry & LITERAL != 0 {
                    continue;
                }
            }
            // Of 56 bits 32 are left at least: enough for a length, and for a look at the distance behind it.
            if entry & SPECIAL != 0 {
                if entry & END == 0 && entry != INVALID {
                    let index = (entry >> 16 & 0xfff) as usize * 2
                        + ((bits >> LITERAL_BITS) as usize & ((1 << (entry >> 8 & 15)) - 1));
                    entry = literals.get(index).copied().unwrap_or(INVALID);
                }
                if entry & LITERAL != 0 {
                    take!(entry);
                    let Some(byte) = out.get_mut(to) else {
                        break Err(Damage::Invalid("more bytes than there is room for"));
                    };
                    *byte = (entry >> 8) as u8;
                    to += 1;
                    entry = literals[bits as usize & MASK];
                    continue;
                }
                if entry & SPECIAL != 0 {
                    if entry & END == 0 {
                        break Err(Damage::Invalid("there is a code that stands for nothing"));
                    }
                    take!(entry);
                    break Ok(true);
                }
            }
            let length = (entry >> 12) as usize + extra!(entry);
            take!(entry);
            let mut link = distances[bits as usize & ((1 << DISTANCE_BITS) - 1)];
            refill!();
            if link & SPECIAL != 0 {
                if link != INVALID {
                    let index = (link >> 16 & 0xfff) as usize * 2
                        + ((bits >> DISTANCE_BITS) as usize & ((1 << (link >> 8 & 15)) - 1));
                    link = distances.get(index).copied().unwrap_or(INVALID);
                }
                if link & SPECIAL != 0 {
                    break Err(Damage::Invalid("there is a code that stands for nothing"));
                }
            }
            let distance = (link >> 12) as usize + extra!(link);
            take!(link);
            entry = literals[bits as usize & MASK];
            if distance > to - oldest {
                break Err(Damage::Invalid("it refers to bytes before its beginning"));
            }
            copy_match(out, to, distance, length);
            to += length;
        };
        (self.bits, self.count, input.at, *pos) = (bits, count & 63, at, to);
        if outcome? {
            self.state = State::Header;
        }
        Ok(())
    }
}

/// Repeats what was written `distance` bytes ago. May write as much as [`OUTPUT_SLACK`] beyond.
#[inline(always)]
fn copy_match(out: &mut [u8], to: usize, distance: usize, length: usize) {
    /// Most matches are shorter: copying more than is wanted costs less than guessing how much that is.
    const AT_ONCE: usize = 16;
    let (from, end) = (to - distance, to + length);
    if distance >= AT_ONCE {
        let first: [u8; AT_ONCE] = *out[from..].first_chunk().expect("what was written lies before");
        *out[to..].first_chunk_mut().expect("there is slack behind") = first;
        let mut done = AT_ONCE;
        while done < length {
            let next: [u8; AT_ONCE] = *out[from + done..].first_chunk().expect("it was written by now");
            *out[to + done..].first_chunk_mut().expect("there is slack behind") = next;
            done += AT_ONCE;
        }
    } else if distance == 1 {
        let byte = out[from];
        out[to..end].fill(byte);
    } else {
        for at in 0..length {
            out[to + at] = out[from + at];
        }
    }
}

/// Which codes may leave bit patterns unused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Incomplete {
    Never,
    /// A code of one symbol.
    One,
    /// The same, or no symbol at all.
    OneOrNone,
}

/// Fills a table from the lengths of its codes: the entry for each index of `root` bits, and subtables for longer codes.
fn build(
    lengths: &[u8],
    root: u32,
    table: &mut [u32],
    incomplete: Incomplete,
    entry: impl Fn(usize) -> u32,
) -> Result<(), Damage> {
    let mut counts = [0u16; 16];
    for length in lengths {
        counts[*length as usize] += 1;
    }
    counts[0] = 0;
    let mut starts = [0u16; 17];
    let mut free = 1i32;
    for length in 1..16 {
        free = 2 * free - i32::from(counts[length]);
        if free < 0 {
            return Err(Damage::Invalid("there are more codes than bits for them"));
        }
        starts[length + 1] = starts[length] + counts[length];
    }
    let symbols_used = starts[16] as usize;
    let longest = (1..16).rev().find(|length| counts[*length] > 0).unwrap_or(0);
    let fine = match (free, incomplete) {
        (0, _) => true,
        (_, Incomplete::Never) => false,
        (_, Incomplete::One) => longest == 1,
        (_, Incomplete::OneOrNone) => longest <= 1,
    };
    if !fine {
        return Err(Damage::Invalid("there are fewer codes than bits for them"));
    }
    let mut sorted = [0u16; 320];
    let mut next = starts;
    for (symbol, length) in lengths.iter().enumerate() {
        if *length > 0 {
            sorted[next[*length as usize] as usize] = symbol as u16;
            next[*length as usize] += 1;
        }
    }
    table[0] = INVALID;
    let (mut size, mut code, mut used) = (1usize, 0u32, 0usize);
    for length in 1..=root as usize {
        table.copy_within(0..size, size);
        size *= 2;
        code <<= 1;
        for symbol in &sorted[used..used + counts[length] as usize] {
            table[(code.reverse_bits() >> (32 - length)) as usize] = sized(entry(*symbol as usize), length);
            code += 1;
        }
        used += counts[length] as usize;
    }
    // Codes longer than the root, by their first bits.
    let mut prefix = None;
    let (mut start, mut end) = (0usize, size);
    for length in root as usize + 1..=longest {
        code <<= 1;
        for k in 0..counts[length] as usize {
            let reversed = code.reverse_bits() >> (32 - length);
            let here = reversed & ((1 << root) - 1);
            if prefix != Some(here) {
                prefix = Some(here);
                let mut sub_bits = length - root as usize;
                // As many bits as the codes with this beginning need.
                let mut left = (1i32 << sub_bits) - (counts[length] as usize - k) as i32;
                while left > 0 && sub_bits + (root as usize) < longest {
                    sub_bits += 1;
                    left = 2 * left - i32::from(counts[sub_bits + root as usize]);
                }
                start = end;
                end += 1 << sub_bits;
                if end > table.len() {
                    return Err(Damage::Invalid("its codes are longer than codes can be"));
                }
                table[start..end].fill(INVALID);
                table[here as usize] = SPECIAL | ((start / 2) as u32) << 16 | (sub_bits as u32) << 8;
            }
            let symbol = sorted[used + k] as usize;
            let first = start + (reversed >> root) as usize;
            for place in table[first..end].iter_mut().step_by(1 << (length - root as usize)) {
                *place = sized(entry(symbol), length);
            }
            code += 1;
        }
        used += counts[length] as usize;
    }
    debug_assert_eq!(used, symbols_used);
    Ok(())
}

/// An entry whose code has so many bits.
fn sized(entry: u32, bits: usize) -> u32 {
    // The bits of a code alone count where extra ones follow it.
    let alone = if entry & (LITERAL | SPECIAL) == 0 { bits as u32 } else { 0 };
    if entry == INVALID { INVALID } else { (entry + bits as u32) | alone << 8 }
}

/// Two literals in one entry wherever the bits of an index decide both.
fn join_literals(table: &mut [u32; 1 << LITERAL_BITS]) {
    // From the end, so that what an entry is joined with is still single.
    for index in (0..table.len()).rev() {
        let first = table[index];
        let taken = first & 0xff;
        let second = table[index >> (taken & 15)];
        if first & second & LITERAL != 0 && taken + (second & 0xff) <= LITERAL_BITS {
            table[index] = LITERAL | 16 << 24 | (second & 0xff00) << 8 | first & 0xff00 | (taken + (second & 0xff));
        }
    }
}
