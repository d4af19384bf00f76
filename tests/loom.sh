#!/usr/bin/env bash
# Runs the lock-free parts (the memtable's tree, publication of commits, the list of snapshots) under the model checker loom:
# every schedule of two or three threads with a bounded number of preemptions. Needs nothing but stable Rust; a build of its own.
#
# Left out: the arenas and their shards (the checker does not stop a thread within them; miri does), the swap of views
# (arc-swap's own affair; the reaper's count of holders is under miri and ThreadSanitizer), and whatever takes more preemptions.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom"
export RUSTFLAGS="--cfg loom"
# Millions of schedules.
export CARGO_PROFILE_DEV_OPT_LEVEL=3
cargo test -p siltstone --lib -- model_ --nocapture "$@"
