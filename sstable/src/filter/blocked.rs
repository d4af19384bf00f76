//! A Bloom filter in blocks of one cache line (Putze, Sanders, Singler: "Cache-, Hash- and Space-Efficient Bloom
//! Filters", 2007), read where it lies.
//!
//! The hash's high bits choose the block by multiply and shift. Inside, each probe takes nine bits of the hash
//! multiplied by an odd constant; seven probes fit a word, then it is multiplied again.

use super::builder::Keys;
use crate::format::FILTER_BLOCK_BYTES;

/// More probes than any number of bits a key asks for.
pub(crate) const PROBES_MAX: u32 = 30;

/// Nine bits name one of a block's 512.
const PROBE_BITS: u32 = 9;
const PROBES_PER_WORD: u32 = 7;
/// 2^64 divided by the golden ratio, made odd.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// `bits_per_key * ln 2`, a little lower as blocks are unevenly full, found by measuring.
fn probes_for(bits_per_key: u32) -> u32 {
    (bits_per_key * 6 / 10).clamp(1, PROBES_MAX)
}

#[inline]
fn block_of(hash: u64, blocks: usize) -> usize {
    crate::format::index(((u128::from(hash) * blocks as u128) >> 64) as u64)
}

/// Calls `each` with the byte in the block and the bit's mask, for each probe.
#[inline]
fn probe(hash: u64, probes: u32, mut each: impl FnMut(usize, u8)) {
    let mut word = hash;
    let mut left = probes;
    while left > 0 {
        word = word.wrapping_mul(MIX);
        // The product's high bits depend on all of the hash: probes are taken from the top.
        let mut bits = word;
        for _ in 0..left.min(PROBES_PER_WORD) {
            let bit = crate::format::index(bits >> (64 - PROBE_BITS));
            each(bit / 8, 1 << (bit % 8));
            bits <<= PROBE_BITS;
        }
        left -= left.min(PROBES_PER_WORD);
        word ^= word >> 32;
    }
}

/// Appends the blocks; returns the number of probes.
pub(super) fn build(keys: &Keys, bits_per_key: u32, section: &mut Vec<u8>) -> u32 {
    let probes = probes_for(bits_per_key);
    let bits = keys.len() as u64 * u64::from(bits_per_key);
    let blocks = crate::format::index(bits.div_ceil(FILTER_BLOCK_BYTES as u64 * 8)).max(1);
    let start = section.len();
    section.resize(start + blocks * FILTER_BLOCK_BYTES, 0);
    let lines = section[start..].as_chunks_mut::<FILTER_BLOCK_BYTES>().0;
    for hash in keys.hashes() {
        let line = &mut lines[block_of(hash, blocks)];
        probe(hash, probes, |byte, mask| line[byte] |= mask);
    }
    probes
}

/// Whether the payload can be probed.
pub(crate) fn check(payload: &[u8], probes: u32) -> Result<(), &'static str> {
    if payload.is_empty() || !payload.len().is_multiple_of(FILTER_BLOCK_BYTES) {
        return Err("it does not consist of whole blocks");
    }
    if !(1..=PROBES_MAX).contains(&probes) {
        return Err("its number of probes is out of range");
    }
    Ok(())
}

/// Where the one line lies that [`may_contain`] looks at.
#[inline]
pub(crate) fn line_start(payload: &[u8], hash: u64) -> usize {
    block_of(hash, payload.len() / FILTER_BLOCK_BYTES) * FILTER_BLOCK_BYTES
}

/// `false` is certain. An empty payload, which `check` refuses, contains everything.
#[inline]
pub(crate) fn may_contain(payload: &[u8], probes: u32, hash: u64) -> bool {
    let lines = payload.as_chunks::<FILTER_BLOCK_BYTES>().0;
    let Some(line) = lines.get(block_of(hash, lines.len())) else {
        return true;
    };
    let mut missing = 0;
    probe(hash, probes, |byte, mask| missing |= !line[byte] & mask);
    missing == 0
}
