#![allow(clippy::cast_possible_truncation)] // Test bytes are made from counters.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;

use super::MemFs;
use crate::{ErrorKind, Fs, LogIo, MapMode, Removable};

const DIR: &str = "db";
/// Enough that every outcome that is looked for turns up, for these histories and any sane generator.
const SEEDS: u64 = 400;

fn new_fs() -> MemFs {
    let fs = MemFs::new();
    fs.create_dir_all(Path::new(DIR)).unwrap();
    fs
}

/// A durable file.
fn durable(fs: &MemFs, path: &str, bytes: &[u8]) {
    let mut file = fs.create(Path::new(path)).unwrap();
    file.append(bytes).unwrap();
    file.sync().unwrap();
    fs.sync_dir(Path::new(DIR)).unwrap();
}

fn remove(fs: &MemFs, path: &str) {
    fs.remove(&Removable::plain(Path::new(path)).unwrap()).unwrap();
}

/// Every file and its bytes.
fn dump(fs: &MemFs) -> BTreeMap<String, Vec<u8>> {
    let files = fs.files().into_iter();
    files
        .map(|(path, _)| (path.to_string_lossy().into_owned(), fs.read_file(&path).unwrap()))
        .collect()
}

/// The states that crashes leave.
fn outcomes(fs: &MemFs) -> BTreeSet<BTreeMap<String, Vec<u8>>> {
    (0..SEEDS).map(|seed| dump(&fs.crash_clone(seed))).collect()
}

/// The bytes that crashes leave in one file; `None` where it is gone.
fn contents(fs: &MemFs, path: &str) -> BTreeSet<Option<Vec<u8>>> {
    (0..SEEDS)
        .map(|seed| fs.crash_clone(seed).read_file(path).ok())
        .collect()
}

#[test]
fn what_was_synced_is_there_after_every_crash() {
    let fs = new_fs();
    durable(&fs, "db/a", b"synced");
    let mut file = fs.create(Path::new("db/b")).unwrap();
    file.append(b"one").unwrap();
    file.sync().unwrap();
    fs.sync_dir(Path::new(DIR)).unwrap();
    file.append(b"two").unwrap();
    for seed in 0..SEEDS {
        let after = fs.crash_clone(seed);
        assert_eq!(after.read_file("db/a").unwrap(), b"synced");
        assert!(after.read_file("db/b").unwrap().starts_with(b"one"));
    }
    assert_eq!(
        fs.read_file("db/b").unwrap(),
        b"onetwo",
        "a crash clone leaves the original alone"
    );
}

#[test]
fn sync_file_and_log_sync_make_bytes_durable() {
    let fs = new_fs();
    let mut file = fs.create(Path::new("db/a")).unwrap();
    file.append(b"a").unwrap();
    let (mut log, sync) = fs.create_log(Path::new("db/1.wal"), 8, LogIo::Mapped).unwrap();
    log.write_at(2, b"log").unwrap();
    fs.sync_dir(Path::new(DIR)).unwrap();
    assert!(contents(&fs, "db/1.wal").contains(&Some(vec![0; 8])));
    assert!(contents(&fs, "db/a").contains(&Some(vec![])));
    fs.sync_file(Path::new("db/a")).unwrap();
    sync.sync().unwrap();
    assert_eq!(contents(&fs, "db/a"), BTreeSet::from([Some(b"a".to_vec())]));
    assert_eq!(
        contents(&fs, "db/1.wal"),
        BTreeSet::from([Some(b"\0\0log\0\0\0".to_vec())])
    );
}

#[test]
fn a_file_whose_directory_was_not_synced_may_vanish_or_stay() {
    let fs = new_fs();
    let mut file = fs.create(Path::new("db/a")).unwrap();
    file.append(b"bytes").unwrap();
    file.sync().unwrap();
    assert_eq!(
        contents(&fs, "db/a"),
        BTreeSet::from([None, Some(b"bytes".to_vec())])
    );
    fs.sync_dir(Path::new(DIR)).unwrap();
    assert_eq!(contents(&fs, "db/a"), BTreeSet::from([Some(b"bytes".to_vec())]));
}

#[test]
fn a_rename_without_directory_sync_shows_one_name_or_the_other() {
    let fs = new_fs();
    durable(&fs, "db/CURRENT", b"old");
    durable(&fs, "db/CURRENT.tmp", b"new");
    fs.rename(Path::new("db/CURRENT.tmp"), Path::new("db/CURRENT"))
        .unwrap();
    let state = |entries: &[(&str, &[u8])]| -> BTreeMap<String, Vec<u8>> {
        entries
            .iter()
            .map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()))
            .collect()
    };
    let before = state(&[("db/CURRENT", b"old"), ("db/CURRENT.tmp", b"new")]);
    let after = state(&[("db/CURRENT", b"new")]);
    assert_eq!(outcomes(&fs), BTreeSet::from([before, after.clone()]));
    fs.sync_dir(Path::new(DIR)).unwrap();
    assert_eq!(outcomes(&fs), BTreeSet::from([after]));
}

#[test]
fn a_rename_can_survive_without_its_bytes() {
    let fs = new_fs();
    durable(&fs, "db/CURRENT", b"old");
    let mut file = fs.create(Path::new("db/CURRENT.tmp")).unwrap();
    file.append(b"new").unwrap();
    fs.rename(Path::new("db/CURRENT.tmp"), Path::new("db/CURRENT"))
        .unwrap();
    let seen = contents(&fs, "db/CURRENT");
    for expected in [&b""[..], b"n", b"ne", b"new", b"old"] {
        assert!(
            seen.contains(&Some(expected.to_vec())),
            "{expected:?} in {seen:?}"
        );
    }
    assert_eq!(seen.len(), 5);
}

#[test]
fn a_removal_without_directory_sync_may_be_undone_with_all_bytes() {
    let fs = new_fs();
    durable(&fs, "db/a", b"bytes");
    remove(&fs, "db/a");
    assert_eq!(
        contents(&fs, "db/a"),
        BTreeSet::from([None, Some(b"bytes".to_vec())])
    );
    fs.sync_dir(Path::new(DIR)).unwrap();
    assert_eq!(contents(&fs, "db/a"), BTreeSet::from([None]));
    assert!(
        fs.state.lock().inodes.is_empty(),
        "nobody can reach the file any more"
    );
}

#[test]
fn a_truncation_may_be_undone() {
    let fs = new_fs();
    let path = Path::new("db/1.sst");
    durable(&fs, "db/1.sst", b"0123456789");
    let lock = fs.lock_dir(Path::new(DIR)).unwrap();
    let table = fs.open_table(path, &lock, MapMode::Map).unwrap();
    let bytes_before = fs.bytes_used();
    assert!(table.unmap().truncate(&fs, 4, &mut || {}).is_ok());
    assert_eq!((bytes_before, fs.bytes_used()), (10, 0));
    let seen = contents(&fs, "db/1.sst");
    for expected in [&b""[..], b"0123", b"01234567", b"0123456789"] {
        assert!(
            seen.contains(&Some(expected.to_vec())),
            "{expected:?} in {seen:?}"
        );
    }
    assert_eq!(seen.len(), 4);
}

#[test]
fn name_changes_come_in_the_order_of_each_name() {
    let fs = new_fs();
    durable(&fs, "db/a", b"1");
    fs.rename(Path::new("db/a"), Path::new("db/b")).unwrap();
    let mut file = fs.create(Path::new("db/a")).unwrap();
    file.append(b"2").unwrap();
    file.sync().unwrap();
    for state in outcomes(&fs) {
        // The old file is always there, and where the new one has its name, it has the other.
        let first = state.get("db/a").map(Vec::as_slice);
        let second = state.get("db/b").map(Vec::as_slice);
        assert!(
            matches!(
                (first, second),
                (Some(b"1"), None) | (None, Some(b"1")) | (Some(b"2"), Some(b"1"))
            ),
            "{state:?}"
        );
    }
    assert_eq!(outcomes(&fs).len(), 3);
}

#[test]
fn a_rename_between_directories_loses_no_file() {
    let fs = new_fs();
    fs.create_dir_all(Path::new("other")).unwrap();
    durable(&fs, "db/a", b"1");
    fs.rename(Path::new("db/a"), Path::new("other/a")).unwrap();
    let states = outcomes(&fs);
    assert_eq!(states.len(), 2);
    assert!(states.iter().all(|state| state.len() == 1), "{states:?}");
    fs.sync_dir(Path::new("other")).unwrap();
    assert_eq!(outcomes(&fs).len(), 1);
    assert!(fs.crash_clone(0).exists(Path::new("other/a")).unwrap());
}

#[test]
fn a_subset_of_independent_names_survives() {
    let fs = new_fs();
    for name in ["db/a", "db/b", "db/c"] {
        fs.create(Path::new(name)).unwrap();
    }
    assert_eq!(outcomes(&fs).len(), 8);
}

/// A file of synced zeros, overwritten by three writes of distinct bytes that are not synced.
fn three_log_writes() -> MemFs {
    let fs = new_fs();
    let (mut log, _sync) = fs.create_log(Path::new("db/1.wal"), 4096, LogIo::Write).unwrap();
    fs.sync_dir(Path::new(DIR)).unwrap();
    for (offset, byte) in [(0, 1u8), (1300, 2), (2600, 3)] {
        log.write_at(offset, &[byte; 1300]).unwrap();
    }
    fs
}

#[test]
fn of_unsynced_writes_none_all_a_prefix_and_a_subset_are_seen() {
    let fs = three_log_writes();
    let mut whole = BTreeSet::new();
    for bytes in contents(&fs, "db/1.wal").into_iter().flatten() {
        assert_eq!(bytes.len(), 4096, "a preallocated file keeps its length");
        let present = |range: std::ops::Range<usize>| {
            let kept = bytes[range.clone()].iter().filter(|byte| **byte != 0).count();
            (kept == 0)
                .then_some(false)
                .or((kept == range.len()).then_some(true))
        };
        if let (Some(a), Some(b), Some(c)) = (present(0..1300), present(1300..2600), present(2600..3900)) {
            whole.insert((a, b, c));
        }
    }
    assert_eq!(whole.len(), 8, "every subset: {whole:?}");
}

#[test]
fn torn_writes_are_seen_at_bytes_and_at_sectors() {
    let fs = three_log_writes();
    let (mut at_byte, mut at_sector) = (0, 0);
    for bytes in contents(&fs, "db/1.wal").into_iter().flatten() {
        for (index, byte) in bytes.iter().enumerate() {
            let written = if index < 3900 { (index / 1300) as u8 + 1 } else { 0 };
            assert!(*byte == 0 || *byte == written, "no byte comes from anywhere else");
        }
        for boundary in 1..3900 {
            let tears = (bytes[boundary - 1] == 0) != (bytes[boundary] == 0);
            if tears && boundary % 512 == 0 {
                at_sector += 1;
            } else if tears && boundary % 1300 != 0 {
                at_byte += 1;
            }
        }
    }
    assert!(at_byte > 0 && at_sector > 0, "{at_byte} {at_sector}");
}

#[test]
fn a_lost_append_before_a_surviving_one_leaves_a_hole_and_never_length() {
    let fs = new_fs();
    let mut file = fs.create(Path::new("db/a")).unwrap();
    file.append(b"head").unwrap();
    file.sync().unwrap();
    fs.sync_dir(Path::new(DIR)).unwrap();
    file.append(b"lost").unwrap();
    file.append(b"tail").unwrap();
    let seen = contents(&fs, "db/a");
    assert!(seen.contains(&Some(b"head\0\0\0\0tail".to_vec())), "{seen:?}");
    for bytes in seen.iter().flatten() {
        let (_, rest) = bytes.split_at(4);
        assert!(
            !rest.iter().all(|byte| *byte == 0) || rest.is_empty(),
            "length without bytes: {bytes:?}"
        );
    }
}

#[test]
fn overwrites_are_undone_exactly() {
    // Against a straightforward model that keeps every state: with all later writes lost, each state must
    // come back.
    let fs = new_fs();
    let (mut log, sync) = fs.create_log(Path::new("db/1.wal"), 64, LogIo::Write).unwrap();
    log.write_at(8, &[9; 16]).unwrap();
    sync.sync().unwrap();
    fs.sync_dir(Path::new(DIR)).unwrap();
    let mut states = vec![fs.read_file("db/1.wal").unwrap()];
    for step in 0..6u8 {
        let offset = u64::from(step * 7 % 32);
        log.write_at(offset, &vec![step % 3; 5 + usize::from(step)])
            .unwrap();
        states.push(fs.read_file("db/1.wal").unwrap());
    }
    let seen = contents(&fs, "db/1.wal");
    for state in states {
        assert!(seen.contains(&Some(state.clone())), "{state:?}");
    }
}

#[test]
fn a_crash_is_determined_by_history_and_seed() {
    let history = || {
        let fs = three_log_writes();
        for name in ["db/x", "db/y", "db/z"] {
            fs.create(Path::new(name))
                .unwrap()
                .append(name.as_bytes())
                .unwrap();
        }
        fs.rename(Path::new("db/x"), Path::new("db/y")).unwrap();
        fs
    };
    let (one, other) = (history(), history());
    for seed in 0..SEEDS {
        assert_eq!(dump(&one.crash_clone(seed)), dump(&other.crash_clone(seed)));
    }
}

#[test]
fn crash_clones_are_durable_independent_and_unlocked() {
    let fs = new_fs();
    let mut file = fs.create(Path::new("db/a")).unwrap();
    file.append(b"unsynced").unwrap();
    let _lock = fs.lock_dir(Path::new(DIR)).unwrap();
    for after in [fs.crash_clone(3), fs.process_crash_clone()] {
        let _lock = after.lock_dir(Path::new(DIR)).unwrap();
        assert_eq!(
            outcomes(&after).len(),
            1,
            "a second crash without a write changes nothing"
        );
        after.write_file("db/b", b"b").unwrap();
        assert!(!fs.exists(Path::new("db/b")).unwrap());
        assert_eq!(
            after.bytes_used(),
            after.files().iter().map(|(_, len)| len).sum::<u64>()
        );
    }
    file.append(b", more").unwrap();
    assert_eq!(fs.read_file("db/a").unwrap(), b"unsynced, more");
}

#[test]
fn a_power_loss_brings_back_the_earlier_life_of_a_log_that_was_not_synced_since() {
    let fs = new_fs();
    let (mut writer, sync) = fs.create_log(Path::new("db/1.wal"), 4, LogIo::Mapped).unwrap();
    writer.write_at(0, b"old!").unwrap();
    sync.sync().unwrap();
    fs.sync_dir(Path::new(DIR)).unwrap();
    let (mut writer, sync) = writer.reuse(Path::new("db/2.wal")).unwrap();
    let old_name = |fs: &MemFs| fs.read_file("db/1.wal").is_ok();
    assert!((0..SEEDS).any(|seed| old_name(&fs.crash_clone(seed))));
    fs.sync_dir(Path::new(DIR)).unwrap();
    assert!(!(0..SEEDS).any(|seed| old_name(&fs.crash_clone(seed))));
    writer.write_at(0, b"n").unwrap();
    let left = contents(&fs, "db/2.wal");
    for expected in [&b"old!"[..], b"\0\0\0\0", b"n\0\0\0", b"nld!"] {
        assert!(
            left.contains(&Some(expected.to_vec())),
            "{expected:?} of {left:?}"
        );
    }
    sync.sync().unwrap();
    assert_eq!(
        contents(&fs, "db/2.wal"),
        BTreeSet::from([Some(b"n\0\0\0".to_vec())])
    );
}

#[test]
fn the_death_of_the_process_loses_nothing() {
    let fs = three_log_writes();
    fs.create(Path::new("db/x")).unwrap().append(b"x").unwrap();
    fs.rename(Path::new("db/x"), Path::new("db/y")).unwrap();
    let after = fs.process_crash_clone();
    assert_eq!(dump(&after), dump(&fs));
    assert_eq!(outcomes(&after), BTreeSet::from([dump(&fs)]));
}

#[test]
fn what_a_killed_process_had_not_synced_a_later_power_loss_may_still_take() {
    let fs = new_fs();
    durable(&fs, "db/old", b"old");
    durable(&fs, "db/held", b"held");
    let mut file = fs.create(Path::new("db/new")).unwrap();
    file.append(b"new").unwrap();
    let held = fs.open(Path::new("db/held")).unwrap();
    remove(&fs, "db/held");
    let _lock = fs.lock_dir(Path::new(DIR)).unwrap();

    let after = fs.killed_clone();
    assert_eq!(dump(&after), dump(&fs));
    assert_eq!(outcomes(&after), outcomes(&fs));
    assert!(outcomes(&after).len() > 3);
    // Independent, unlocked, and what was removed comes back with all its bytes or not at all.
    after.lock_dir(Path::new(DIR)).unwrap();
    after.write_file("db/other", b"other").unwrap();
    assert!(!fs.exists(Path::new("db/other")).unwrap());
    assert_eq!(
        contents(&after, "db/held"),
        BTreeSet::from([None, Some(b"held".to_vec())])
    );
    after.sync_dir(Path::new(DIR)).unwrap();
    assert_eq!(contents(&after, "db/held"), BTreeSet::from([None]));
    drop(held);
}

#[test]
fn growth_stops_at_the_capacity() {
    let fs = new_fs();
    fs.set_capacity(Some(100));
    let (mut log, _sync) = fs.create_log(Path::new("db/1.wal"), 60, LogIo::Mapped).unwrap();
    let full = fs
        .create_log(Path::new("db/2.wal"), 41, LogIo::Mapped)
        .err()
        .unwrap();
    assert_eq!(full.kind(), ErrorKind::NoSpace);
    assert!(!fs.exists(Path::new("db/2.wal")).unwrap());
    let mut file = fs.create(Path::new("db/a")).unwrap();
    file.append(&[1; 30]).unwrap();
    assert_eq!(fs.space_available(Path::new(DIR)).unwrap(), 10);
    assert_eq!(file.append(&[2; 11]).unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(
        fs.len(Path::new("db/a")).unwrap(),
        40,
        "what fitted has been written"
    );
    log.write_at(0, &[3; 60]).unwrap();
    assert_eq!(fs.bytes_used(), 100);
    remove(&fs, "db/1.wal");
    assert_eq!(fs.bytes_used(), 40);
    file.append(&[2; 1]).unwrap();
    fs.set_capacity(None);
    file.append(&[2; 1000]).unwrap();
    fs.hard_link(Path::new("db/a"), Path::new("db/b")).unwrap();
    assert_eq!(fs.bytes_used(), 1041);
    fs.rename(Path::new("db/b"), Path::new("db/a")).unwrap();
    remove(&fs, "db/a");
    assert_eq!(fs.bytes_used(), 1041, "the other name still holds it");
    remove(&fs, "db/b");
    assert_eq!(fs.bytes_used(), 0);
}

#[test]
fn damage_can_be_written_over_an_open_table() {
    let fs = new_fs();
    durable(&fs, "db/1.sst", b"sound");
    let lock = fs.lock_dir(Path::new(DIR)).unwrap();
    let table = fs.open_table(Path::new("db/1.sst"), &lock, MapMode::Map).unwrap();
    fs.write_file("db/1.sst", b"wrong").unwrap();
    assert_eq!(
        table.bytes().unwrap(),
        b"sound",
        "a mapping shows the bytes of its opening"
    );
    assert_eq!(outcomes(&fs).len(), 1);
    assert_eq!(fs.crash_clone(1).read_file("db/1.sst").unwrap(), b"wrong");
    // A name that was not durable becomes so, and the rest of the directory does not.
    fs.create(Path::new("db/a")).unwrap();
    fs.create(Path::new("db/b")).unwrap();
    fs.write_file("db/a", b"a").unwrap();
    assert!(!contents(&fs, "db/a").contains(&None));
    assert!(contents(&fs, "db/b").contains(&None));
    assert_eq!(
        fs.write_file("nowhere/a", b"a").unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn removed_files_live_as_long_as_they_are_open() {
    let fs = new_fs();
    let mut file = fs.create(Path::new("db/a")).unwrap();
    let reader = fs.open(Path::new("db/a")).unwrap();
    remove(&fs, "db/a");
    fs.sync_dir(Path::new(DIR)).unwrap();
    file.append(b"still here").unwrap();
    assert_eq!((reader.len().unwrap(), fs.bytes_used()), (10, 0));
    drop(file);
    let mut bytes = [0; 10];
    assert_eq!(reader.read_at(0, &mut bytes).unwrap(), 10);
    assert_eq!(&bytes, b"still here");
    assert_eq!(fs.state.lock().inodes.len(), 1);
    drop(reader);
    assert!(fs.state.lock().inodes.is_empty());
}

#[test]
fn paths_are_normal_but_for_parents() {
    let fs = MemFs::new();
    fs.create_dir_all(Path::new("/x/./y/")).unwrap();
    durable_at(&fs, "/x/y/a");
    assert!(fs.exists(Path::new("/x/y/./a")).unwrap());
    assert_eq!(fs.list(Path::new("/")).unwrap(), ["x"]);
    assert_eq!(fs.list(Path::new("/x")).unwrap(), ["y"]);
    durable_at(&fs, "./top");
    assert_eq!(fs.list(Path::new(".")).unwrap(), ["top"]);
    assert_eq!(fs.files().len(), 2);
    assert!(fs.create(Path::new("/")).is_err());
}

fn durable_at(fs: &MemFs, path: &str) {
    fs.create(Path::new(path)).unwrap().sync().unwrap();
}

fn history_config() -> ProptestConfig {
    let cases = if cfg!(miri) { 4 } else { 200 };
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(history_config())]

    /// Every surviving byte is the synced one or one that an unsynced write put there; a synced file has one
    /// outcome.
    #[test]
    fn surviving_bytes_come_from_the_history(
        steps in prop::collection::vec((0..3000usize, 0..1500usize, any::<bool>(), 0..5u8), 1..20),
    ) {
        let fs = new_fs();
        let (mut log, sync) = fs.create_log(Path::new("db/1.wal"), 4500, LogIo::Write).unwrap();
        let mut appended = fs.create(Path::new("db/a")).unwrap();
        fs.sync_dir(Path::new(DIR)).unwrap();
        let (mut log_bytes, mut file_bytes) = (vec![BTreeSet::from([0u8]); 4500], Vec::new());
        let mut synced_len = 0;
        for (step, (offset, len, append, sync_after)) in steps.into_iter().enumerate() {
            let byte = step as u8 + 1;
            if append {
                appended.append(&vec![byte; len]).unwrap();
                file_bytes.extend(vec![byte; len]);
            } else {
                log.write_at(offset as u64, &vec![byte; len]).unwrap();
                for possible in &mut log_bytes[offset..offset + len] {
                    possible.insert(byte);
                }
            }
            if sync_after == 0 {
                sync.sync().unwrap();
                for possible in &mut log_bytes {
                    *possible = possible.last().copied().into_iter().collect();
                }
            } else if sync_after == 1 {
                appended.sync().unwrap();
                synced_len = file_bytes.len();
            }
        }
        prop_assert_eq!(&fs.read_file("db/a").unwrap(), &file_bytes);
        for seed in 0..12 {
            let after = fs.crash_clone(seed);
            for (byte, possible) in after.read_file("db/1.wal").unwrap().iter().zip(&log_bytes) {
                prop_assert!(possible.contains(byte));
            }
            let survived = after.read_file("db/a").unwrap();
            prop_assert!((synced_len..=file_bytes.len()).contains(&survived.len()));
            prop_assert_eq!(&survived[..synced_len], &file_bytes[..synced_len]);
            let mut pairs = survived.iter().zip(&file_bytes);
            prop_assert!(pairs.all(|(byte, written)| byte == written || *byte == 0));
        }
    }
}
