use proptest::prelude::*;

use super::*;

#[test]
fn every_byte_decodes_to_the_record_type_that_encodes_to_it() {
    for byte in 0..=u8::MAX {
        assert_eq!(
            RecordType::from_byte(byte).is_some(),
            (1..=4).contains(&byte),
            "{byte}"
        );
        assert!(RecordType::from_byte(byte).is_none_or(|record_type| record_type as u8 == byte));
    }
}

#[test]
fn any_bit_flipped_in_a_segment_header_is_noticed() {
    let header = SegmentHeader {
        segment: SegmentId(7),
        first_sequence: RecordSeq(42),
        capacity_bytes: 4096,
        synced: RecordSeq(41),
        previous_first: RecordSeq(17),
    };
    let bytes = header.encode();
    assert_eq!(SegmentHeader::decode(&bytes, SegmentId(7)).ok(), Some(header));
    for bit in (0..bytes.len() * 8).step_by(if cfg!(miri) { 37 } else { 1 }) {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(
            matches!(
                SegmentHeader::decode(&flipped, SegmentId(7)),
                Err(HeaderFault::Invalid(_))
            ),
            "{bit}"
        );
    }
}

#[test]
fn a_sound_header_of_another_segment_or_version_is_told_apart() {
    let header = SegmentHeader {
        segment: SegmentId(7),
        first_sequence: RecordSeq(1),
        capacity_bytes: 4096,
        synced: RecordSeq(0),
        previous_first: RecordSeq(0),
    };
    let mut bytes = header.encode();
    assert!(matches!(
        SegmentHeader::decode(&bytes, SegmentId(8)),
        Err(HeaderFault::Foreign {
            segment: SegmentId(7)
        })
    ));
    put(&mut bytes, segment_header::VERSION, 2_u32.to_le_bytes());
    let checksum = xxh3_64(&bytes[..segment_header::CHECKSUM]);
    put(&mut bytes, segment_header::CHECKSUM, checksum.to_le_bytes());
    assert!(matches!(
        SegmentHeader::decode(&bytes, SegmentId(7)),
        Err(HeaderFault::Unsupported { version: 2 })
    ));
}

proptest! {
    // Under miri each case takes seconds.
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 3 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_record_header_round_trips(
        payload in prop::collection::vec(any::<u8>(), 0..300),
        segment: u64,
        sequence in 1_u64..,
        below: u64,
    ) {
        let header = RecordHeader {
            payload_bytes: u32::try_from(payload.len()).expect("short"),
            record_type: RecordType::Data,
            segment: SegmentId(segment),
            sequence: RecordSeq(sequence),
            synced: RecordSeq(below % sequence),
        };
        let record = header.encode_with(&payload);
        let (bytes, rest) = record.split_first_chunk().expect("a header");
        prop_assert_eq!(RecordHeader::decode(bytes), Ok(header));
        prop_assert_eq!(rest, payload);
        let (stored, computed) = record_checksums(&record);
        prop_assert_eq!(stored, computed);
    }

    #[test]
    fn the_checksum_is_the_same_in_pieces(payload in prop::collection::vec(any::<u8>(), 0..3000), cut: usize) {
        let header = RecordHeader {
            payload_bytes: u32::try_from(payload.len()).expect("short"),
            record_type: RecordType::Data,
            segment: SegmentId(1),
            sequence: RecordSeq(1),
            synced: RecordSeq(0),
        };
        let mut checksum = RecordChecksum::new(&header.encode_unchecked());
        let (first, second) = payload.split_at(cut % (payload.len() + 1));
        checksum.update(first);
        checksum.update(second);
        prop_assert_eq!(checksum.finish(), record_checksums(&header.encode_with(&payload)).0);
    }

    #[test]
    fn any_bytes_decode_without_a_panic(
        header in prop::array::uniform32(any::<u8>()),
        rest in prop::array::uniform8(any::<u8>()),
    ) {
        let mut bytes = [0; RECORD_HEADER_LEN];
        bytes[..32].copy_from_slice(&header);
        bytes[32..].copy_from_slice(&rest);
        let _ = RecordHeader::decode(&bytes);
    }
}
