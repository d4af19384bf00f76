//! How a range lies in the database: one ordered key space for both families.
//!
//! ```text
//! key    family (1 byte: 4 or 6), start (4 or 16 bytes, big endian)
//! value  end (4 or 16 bytes, big endian), country (2 bytes)
//! ```
//!
//! Keys compare as addresses do, with all of IPv4 before all of IPv6, so the range of an address is the last entry
//! at or before its key, if it is one of the same family and does not end before the address.

use std::net::IpAddr;

use crate::source::{Country, Range};

/// The bytes of a key, without an allocation.
#[derive(Clone, Copy)]
pub(crate) struct KeyBytes {
    bytes: [u8; 17],
    len: usize,
}

impl AsRef<[u8]> for KeyBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The key of a range that starts at `address`.
pub(crate) fn key(address: IpAddr) -> KeyBytes {
    let mut bytes = [0; 17];
    let len = match address {
        IpAddr::V4(v4) => {
            bytes[0] = 4;
            bytes[1..5].copy_from_slice(&v4.octets());
            5
        }
        IpAddr::V6(v6) => {
            bytes[0] = 6;
            bytes[1..].copy_from_slice(&v6.octets());
            17
        }
    };
    KeyBytes { bytes, len }
}

/// The value of a range that ends at `end`. `country` is bytes, so that a copy can hold what is no country.
pub(crate) fn value(end: IpAddr, country: [u8; 2]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(18);
    match end {
        IpAddr::V4(v4) => bytes.extend(v4.octets()),
        IpAddr::V6(v6) => bytes.extend(v6.octets()),
    }
    bytes.extend(country);
    bytes
}

/// The range that an entry holds; `None` for bytes that are no range of ours.
pub(crate) fn decode(key: &[u8], value: &[u8]) -> Option<Range> {
    let (family, start) = key.split_first()?;
    let (end, country) = value.split_last_chunk::<2>()?;
    let (start, end) = match family {
        4 => (v4(start)?, v4(end)?),
        6 => (v6(start)?, v6(end)?),
        _ => return None,
    };
    Some(Range {
        start,
        end,
        country: Country::from_bytes(*country)?,
    })
}

fn v4(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from)
}

fn v6(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::tests::sample;

    #[test]
    fn entries_keep_ranges_and_their_order() {
        let reference = sample();
        let ranges = reference.ranges();
        for range in ranges {
            let (key, value) = (key(range.start), value(range.end, range.country.bytes()));
            assert_eq!(decode(key.as_ref(), &value), Some(*range));
        }
        assert!(ranges.is_sorted_by(|a, b| key(a.start).as_ref() < key(b.start).as_ref()));
        assert!(key("255.255.255.255".parse().unwrap()).as_ref() < key("::".parse().unwrap()).as_ref());
    }

    #[test]
    fn other_bytes_are_no_range() {
        let (key, value) = (&[4, 1, 0, 0, 0][..], &[1, 0, 0, 255, b'A', b'U'][..]);
        assert!(decode(key, value).is_some());
        for (key, value) in [
            (&[][..], value),
            (&[5, 1, 0, 0, 0], value),
            (&[6, 1, 0, 0, 0], value),
            (&[4, 1, 0, 0], value),
            (key, &[]),
            (key, &[1, 0, 0, 255, b'A']),
            (key, &[1, 0, 0, 255, b'-', b'-']),
        ] {
            assert_eq!(decode(key, value), None);
        }
    }
}
