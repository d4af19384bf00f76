//! LEB128: seven bits a byte, least significant first, the high bit says that more follow.

/// The longest encoding of a `u64`.
pub(crate) const VARINT_BYTES_MAX: usize = 10;

/// Appends `value` and says how long it became.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// The encoded length of `value`.
pub(crate) fn len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Decodes the number at `at` and returns it with the position after it; `None` where the bytes end first or the
/// number does not fit.
#[inline]
pub(crate) fn get(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let first = *bytes.get(at)?;
    if first < 0x80 {
        return Some((u64::from(first), at + 1));
    }
    get_long(bytes, at)
}

fn get_long(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (index, &byte) in bytes.get(at..)?.iter().take(VARINT_BYTES_MAX).enumerate() {
        let part = u64::from(byte & 0x7f);
        if index == VARINT_BYTES_MAX - 1 && byte > 1 {
            return None;
        }
        value |= part << (7 * index);
        if byte < 0x80 {
            return Some((value, at + index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_round_trips_and_every_truncation_is_refused() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = vec![0xff];
                put(&mut out, value);
                assert_eq!(out.len() - 1, len(value), "{value}");
                assert_eq!(get(&out, 1), Some((value, out.len())));
                for end in 1..out.len() {
                    assert_eq!(get(&out[..end], 1), None);
                }
            }
        }
    }

    #[test]
    fn numbers_past_64_bits_are_refused() {
        assert_eq!(get(&[0xff; 11], 0), None);
        let mut eleven = [0x80; 11];
        eleven[10] = 1;
        assert_eq!(get(&eleven, 0), None);
        assert_eq!(
            get(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], 0),
            None
        );
        assert_eq!(get(&[], 3), None);
    }
}
