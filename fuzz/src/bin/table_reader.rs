//! Fuzzes [`FuzzTarget::TableReader`].
#![no_main]

use siltstone_tests::FuzzTarget;

libfuzzer_sys::fuzz_target!(|input: &[u8]| siltstone_fuzz::run(FuzzTarget::TableReader, input));
