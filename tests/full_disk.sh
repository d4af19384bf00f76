#!/usr/bin/env bash
# A disk that fills under a database whose writers sync, on real file systems: tests/full_disk.sh [FILE_SYSTEM...], by default
# ext4, xfs and btrfs. Needs root, loop devices, and each one's mkfs (e2fsprogs, xfsprogs, btrfs-progs); what it cannot make
# or mount is a failure. See the program's own documentation for what it does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --release --locked -p siltstone-tests --bin full_disk
program="$(realpath "${CARGO_TARGET_DIR:-target}/release/full_disk")"
[ $# -gt 0 ] || set -- ext4 xfs btrfs
work="$(mktemp -d)"
trap 'umount "$work/disk" 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir "$work/disk"
for system in "$@"; do
    rm -f "$work/image"
    truncate -s 400M "$work/image"
    "mkfs.$system" "$work/image" >"$work/mkfs" 2>&1 || { cat "$work/mkfs" >&2; exit 1; }
    mount -o loop "$work/image" "$work/disk"
    for io in mapped written; do
        echo "== $system, log $io"
        mkdir "$work/disk/$io"
        "$program" "$work/disk/$io" "$io"
        rm -rf "$work/disk/$io"
    done
    umount "$work/disk"
done
