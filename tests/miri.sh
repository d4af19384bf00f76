#!/usr/bin/env bash
# Runs what miri can run: the encodings of log, tables, batches and manifest, the memtable. Needs a nightly toolchain
# with the miri component; not part of CI, because a fresh machine has none. About 10 minutes.
#
# Left out, because miri cannot run it or not in any reasonable time: everything over OsFs (mmap, fallocate, flock), zstd (C
# code), values near the size limits, and the long random sweeps. What is slow is cut down inside the tests with cfg!(miri).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/miri"
export MIRIFLAGS="${MIRIFLAGS:--Zmiri-disable-isolation -Zmiri-strict-provenance}"
run() {
    echo "== miri: $*"
    cargo +nightly miri test --quiet "$@"
}
run -p siltstone-wal --lib -- format:: ids:: options::
run -p siltstone-sstable --lib -- \
    --skip every_hostile_byte_behind_good_checksums --skip the_first_write_error_sticks --skip hostile_words \
    --skip what_is_built_is_read --skip versions_of_one_key --skip threads_share --skip space::
run -p siltstone --lib -- memtable:: batch:: value:: manifest::format stall:: snapshot_list::
