//! Keys and values as text.

use std::fmt;

/// How bytes are written and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notation {
    /// ASCII with escapes.
    Escaped,
    /// Two hexadecimal digits a byte.
    Hex,
}

/// Bytes in their notation.
pub(crate) struct Shown<'a> {
    notation: Notation,
    bytes: &'a [u8],
}

impl Notation {
    /// The bytes, to be written.
    pub(crate) fn show(self, bytes: &[u8]) -> Shown<'_> {
        Shown {
            notation: self,
            bytes,
        }
    }

    /// The bytes that `text` stands for: all that [`show`](Self::show) writes is read back. Text that is not ASCII
    /// stands for its UTF-8.
    pub(crate) fn parse(self, text: &str) -> Result<Vec<u8>, String> {
        match self {
            Notation::Hex => parse_hex(text.strip_prefix("0x").unwrap_or(text)),
            Notation::Escaped => parse_escaped(text),
        }
    }
}

fn parse_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text
        .bytes()
        .map(|digit| hex_value(digit).ok_or("expected hexadecimal digits only"))
        .collect::<Result<_, _>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("expected an even number of hexadecimal digits".to_owned());
    }
    Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn parse_escaped(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b't') => b'\t',
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(same @ (b'\\' | b'\'' | b'"')) => same,
            Some(b'x') => {
                let mut digit = || rest.next().and_then(hex_value);
                match (digit(), digit()) {
                    (Some(high), Some(low)) => high << 4 | low,
                    _ => return Err(r"\x needs two hexadecimal digits".to_owned()),
                }
            }
            _ => return Err(r#"after a backslash, expected t, r, n, x, \, ' or ""#.to_owned()),
        });
    }
    Ok(bytes)
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.notation {
            Notation::Escaped => write!(f, "{}", self.bytes.escape_ascii()),
            Notation::Hex => self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_given_back() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        for notation in [Notation::Escaped, Notation::Hex] {
            for bytes in [&all[..], b"", br"a\x41", b"\\", b"tab\tand \"quote\""] {
                let shown = notation.show(bytes).to_string();
                assert!(shown.is_ascii() && !shown.contains(['\t', '\n']), "{shown}");
                assert_eq!(notation.parse(&shown).unwrap(), bytes, "{shown}");
            }
        }
        assert_eq!(Notation::Hex.parse("0xAb01").unwrap(), [0xab, 1]);
        assert_eq!(Notation::Escaped.parse("ä").unwrap(), "ä".as_bytes());
    }

    #[test]
    fn text_that_means_nothing_is_refused() {
        for text in ["abc", "0x1", "zz", "0x0x11", "+1", "ä"] {
            assert!(Notation::Hex.parse(text).is_err(), "{text}");
        }
        for text in [r"\", r"\x", r"\x4", r"\xg0", r"\0", r"a\q"] {
            assert!(Notation::Escaped.parse(text).is_err(), "{text}");
        }
    }
}
