//! The `bloomfilter` crate's filter over key hashes.

use bloomfilter::Bloom;

use super::builder::Keys;
use crate::format::{u32_at, u64_at};

/// The crate's own header: version, length, number of probes, seed.
const HEADER_BYTES: usize = 1 + 8 + 4 + 32;
const VERSION: u8 = 1;
/// More probes than any number of bits a key asks for.
const PROBES_MAX: u32 = 64;

/// Key hashes are random already, so one seed serves all tables. Its halves differ: equal ones make the second hash
/// the first and cost four times the false positives.
const SEED: [u8; 32] = *b"siltstone filter first/2nd half.";

/// Appends the crate's bytes; returns the number of probes.
pub(super) fn build(keys: &Keys, bits_per_key: u32, section: &mut Vec<u8>) -> u32 {
    let bytes = (keys.len() as u64 * u64::from(bits_per_key)).div_ceil(8).max(1);
    let mut bloom = Bloom::<u64>::new_with_seed(crate::format::index(bytes), keys.len().max(1), &SEED)
        .unwrap_or_else(|_| unreachable!("the crate refuses sizes of zero only"));
    for hash in keys.hashes() {
        bloom.set(&hash);
    }
    section.extend_from_slice(bloom.as_slice());
    bloom.number_of_hash_functions()
}

/// Opens the crate's bytes. Its header is checked here first: with a length of zero the crate divides by zero, and
/// with an absurd number of probes each probe loops four billion times.
pub(crate) fn open(payload: &[u8], probes: u32) -> Result<Bloom<u64>, &'static str> {
    let bits_len = payload
        .len()
        .checked_sub(HEADER_BYTES)
        .filter(|&len| len > 0)
        .ok_or("it has no bits")?;
    let sound = payload[0] == VERSION
        && u64_at(payload, 1) == Some(bits_len as u64)
        && u32_at(payload, 9) == Some(probes)
        && (1..=PROBES_MAX).contains(&probes)
        && payload[13..HEADER_BYTES] == SEED;
    if !sound {
        return Err("the header inside it is not one that Siltstone writes");
    }
    Bloom::from_slice(payload)
}
