//! The one place that uses `bincode`: small metadata, with a limit on what hostile bytes can make it allocate.

use serde::Serialize;
use serde::de::DeserializeOwned;
use siltstone_vfs::{Error, ErrorKind, Result};

/// The most bytes that encoded metadata may have, and that decoding may allocate: two keys of the greatest length
/// and room to spare.
pub(crate) const METADATA_BYTES_MAX: usize = 256 << 10;

type Config = bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<METADATA_BYTES_MAX>,
>;

fn config() -> Config {
    bincode::config::standard().with_limit::<METADATA_BYTES_MAX>()
}

/// Encodes metadata.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    bincode::serde::encode_to_vec(value, config())
        .map_err(|source| Error::invalid("metadata could not be encoded").with_source(source))
}

/// Decodes metadata that fills `bytes` exactly; the caller adds file and offset.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let (value, consumed) = bincode::serde::decode_from_slice(bytes, config()).map_err(|source| {
        Error::new(ErrorKind::Corruption, "metadata could not be decoded").with_source(source)
    })?;
    if consumed != bytes.len() {
        let message = format!("metadata is {} bytes long, expected {consumed}", bytes.len());
        return Err(Error::new(ErrorKind::Corruption, message));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_and_absurd_lengths_are_refused() {
        let mut bytes = encode(&vec![7u8; 3]).unwrap();
        assert_eq!(decode::<Vec<u8>>(&bytes).unwrap(), [7; 3]);
        bytes.push(0);
        assert!(decode::<Vec<u8>>(&bytes).is_err());
        let absurd = [0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(decode::<Vec<u8>>(&absurd).is_err());
        assert!(decode::<String>(&absurd).is_err());
    }
}
