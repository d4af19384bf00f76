#!/usr/bin/env bash
# Power cuts on a real ext4, which loses what was not synced: tests/lost_writes.sh [CUTS [SEED]]. Needs root, loop devices,
# and mkfs.ext4 (e2fsprogs). Says so where it cannot mount; see the program's own documentation for what it does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --release --locked -p siltstone-tests --bin lost_writes --bin crash_child
exec "${CARGO_TARGET_DIR:-target}/release/lost_writes" "${1:-40}" "${2:-$(date +%s)}"
