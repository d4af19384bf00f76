//! The block index: fixed-width arrays, searched where they lie.

use std::cmp::Ordering;
use std::ops::Range;

use siltstone_vfs::{CACHE_LINE_BYTES, Error, Mapping, Result, prefetch_range};

use crate::block::strip;
use crate::format::{
    INDEX_HEADER_BYTES, SECTION_EVEN_INDEX, SECTION_INDEX, Section, array, index, u32_at, u32_len, u64_at,
};
use crate::search::partition_point;
use crate::table::SectionBytes;

/// The first eight bytes of a key, or of what follows a prefix that keys share, as a number that orders as they do; filled up with zeros.
#[inline]
pub(crate) fn head(rest: &[u8]) -> u64 {
    if let Some(first) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*first);
    }
    let mut padded = [0; 8];
    padded[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(padded)
}

/// A shortest key that is at least `last`, and below `next` where there is one.
pub(crate) fn separator<'a>(last: &'a [u8], next: Option<&'a [u8]>, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let Some(next) = next else { return last };
    let shared = last.iter().zip(next).take_while(|(a, b)| a == b).count();
    if shared == last.len() {
        return last;
    }
    if next.len() > shared + 1 {
        return &next[..=shared];
    }
    // `next` ends with the byte that differs: shorten `last` by raising one of its bytes instead.
    let raised = if last[shared] + 1 < next[shared] {
        Some(shared)
    } else {
        (shared + 1..last.len()).find(|&at| last[at] != 0xff)
    };
    match raised {
        Some(at) if at + 1 < last.len() => {
            scratch.clear();
            scratch.extend_from_slice(&last[..=at]);
            scratch[at] += 1;
            scratch
        }
        _ => last,
    }
}

/// Collects separators and block offsets while a table is written.
#[derive(Debug, Default)]
pub(crate) struct IndexBuilder {
    separators: Vec<u8>,
    /// Where each separator ends.
    ends: Vec<usize>,
    /// Where each block starts.
    offsets: Vec<u64>,
}

impl IndexBuilder {
    /// A block starts at `offset`.
    pub(crate) fn push_offset(&mut self, offset: u64) {
        self.offsets.push(offset);
    }

    /// The separator behind the oldest block that has none yet.
    pub(crate) fn push_separator(&mut self, separator: &[u8]) {
        self.separators.extend_from_slice(separator);
        self.ends.push(self.separators.len());
    }

    pub(crate) fn blocks(&self) -> usize {
        self.offsets.len()
    }

    /// About how long the section becomes.
    pub(crate) fn size_bytes(&self) -> u64 {
        (INDEX_HEADER_BYTES + self.offsets.len() * 20 + self.separators.len()) as u64
    }

    fn separator(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.separators[start..self.ends[at]]
    }

    /// The section's kind and its bytes; `data_end` is where the last block ends.
    pub(crate) fn finish(mut self, data_end: u64) -> Result<(u32, Vec<u8>)> {
        let count = self.blocks();
        debug_assert_eq!(count, self.ends.len(), "every block has a separator");
        let stride = stride_of(&self.offsets);
        if stride.is_some() {
            self.offsets.clear();
        }
        self.offsets.push(data_end);
        let prefix_len = match count {
            0 => 0,
            _ => self
                .separator(0)
                .iter()
                .zip(self.separator(count - 1))
                .take_while(|(a, b)| a == b)
                .count(),
        };
        let suffix_bytes = self.separators.len() - count * prefix_len;
        let too_long = || Error::invalid("table's index is longer than 4 GiB: split the table");
        u32::try_from(suffix_bytes).map_err(|_| too_long())?;
        u32::try_from(count).map_err(|_| too_long())?;

        let fixed = 8 * count + 8 * self.offsets.len() + 4 * (count + 1);
        let mut out = Vec::with_capacity(INDEX_HEADER_BYTES + fixed + prefix_len + suffix_bytes);
        out.extend_from_slice(&u32_len(count).to_le_bytes());
        out.extend_from_slice(&u32_len(prefix_len).to_le_bytes());
        out.extend_from_slice(&u32_len(suffix_bytes).to_le_bytes());
        out.extend_from_slice(&stride.unwrap_or(0).to_le_bytes());
        out.resize(INDEX_HEADER_BYTES, 0);
        for at in 0..count {
            out.extend_from_slice(&head(&self.separator(at)[prefix_len..]).to_le_bytes());
        }
        for offset in &self.offsets {
            out.extend_from_slice(&offset.to_le_bytes());
        }
        let mut start = 0;
        out.extend_from_slice(&0u32.to_le_bytes());
        for at in 0..count {
            start += self.separator(at).len() - prefix_len;
            out.extend_from_slice(&u32_len(start).to_le_bytes());
        }
        out.extend_from_slice(&self.separators[..prefix_len]);
        for at in 0..count {
            out.extend_from_slice(&self.separator(at)[prefix_len..]);
        }
        let kind = if stride.is_some() {
            SECTION_EVEN_INDEX
        } else {
            SECTION_INDEX
        };
        Ok((kind, out))
    }
}

/// The distance between all neighbours, if there are some, it is one distance, and a word holds it.
fn stride_of(offsets: &[u64]) -> Option<u32> {
    let stride = offsets.get(1)? - offsets[0];
    let alike = offsets.windows(2).all(|pair| pair[1] - pair[0] == stride);
    alike.then(|| u32::try_from(stride).ok()).flatten()
}

/// An index whose arrays have been checked: the positions below are those of the section's parts.
#[derive(Debug)]
pub(crate) struct Index {
    bytes: SectionBytes,
    count: usize,
    prefix: Box<[u8]>,
    /// Every [`SAMPLED`]-th head: a search begins here, so that only one stretch of the heads has to come from memory.
    samples: Box<[[u8; 8]]>,
    /// Where every block starts at a multiple of one length: that length, and where the last one ends. No offset need be looked
    /// up then.
    even: Option<Even>,
    offsets: usize,
    separator_offsets: usize,
    separators: usize,
}

/// Blocks of one length.
#[derive(Clone, Copy, Debug)]
struct Even {
    stride: u64,
    data_end: u64,
}

impl Index {
    /// Checks lengths, and that blocks, heads and separators follow each other in order. Does not touch the data.
    pub(crate) fn open(bytes: SectionBytes, mapping: &Mapping, section: &Section) -> Result<Index> {
        let path = mapping.path();
        let section_offset = section.offset;
        let view = bytes.get(mapping);
        let damaged = |at: usize, what: String| Error::corruption(path, section_offset + at as u64, what);
        let word = |at| u32_at(view, at).map(|word| word as usize);
        let (Some(count), Some(prefix_len), Some(suffix_bytes)) = (word(0), word(4), word(8)) else {
            return Err(damaged(0, format!("index has {} bytes only", view.len())));
        };
        let is_even = section.kind == SECTION_EVEN_INDEX;
        let stride = u64::from(u32_at(view, 12).unwrap_or_default());
        if is_even != (stride > 0) || array::<16>(view, 16) != Some([0; 16]) {
            let what = if is_even && stride == 0 {
                "index has blocks of no length"
            } else {
                "index header has reserved bytes that are not zero"
            };
            return Err(damaged(12, what.into()));
        }
        // Each factor is below 2^32: nothing here overflows.
        let offsets = INDEX_HEADER_BYTES + 8 * count;
        let separator_offsets = offsets + 8 * if is_even { 1 } else { count + 1 };
        let prefix_start = separator_offsets + 4 * (count + 1);
        let separators = prefix_start + prefix_len;
        if count == 0 || separators + suffix_bytes != view.len() {
            let what = format!(
                "index of {count} blocks has {} bytes, expected {}",
                view.len(),
                separators + suffix_bytes
            );
            return Err(damaged(0, what));
        }
        let prefix = view[prefix_start..separators].into();
        check_ascending(&view[INDEX_HEADER_BYTES..offsets], u64::from_le_bytes, false).map_err(|at| {
            damaged(
                INDEX_HEADER_BYTES + 8 * at,
                format!("index head {at} is out of order"),
            )
        })?;
        let even = is_even.then(|| Even {
            stride,
            data_end: u64_at(view, offsets).unwrap_or_default(),
        });
        let starts_last = (count as u64 - 1) * stride;
        if even.is_some_and(|even| even.data_end <= starts_last) {
            let what = format!("last block ends before it starts at {starts_last}");
            return Err(damaged(offsets, what));
        }
        check_ascending(&view[offsets..separator_offsets], u64::from_le_bytes, true)
            .map_err(|at| damaged(offsets + 8 * at, format!("offset of block {at} is out of order")))?;
        check_ascending(&view[separator_offsets..prefix_start], u32::from_le_bytes, false).map_err(|at| {
            damaged(
                separator_offsets + 4 * at,
                format!("index separator {at} is out of order"),
            )
        })?;
        let this = Index {
            count,
            prefix,
            samples: heads_of(view, offsets).iter().step_by(SAMPLED).copied().collect(),
            even,
            offsets,
            separator_offsets,
            separators,
            bytes,
        };
        let view = this.bytes.get(mapping);
        if this.block_range(view, 0).0 != 0 || this.separator_range(view, 0).0 != separators {
            return Err(damaged(
                offsets,
                "first block of the index does not start at 0".into(),
            ));
        }
        if this.separator_range(view, count - 1).1 != view.len() {
            return Err(damaged(
                separator_offsets,
                "index separators do not end with the section".into(),
            ));
        }
        Ok(this)
    }

    #[inline]
    pub(crate) fn view<'m>(&'m self, mapping: &'m Mapping) -> &'m [u8] {
        self.bytes.get(mapping)
    }

    /// The number of blocks, at least one.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Where block `block` starts and ends in the file, its trailer included.
    #[inline]
    pub(crate) fn block_range(&self, view: &[u8], block: usize) -> (u64, u64) {
        if let Some(even) = self.even {
            let start = block as u64 * even.stride;
            let end = if block + 1 < self.count {
                start + even.stride
            } else {
                even.data_end
            };
            return (start, end);
        }
        let at = self.offsets + 8 * block;
        match array::<16>(view, at) {
            Some(pair) => (u64_at(&pair, 0).unwrap_or(0), u64_at(&pair, 8).unwrap_or(0)),
            None => (0, 0),
        }
    }

    /// Where in the section it is written where blocks are; an empty range where that need not be looked up.
    pub(crate) fn offsets(&self) -> Range<usize> {
        match self.even {
            Some(_) => self.offsets..self.offsets,
            None => self.offsets..self.separator_offsets,
        }
    }

    /// The first block that is shorter than `shortest`, and how long it is.
    pub(crate) fn find_shorter(&self, view: &[u8], shortest: u64) -> Option<(usize, u64)> {
        if let Some(even) = self.even {
            let last = self.count - 1;
            let (start, end) = self.block_range(view, last);
            let others = (last > 0).then_some((0, even.stride));
            return others
                .into_iter()
                .chain([(last, end - start)])
                .find(|(_, len)| *len < shortest);
        }
        first_shorter(view[self.offsets..self.separator_offsets].as_chunks().0, shortest)
    }

    fn separator_range(&self, view: &[u8], block: usize) -> (usize, usize) {
        let at = self.separator_offsets + 4 * block;
        let word = |at| u32_at(view, at).unwrap_or(0) as usize;
        (self.separators + word(at), self.separators + word(at + 4))
    }

    /// What follows the common prefix in block `block`'s separator.
    fn separator_rest<'v>(&self, view: &'v [u8], block: usize) -> &'v [u8] {
        let (start, end) = self.separator_range(view, block);
        view.get(start..end).unwrap_or_default()
    }

    /// Block `block`'s separator.
    pub(crate) fn separator(&self, view: &[u8], block: usize) -> Vec<u8> {
        [&self.prefix, self.separator_rest(view, block)].concat()
    }

    /// Whether block `block`'s separator is `key`: entries of that key may go on in the next block.
    #[inline]
    pub(crate) fn separator_is(&self, view: &[u8], block: usize, key: &[u8]) -> bool {
        strip(&self.prefix, key) == Ok(self.separator_rest(view, block))
    }

    /// The first block whose separator is at least `key`; `count` where there is none.
    #[inline]
    pub(crate) fn find(&self, view: &[u8], key: &[u8]) -> usize {
        let rest = match strip(&self.prefix, key) {
            Ok(rest) => rest,
            Err(Ordering::Less) => return 0,
            Err(_) => return self.count,
        };
        let wanted = head(rest);
        let heads = heads_of(view, self.offsets);
        // The first sample that is at least `wanted`: what is looked for lies after the one before it, up to it.
        let sample = lower_bound(&self.samples, wanted);
        let start = sample.checked_sub(1).map_or(0, |before| before * SAMPLED + 1);
        let end = (sample * SAMPLED).min(heads.len());
        let heads_between = &heads[start..end];
        let bytes = heads_between.as_flattened();
        prefetch_range(bytes, 0, bytes.len(), 8 * SAMPLED / CACHE_LINE_BYTES + 1);
        let low = start + lower_bound(heads_between, wanted);
        if heads
            .get(low)
            .is_none_or(|head| u64::from_le_bytes(*head) != wanted)
        {
            return low;
        }
        self.find_among_equal_heads(view, heads, low, wanted, rest)
    }

    fn find_among_equal_heads(
        &self,
        view: &[u8],
        heads: &[[u8; 8]],
        low: usize,
        wanted: u64,
        rest: &[u8],
    ) -> usize {
        let high = match wanted.checked_add(1) {
            Some(after) => low + lower_bound(&heads[low..], after),
            None => self.count,
        };
        let (mut low, mut high) = (low, high);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.separator_rest(view, middle) < rest {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Whether heads agree with separators and separators ascend: what `open` leaves out.
    pub(crate) fn check_separators(&self, view: &[u8]) -> std::result::Result<(), String> {
        for block in 0..self.count {
            let rest = self.separator_rest(view, block);
            if u64_at(view, INDEX_HEADER_BYTES + 8 * block) != Some(head(rest)) {
                return Err(format!("index head {block} is not that of its separator"));
            }
            if block > 0 && self.separator_rest(view, block - 1) > rest {
                return Err(format!("index separator {block} is out of order"));
            }
        }
        Ok(())
    }
}

/// Of so many heads one is a sample: the stretch between two is 8 cache lines, which are asked for together.
const SAMPLED: usize = 64;

/// The heads of an index whose offsets start at `offsets`.
#[inline]
fn heads_of(view: &[u8], offsets: usize) -> &[[u8; 8]] {
    view.get(INDEX_HEADER_BYTES..offsets)
        .unwrap_or_default()
        .as_chunks::<8>()
        .0
}

/// The first position whose number is at least `wanted`.
#[inline]
fn lower_bound(heads: &[[u8; 8]], wanted: u64) -> usize {
    partition_point(heads.len(), |at| u64::from_le_bytes(heads[at]) < wanted)
}

/// Pairs of numbers that are compared before the outcome is looked at.
const CHECKED_TOGETHER: usize = 64;

/// Checks that an array of numbers ascends; else the position of the first that does not.
fn check_ascending<const N: usize, T: PartialOrd>(
    bytes: &[u8],
    decode: impl Fn([u8; N]) -> T,
    strictly: bool,
) -> std::result::Result<(), usize> {
    let numbers = bytes.as_chunks::<N>().0;
    let pairs = numbers.len().saturating_sub(1);
    let in_order = |at: usize| {
        let (a, b) = (decode(numbers[at]), decode(numbers[at + 1]));
        (a < b) | (!strictly & (a == b))
    };
    // No branch for each: opening a table is mostly this.
    for start in (0..pairs).step_by(CHECKED_TOGETHER) {
        let mut together = start..(start + CHECKED_TOGETHER).min(pairs);
        if !together.clone().fold(true, |all, at| all & in_order(at)) {
            return Err(together.find(|at| !in_order(*at)).unwrap_or(start) + 1);
        }
    }
    Ok(())
}

/// The first distance that is shorter than `shortest`, in an array of offsets that ascends.
fn first_shorter(offsets: &[[u8; 8]], shortest: u64) -> Option<(usize, u64)> {
    if distances(offsets).fold(u64::MAX, u64::min) >= shortest {
        return None;
    }
    distances(offsets)
        .enumerate()
        .find(|(_, distance)| *distance < shortest)
}

/// Between neighbours.
fn distances(offsets: &[[u8; 8]]) -> impl Iterator<Item = u64> {
    let pairs = offsets.windows(2);
    pairs.map(|pair| u64::from_le_bytes(pair[1]).wrapping_sub(u64::from_le_bytes(pair[0])))
}

/// The part of the file between two block offsets.
pub(crate) fn block_span(range: (u64, u64)) -> std::ops::Range<usize> {
    index(range.0)..index(range.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn separated(last: &[u8], next: &[u8]) -> Vec<u8> {
        separator(last, Some(next), &mut Vec::new()).to_vec()
    }

    #[test]
    fn separators_are_short() {
        assert_eq!(separated(b"abcdef", b"abzz"), b"abz");
        assert_eq!(separated(b"abcdef", b"abz"), b"abd");
        assert_eq!(separated(b"abcdef", b"abd"), b"abce");
        assert_eq!(separated(b"ab\xff\xff", b"ac"), b"ab\xff\xff");
        assert_eq!(separated(b"ab", b"abc"), b"ab");
        assert_eq!(separated(b"same", b"same"), b"same");
        assert_eq!(separated(b"", b"a"), b"");
    }

    #[test]
    fn what_is_out_of_order_or_too_short_is_found_wherever_it_is() {
        let bytes = |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>();
        let ascending: Vec<u64> = (0..3 * CHECKED_TOGETHER as u64).map(|n| n * 10).collect();
        assert_eq!(
            check_ascending(&bytes(&ascending), u64::from_le_bytes, true),
            Ok(())
        );
        assert_eq!(stride_of(&ascending), Some(10));
        assert_eq!((stride_of(&[0]), stride_of(&[0, 1 << 32])), (None, None));
        assert_eq!(first_shorter(bytes(&ascending).as_chunks().0, 10), None);
        for at in 1..ascending.len() {
            let mut numbers = ascending.clone();
            numbers[at] = numbers[at - 1];
            let same = bytes(&numbers);
            assert_eq!(check_ascending(&same, u64::from_le_bytes, false), Ok(()));
            assert_eq!(check_ascending(&same, u64::from_le_bytes, true), Err(at));
            assert_eq!(stride_of(&numbers), None);
            numbers[at] = numbers[at - 1] + 3;
            assert_eq!(first_shorter(bytes(&numbers).as_chunks().0, 4), Some((at - 1, 3)));
            assert_eq!(first_shorter(bytes(&numbers).as_chunks().0, 3), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 16 } else { 4096 }))]
        #[test]
        fn a_separator_lies_between_its_neighbours(
            a in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(254), Just(255)], 0..6),
            b in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(254), Just(255)], 0..6),
        ) {
            let (last, next) = if a <= b { (a, b) } else { (b, a) };
            let found = separated(&last, &next);
            prop_assert!(found.len() <= last.len());
            prop_assert!(last <= found);
            prop_assert!(last == next || found < next);
        }
    }

    #[test]
    fn the_branchless_search_agrees_with_partition_point() {
        for count in 0..40u64 {
            let heads: Vec<_> = (0..count).map(|n| (n / 3 * 2).to_le_bytes()).collect();
            for wanted in 0..30 {
                let expected = heads.partition_point(|head| u64::from_le_bytes(*head) < wanted);
                assert_eq!(lower_bound(&heads, wanted), expected, "{count} {wanted}");
            }
        }
    }
}
