#!/usr/bin/env bash
# Runs what has threads under ThreadSanitizer: the memtable's concurrent tests, the filter of level 0, the log's group sync, the engine's and the
# harness's threaded tests. Needs a nightly toolchain with rust-src; not part of CI, because a fresh machine has none.
#
# Left out: what has one thread only. Not seen by the sanitizer: the C code of zstd, which is not instrumented. Everything else,
# the standard library included, is built with it, or its locks would be taken for races.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/tsan"
export RUSTFLAGS="-Zsanitizer=thread"
# A report is a failure.
export TSAN_OPTIONS="${TSAN_OPTIONS:-halt_on_error=1}"
run() {
    echo "== tsan: $*"
    cargo +nightly test -Zbuild-std --target x86_64-unknown-linux-gnu --quiet "$@"
}
run -p siltstone --lib -- memtable::arena memtable::tests::concurrent sliced_filter
run -p siltstone-wal --lib -- group_sync
run -p siltstone-tests --test lifecycle --test concurrency -- --test-threads=1
