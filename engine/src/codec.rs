//! The one place of this crate that knows `bincode`: metadata in and out, behind a size limit.

use serde::Serialize;
use serde::de::DeserializeOwned;
use siltstone_vfs::{Error, ErrorKind, Result};

/// The most bytes that one record may decode to: an input that claims more is refused before it is allocated.
const RECORD_BYTES_MAX: usize = 256 << 20;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<RECORD_BYTES_MAX>()
}

/// Encodes `record`.
///
/// # Errors
/// `InvalidInput` where it is over the limit.
pub(crate) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>> {
    let bytes = bincode::serde::encode_to_vec(record, config())
        .map_err(|error| Error::invalid("a metadata record could not be encoded").with_source(error))?;
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(Error::invalid(format!(
            "a metadata record of {} bytes is over the limit",
            bytes.len()
        )));
    }
    Ok(bytes)
}

/// Decodes `bytes`, all of them.
///
/// # Errors
/// `Corruption`; the caller adds file and offset.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let (record, used) = bincode::serde::decode_from_slice(bytes, config()).map_err(|error| {
        Error::new(ErrorKind::Corruption, "a metadata record does not decode").with_source(error)
    })?;
    if used != bytes.len() {
        return Err(Error::new(
            ErrorKind::Corruption,
            format!("a metadata record has {} bytes, its content {used}", bytes.len()),
        ));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_lengths_are_refused_without_an_allocation() {
        let claims_2_to_the_60_bytes = [253, 0, 0, 0, 0, 0, 0, 0, 16];
        assert!(decode::<Vec<u8>>(&claims_2_to_the_60_bytes).is_err());
        assert!(decode::<(u64, Vec<String>)>(&[7, 253, 255, 255, 255, 255, 255, 255, 255, 255]).is_err());
        assert!(
            decode::<u8>(&[1, 2])
                .unwrap_err()
                .to_string()
                .contains("has 2 bytes")
        );
        assert_eq!(
            decode::<Vec<u32>>(&encode(&vec![1u32, 70_000]).unwrap()).unwrap(),
            [1, 70_000]
        );
    }
}
