//! What every answer is checked against: a plain binary search over the source.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::source::{Country, Range};

/// The ranges, ascending and disjoint. IPv4 comes before IPv6, as in the database.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    ranges: Vec<Range>,
}

impl Reference {
    /// From the ranges of both families, each ascending and disjoint, as [`read`](crate::source::read) gives them.
    pub(crate) fn new(v4: Vec<Range>, v6: Vec<Range>) -> Reference {
        let mut ranges = v4;
        ranges.extend(v6);
        ranges.shrink_to_fit();
        Reference { ranges }
    }

    pub(crate) fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// The country of an address; `None` in a gap.
    pub(crate) fn country(&self, address: IpAddr) -> Option<Country> {
        let above = self.ranges.partition_point(|range| range.start <= address);
        // An address above the end may be of the other family: those compare as greater, too.
        let range = self.ranges[..above].last()?;
        (address <= range.end).then_some(range.country)
    }

    /// The same without one country.
    pub(crate) fn without(&self, country: Country) -> Reference {
        Reference {
            ranges: self
                .ranges
                .iter()
                .filter(|range| range.country != country)
                .copied()
                .collect(),
        }
    }

    /// The country with the most ranges (the first by letters among equals), and how many.
    pub(crate) fn most_frequent(&self) -> Option<(Country, usize)> {
        let mut counts = BTreeMap::<Country, usize>::new();
        for range in &self.ranges {
            *counts.entry(range.country).or_default() += 1;
        }
        counts.into_iter().rev().max_by_key(|(_, count)| *count)
    }

    /// Ranges of IPv4 and of IPv6.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let v4 = self.ranges.partition_point(|range| range.start.is_ipv4());
        (v4, self.ranges.len() - v4)
    }

    /// Bytes of memory that it takes.
    pub(crate) fn size_bytes(&self) -> usize {
        self.ranges.capacity() * size_of::<Range>()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Four ranges with gaps before, between and after, two of them side by side, and both families.
    pub(crate) fn sample() -> Reference {
        let range = |start: &str, end: &str, country: &str| Range {
            start: start.parse().unwrap(),
            end: end.parse().unwrap(),
            country: country.parse().unwrap(),
        };
        Reference::new(
            vec![
                range("1.0.0.0", "1.0.0.255", "AU"),
                range("1.0.1.0", "1.0.1.7", "CN"),
            ],
            vec![range("2001::", "2001::ff", "JP"), range("2002::", "2002::", "AU")],
        )
    }

    #[test]
    fn edges_and_gaps() {
        let reference = sample();
        let country = |address: &str| {
            reference
                .country(address.parse().unwrap())
                .map(|found| found.to_string())
        };
        for (address, expected) in [
            ("0.0.0.0", None),
            ("0.255.255.255", None),
            ("1.0.0.0", Some("AU")),
            ("1.0.0.255", Some("AU")),
            ("1.0.1.0", Some("CN")),
            ("1.0.1.7", Some("CN")),
            ("1.0.1.8", None),
            ("255.255.255.255", None),
            ("::", None),
            ("::1.0.0.1", None),
            ("2001::ff", Some("JP")),
            ("2001::100", None),
            ("2002::", Some("AU")),
            ("2002::1", None),
        ] {
            assert_eq!(country(address).as_deref(), expected, "{address}");
        }
    }

    #[test]
    fn a_country_can_be_left_out() {
        let (most, count) = sample().most_frequent().unwrap();
        assert_eq!((most.to_string().as_str(), count), ("AU", 2));
        let rest = sample().without(most);
        assert_eq!(rest.counts(), (1, 1));
        assert_eq!(rest.country("1.0.0.0".parse().unwrap()), None);
        assert!(rest.country("1.0.1.0".parse().unwrap()).is_some());
    }
}
