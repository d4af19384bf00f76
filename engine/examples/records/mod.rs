//! The keys of the examples that measure.

/// A bijection on 64 bits: each number once, in random order.
pub(crate) fn scramble(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The key of record `i`: 16 bytes, random ones in front.
pub(crate) fn key(i: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&scramble(i).to_be_bytes());
    key[8..].copy_from_slice(&i.to_be_bytes());
    key
}
