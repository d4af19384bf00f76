//! The source files: ranges of addresses and their countries, read strictly.
//!
//! A line is `start,end,CC`: IPv4 addresses as decimal numbers, IPv6 addresses as text, both ends included. Lines that
//! begin with `#` are comments. Anything else is refused with its line number; so are ranges out of order, because a
//! range that overlaps another would have two right answers.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// Which addresses a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// Two capital letters, or `??` where the country is not known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Country([u8; 2]);

impl Country {
    /// `None` for bytes that are not a country code.
    pub(crate) fn from_bytes(bytes: [u8; 2]) -> Option<Country> {
        (bytes == *b"??" || bytes.iter().all(u8::is_ascii_uppercase)).then_some(Country(bytes))
    }

    pub(crate) fn bytes(self) -> [u8; 2] {
        self.0
    }
}

impl std::str::FromStr for Country {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes: Option<[u8; 2]> = text.as_bytes().try_into().ok();
        bytes
            .and_then(Country::from_bytes)
            .ok_or_else(|| format!("{text:?} is not a country: two capital letters or ??"))
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(f, "{}", char::from(*byte)))
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Addresses of one family that lie in one country, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: IpAddr,
    pub(crate) end: IpAddr,
    pub(crate) country: Country,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} in {}", self.start, self.end, self.country)
    }
}

/// What is wrong with a source file, and on which line.
#[derive(Debug)]
pub(crate) struct SourceError {
    path: PathBuf,
    line: Option<usize>,
    what: String,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for SourceError {}

/// Reads the ranges of one file, in ascending order.
pub(crate) fn read(path: &Path, family: Family) -> Result<Vec<Range>, SourceError> {
    let error = |line, what| SourceError {
        path: path.to_owned(),
        line,
        what,
    };
    let bytes = std::fs::read(path).map_err(|cause| error(None, cause.to_string()))?;
    parse(&bytes, family).map_err(|(line, what)| error(line, what))
}

/// The ranges in the bytes of a file, or the line (counted from 1) and what is wrong with it.
fn parse(bytes: &[u8], family: Family) -> Result<Vec<Range>, (Option<usize>, String)> {
    let mut ranges: Vec<Range> = Vec::new();
    let lines = bytes
        .strip_suffix(b"\n")
        .unwrap_or(bytes)
        .split(|byte| *byte == b'\n');
    for (number, line) in (1..).zip(lines) {
        if line.starts_with(b"#") {
            continue;
        }
        let range = range_of(line, family).map_err(|what| (Some(number), what))?;
        if let Some(last) = ranges.last().filter(|last| range.start <= last.end) {
            let what = format!(
                "range from {} begins before the last one ended, at {}",
                range.start, last.end
            );
            return Err((Some(number), what));
        }
        ranges.push(range);
    }
    if ranges.is_empty() {
        return Err((
            None,
            "no ranges: the file is empty or has only comments".to_owned(),
        ));
    }
    Ok(ranges)
}

fn range_of(line: &[u8], family: Family) -> Result<Range, String> {
    let text = std::str::from_utf8(line).map_err(|cause| format!("not text: {cause}"))?;
    let fields: Vec<&str> = text.split(',').collect();
    let [start, end, country] = fields[..] else {
        return Err(format!("expected start,end,country and found {text:?}"));
    };
    let (start, end) = (address(start, family)?, address(end, family)?);
    if end < start {
        return Err(format!("range ends at {end}, before its start {start}"));
    }
    Ok(Range {
        start,
        end,
        country: country.parse()?,
    })
}

fn address(text: &str, family: Family) -> Result<IpAddr, String> {
    match family {
        // The parser of numbers would take a sign.
        Family::V4 if text.bytes().all(|byte| byte.is_ascii_digit()) => text
            .parse()
            .map(|bits| Ipv4Addr::from_bits(bits).into())
            .map_err(|cause| format!("{text:?} is not an IPv4 address as a decimal number: {cause}")),
        Family::V4 => Err(format!("{text:?} is not an IPv4 address as a decimal number")),
        Family::V6 => text
            .parse::<Ipv6Addr>()
            .map(IpAddr::V6)
            .map_err(|cause| format!("{text:?} is not an IPv6 address: {cause}")),
    }
}

/// The address after `address` in its family; `None` after the last.
pub(crate) fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4
            .to_bits()
            .checked_add(1)
            .map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6
            .to_bits()
            .checked_add(1)
            .map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

/// The address before `address` in its family; `None` before the first.
pub(crate) fn before(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4
            .to_bits()
            .checked_sub(1)
            .map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6
            .to_bits()
            .checked_sub(1)
            .map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_read_and_comments_are_not() {
        let v4 = parse(
            b"# header\n#\n1,2,DE\n3,3,??\n4294967295,4294967295,US\n",
            Family::V4,
        )
        .unwrap();
        assert_eq!(v4.len(), 3);
        assert_eq!(v4[0].to_string(), "0.0.0.1 to 0.0.0.2 in DE");
        assert_eq!(v4[2].start.to_string(), "255.255.255.255");
        let v6 = parse(b"::,::5,DE\n2001::,2001:0:ffff::,??", Family::V6).unwrap();
        assert_eq!(v6[1].to_string(), "2001:: to 2001:0:ffff:: in ??");
    }

    #[test]
    fn garbage_is_refused_with_its_line() {
        let wrong: [(&[u8], Family, Option<usize>, &str); 16] = [
            (b"", Family::V4, Some(1), "expected start,end,country"),
            (b"#\n", Family::V4, None, "no ranges"),
            (
                b"1,2,DE\n\n3,4,DE\n",
                Family::V4,
                Some(2),
                "expected start,end,country",
            ),
            (b"1,2\n", Family::V4, Some(1), "expected start,end,country"),
            (b"1,2,DE,\n", Family::V4, Some(1), "expected start,end,country"),
            (b"#\n1,2,de\n", Family::V4, Some(2), "country"),
            (b"1,2,DE\r\n", Family::V4, Some(1), "country"),
            (b"1,2,?\n", Family::V4, Some(1), "country"),
            (b"+1,2,DE\n", Family::V4, Some(1), "decimal"),
            (b",2,DE\n", Family::V4, Some(1), "decimal"),
            (b"1,4294967296,DE\n", Family::V4, Some(1), "decimal"),
            (b"1.2.3.4,1.2.3.5,DE\n", Family::V4, Some(1), "decimal"),
            (b"2,1,DE\n", Family::V4, Some(1), "before its start"),
            (
                b"1,5,DE\n5,6,US\n",
                Family::V4,
                Some(2),
                "before the last one ended",
            ),
            (b"::,1,DE\n", Family::V6, Some(1), "IPv6"),
            (b"\xff,::,DE\n", Family::V6, Some(1), "not text"),
        ];
        for (bytes, family, line, says) in wrong {
            let (at, what) = parse(bytes, family).unwrap_err();
            assert_eq!(at, line, "{what}");
            assert!(what.contains(says), "{what}");
        }
    }

    #[test]
    fn an_error_names_file_and_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# one\n1,x,DE\n").unwrap();
        let message = read(file.path(), Family::V4).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("{}:2: \"x\"", file.path().display())),
            "{message}"
        );
        assert!(read(Path::new("/nowhere/at/all"), Family::V4).is_err());
    }

    #[test]
    fn neighbours_stop_at_the_ends_of_a_family() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(after(address("1.2.3.255")), Some(address("1.2.4.0")));
        assert_eq!(
            before(address("1::")),
            Some(address("0:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))
        );
        assert_eq!(
            (before(address("0.0.0.0")), after(address("255.255.255.255"))),
            (None, None)
        );
        assert_eq!(
            (
                before(address("::")),
                after(address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))
            ),
            (None, None)
        );
    }
}
