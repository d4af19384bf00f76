//! What every file system must do: the same assertions over `OsFs`, `MemFs` and `FaultFs` without faults.

use std::path::Path;
use std::sync::Arc;

use crate::{
    Advice, BusyReason, DirLock, ErrorKind, FaultFs, Fs, LOCK_FILE_NAME, LogIo, MapMode, MemFs, OsFs,
    Removable, Result, Unmapped,
};

/// Runs `test` on each file system in an empty directory.
fn on_each(test: impl Fn(&dyn Fs, &Path)) {
    let dir = Path::new("some/db");
    for fs in [
        Arc::new(MemFs::new()) as Arc<dyn Fs>,
        Arc::new(FaultFs::new(Arc::new(MemFs::new()))),
    ] {
        fs.create_dir_all(dir).expect("create the directory");
        test(&*fs, dir);
    }
    // Miri has no mmap of files.
    if !cfg!(miri) {
        let root = tempfile::tempdir().expect("a temporary directory");
        test(&OsFs, root.path());
        let root = tempfile::tempdir().expect("a temporary directory");
        test(&FaultFs::new(Arc::new(OsFs)), root.path());
    }
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn write(fs: &dyn Fs, path: &Path, bytes: &[u8]) {
    let mut file = fs.create(path).expect("create");
    file.append(bytes).expect("append");
    file.sync().expect("sync");
}

fn read(fs: &dyn Fs, path: &Path) -> Vec<u8> {
    let file = fs.open(path).expect("open");
    let mut bytes = vec![0; usize::try_from(file.len().expect("len")).expect("a small file")];
    assert_eq!(file.read_at(0, &mut bytes).expect("read"), bytes.len());
    bytes
}

#[test]
fn a_file_is_created_once_and_appended_to() {
    on_each(|fs, dir| {
        let path = dir.join("a");
        let mut file = fs.create(&path).unwrap();
        assert_eq!(kind(fs.create(&path)), Some(ErrorKind::Io));
        assert_eq!(kind(fs.create(&dir.join("missing/a"))), Some(ErrorKind::NotFound));
        assert_eq!(kind(fs.create(dir)), Some(ErrorKind::Io));
        file.append(b"one ").unwrap();
        file.sync().unwrap();
        file.append(b"").unwrap();
        file.append(b"two").unwrap();
        file.sync().unwrap();
        assert_eq!(read(fs, &path), b"one two");
        assert_eq!(fs.len(&path).unwrap(), 7);
        fs.sync_file(&path).unwrap();
        fs.sync_dir(dir).unwrap();
    });
}

#[test]
fn reads_stop_at_the_end() {
    on_each(|fs, dir| {
        write(fs, &dir.join("a"), b"0123456789");
        let file = fs.open(&dir.join("a")).unwrap();
        let mut buffer = [b'x'; 4];
        assert_eq!(file.read_at(3, &mut buffer).unwrap(), 4);
        assert_eq!(&buffer, b"3456");
        assert_eq!(file.read_at(8, &mut buffer).unwrap(), 2);
        assert_eq!(&buffer, b"8956");
        assert_eq!(file.read_at(10, &mut buffer).unwrap(), 0);
        assert_eq!(file.read_at(1 << 40, &mut buffer).unwrap(), 0);
        assert_eq!(file.read_at(0, &mut []).unwrap(), 0);
        assert!(!file.is_empty().unwrap());
    });
}

#[test]
fn what_is_missing_is_not_found() {
    on_each(|fs, dir| {
        let missing = dir.join("missing");
        assert_eq!(kind(fs.open(&missing)), Some(ErrorKind::NotFound));
        assert_eq!(kind(fs.len(&missing)), Some(ErrorKind::NotFound));
        assert_eq!(kind(fs.sync_file(&missing)), Some(ErrorKind::NotFound));
        assert_eq!(kind(fs.list(&missing)), Some(ErrorKind::NotFound));
        assert_eq!(kind(fs.sync_dir(&missing)), Some(ErrorKind::NotFound));
        assert_eq!(kind(fs.lock_dir(&missing)), Some(ErrorKind::NotFound));
        assert_eq!(kind(fs.space_available(&missing)), Some(ErrorKind::NotFound));
        assert_eq!(
            kind(fs.rename(&missing, &dir.join("b"))),
            Some(ErrorKind::NotFound)
        );
        assert_eq!(
            kind(fs.hard_link(&missing, &dir.join("b"))),
            Some(ErrorKind::NotFound)
        );
        assert_eq!(
            kind(fs.remove(&Removable::plain(&missing).unwrap())),
            Some(ErrorKind::NotFound)
        );
        assert!(!fs.exists(&missing).unwrap());
        let error = fs.open(&missing).unwrap_err();
        assert_eq!(error.path(), Some(&*missing));
        let lock = fs.lock_dir(dir).unwrap();
        let missing = dir.join("1.sst");
        for mode in [MapMode::Map, MapMode::Read] {
            assert_eq!(
                kind(fs.open_table(&missing, &lock, mode)),
                Some(ErrorKind::NotFound)
            );
        }
        // The failed attempts left no claim behind.
        lock.claim_orphan(missing).unwrap();
    });
}

#[test]
fn names_come_and_go() {
    on_each(|fs, dir| {
        let (a, b, c) = (dir.join("a"), dir.join("b"), dir.join("c"));
        write(fs, &a, b"A");
        write(fs, &b, b"B");
        fs.hard_link(&a, &c).unwrap();
        assert_eq!(kind(fs.hard_link(&a, &b)), Some(ErrorKind::Io));
        assert_eq!(fs.list(dir).unwrap(), ["a", "b", "c"]);
        let open_b = fs.open(&b).unwrap();
        fs.rename(&a, &b).unwrap();
        assert_eq!(fs.list(dir).unwrap(), ["b", "c"]);
        assert_eq!(read(fs, &b), b"A");
        let mut byte = [0];
        assert_eq!(open_b.read_at(0, &mut byte).unwrap(), 1);
        assert_eq!(&byte, b"B", "an open file outlives its name");
        fs.remove(&Removable::plain(&b).unwrap()).unwrap();
        assert!(!fs.exists(&b).unwrap());
        assert_eq!(read(fs, &c), b"A");
        fs.rename(&c, &c).unwrap();
        fs.create_dir_all(&dir.join("d/e")).unwrap();
        fs.create_dir_all(&dir.join("d")).unwrap();
        assert!(fs.exists(&dir.join("d/e")).unwrap());
        assert_eq!(fs.list(dir).unwrap(), ["c", "d"]);
        fs.rename(&c, &dir.join("d/c")).unwrap();
        assert_eq!(fs.list(&dir.join("d")).unwrap(), ["c", "e"]);
        assert_eq!(kind(fs.create_dir_all(&dir.join("d/c"))), Some(ErrorKind::Io));
        assert_eq!(
            kind(fs.rename(&dir.join("d/c"), &dir.join("d/e"))),
            Some(ErrorKind::Io)
        );
        assert!(fs.space_available(dir).unwrap() > 0);
    });
}

#[test]
fn a_log_is_zeros_of_full_length_and_takes_writes_anywhere() {
    on_each(|fs, dir| {
        for (name, io) in [("1.wal", LogIo::Mapped), ("2.wal", LogIo::Write)] {
            let path = dir.join(name);
            let (mut writer, sync) = fs.create_log(&path, 10_000, io).unwrap();
            assert_eq!(writer.capacity_bytes(), 10_000);
            assert_eq!(read(fs, &path), vec![0; 10_000]);
            writer.write_at(9_998, b"ab").unwrap();
            writer.write_at(0, b"cd").unwrap();
            writer.write_at(10_000, b"").unwrap();
            sync.sync().unwrap();
            writer.write_at(1, b"e").unwrap();
            for (offset, bytes) in [(9_999, &b"xy"[..]), (10_000, b"x"), (u64::MAX, b"x")] {
                assert_eq!(
                    kind(writer.write_at(offset, bytes)),
                    Some(ErrorKind::InvalidInput)
                );
            }
            let bytes = read(fs, &path);
            assert_eq!(
                (bytes.len(), &bytes[..3], &bytes[9_998..]),
                (10_000, &b"ce\0"[..], &b"ab"[..])
            );
            drop(writer);
            sync.sync().unwrap();
            assert_eq!(kind(fs.create_log(&path, 1, io)), Some(ErrorKind::Io));
            assert_eq!(fs.len(&path).unwrap(), 10_000);
            assert_eq!(
                kind(fs.create_log(&dir.join("0.wal"), 0, io)),
                Some(ErrorKind::InvalidInput)
            );
            assert_eq!(
                kind(fs.create_log(&dir.join("0.sst"), 1, io)),
                Some(ErrorKind::InvalidInput)
            );
            // More than any disk has. (Miri stops at an allocation that it cannot make.)
            for capacity in [u64::MAX, if cfg!(miri) { u64::MAX } else { 1 << 61 }] {
                assert!(fs.create_log(&dir.join("0.wal"), capacity, io).is_err());
            }
            assert!(!fs.exists(&dir.join("0.wal")).unwrap());
            assert!(!fs.exists(&dir.join("0.sst")).unwrap());
        }
    });
}

#[test]
fn a_reused_log_is_zeros_again_under_its_new_name() {
    on_each(|fs, dir| {
        for (name, io) in [("1.wal", LogIo::Mapped), ("2.wal", LogIo::Write)] {
            let (path, next) = (dir.join(name), dir.join("3.wal"));
            let (mut writer, old_sync) = fs.create_log(&path, 10_000, io).unwrap();
            writer.write_at(0, &[7; 10_000]).unwrap();
            let (mut writer, sync) = match writer.reuse(&next) {
                Ok(reused) => reused,
                // Temporary files need not lie on ext4.
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    assert_eq!(read(fs, &path), vec![7; 10_000]);
                    fs.remove(&Removable::plain(&path).unwrap()).unwrap();
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            assert_eq!(writer.capacity_bytes(), 10_000);
            assert!(!fs.exists(&path).unwrap());
            assert_eq!(read(fs, &next), vec![0; 10_000]);
            writer.write_at(9_998, b"ab").unwrap();
            sync.sync().unwrap();
            // Somebody may still be syncing what it was.
            old_sync.sync().unwrap();
            assert_eq!(&read(fs, &next)[9_990..], b"\0\0\0\0\0\0\0\0ab");
            let error = writer.write_at(10_000, b"x").unwrap_err();
            assert_eq!(error.path(), Some(&*next), "its errors give its new name");
            assert_eq!(
                kind(writer.reuse(&dir.join("3.sst"))),
                Some(ErrorKind::InvalidInput)
            );
            assert_eq!(read(fs, &next).len(), 10_000, "it keeps its name");
            let (writer, _sync) = fs.create_log(&path, 1, io).unwrap();
            assert!(writer.reuse(&dir.join("missing/4.wal")).is_err());
            fs.remove(&Removable::plain(&next).unwrap()).unwrap();
        }
    });
}

#[test]
fn a_table_reads_the_same_in_both_modes() {
    let content: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    on_each(|fs, dir| {
        let (path, empty) = (dir.join("1.sst"), dir.join("2.sst"));
        write(fs, &path, &content);
        write(fs, &empty, b"");
        let lock = fs.lock_dir(dir).unwrap();
        assert_eq!(lock.path(), dir);
        for mode in [MapMode::Map, MapMode::Read] {
            let table = fs.open_table(&path, &lock, mode).unwrap();
            assert_eq!(
                (table.path(), table.len(), table.is_empty()),
                (&*path, 400_000, false)
            );
            assert_eq!(table.bytes().is_some(), mode == MapMode::Map);
            assert!(table.bytes().is_none_or(|bytes| bytes == content));
            assert_eq!(&*table.read_at(4097, 3).unwrap(), &content[4097..4100]);
            assert_eq!(&*table.read_at(399_999, 1).unwrap(), &content[399_999..]);
            assert_eq!(&*table.read_at(400_000, 0).unwrap(), b"");
            for (offset, len) in [
                (399_999, 2),
                (400_001, 0),
                (u64::MAX, 1),
                (0, usize::MAX),
                (u64::MAX, usize::MAX),
            ] {
                let error = table.read_at(offset, len).unwrap_err();
                assert_eq!(
                    (error.kind(), error.offset()),
                    (ErrorKind::Corruption, Some(offset))
                );
                assert_eq!(error.path(), Some(&*path));
            }
            for advice in [
                Advice::Random,
                Advice::Normal,
                Advice::WillNeed {
                    offset: 5000,
                    len: 10_000,
                },
                Advice::WillNeed {
                    offset: 400_000,
                    len: 1,
                },
                Advice::WillNeed {
                    offset: u64::MAX,
                    len: u64::MAX,
                },
                Advice::PopulateCached,
            ] {
                table.advise(advice).unwrap();
            }
            let nothing = fs.open_table(&empty, &lock, mode).unwrap();
            assert!(nothing.is_empty() && nothing.bytes().is_none_or(<[u8]>::is_empty));
            assert_eq!(&*nothing.read_at(0, 0).unwrap(), b"");
            assert_eq!(kind(nothing.read_at(0, 1)), Some(ErrorKind::Corruption));
            nothing.advise(Advice::PopulateCached).unwrap();
        }
    });
}

#[test]
fn a_directory_has_one_owner() {
    on_each(|fs, dir| {
        write(fs, &dir.join("1.sst"), b"table");
        let lock = fs.lock_dir(dir).unwrap();
        let busy = fs.lock_dir(dir).unwrap_err();
        assert_eq!(
            (busy.kind(), busy.busy_reason()),
            (ErrorKind::Busy, Some(BusyReason::DirectoryLocked))
        );
        assert!(
            busy.to_string()
                .contains(&format!("is in use by process {}", std::process::id())),
            "{busy}"
        );
        assert!(busy.path().is_some());
        drop(lock);
        let lock = fs.lock_dir(dir).unwrap();
        // A mapping keeps the directory: the next owner might truncate what it shows.
        let table = fs.open_table(&dir.join("1.sst"), &lock, MapMode::Map).unwrap();
        drop(lock);
        assert_eq!(kind(fs.lock_dir(dir)), Some(ErrorKind::Busy));
        assert_eq!(table.bytes().unwrap(), b"table");
        drop(table);
        fs.lock_dir(dir).unwrap();
        assert!(
            fs.list(dir)
                .unwrap()
                .iter()
                .all(|name| name == "1.sst" || name == LOCK_FILE_NAME)
        );
    });
}

#[test]
fn a_table_goes_step_by_step() {
    on_each(|fs, dir| {
        let path = dir.join("1.sst");
        write(fs, &path, &[7; 10_000]);
        let lock = fs.lock_dir(dir).unwrap();
        let table = fs.open_table(&path, &lock, MapMode::Map).unwrap();
        assert_eq!(
            kind(lock.claim_orphan(path.clone())),
            Some(ErrorKind::InvalidInput)
        );
        let unmapped = table.unmap();
        assert_eq!(unmapped.path(), path);
        assert_eq!(
            kind(fs.open_table(&path, &lock, MapMode::Map)),
            Some(ErrorKind::InvalidInput)
        );
        assert_eq!(
            kind(lock.claim_orphan(path.clone())),
            Some(ErrorKind::InvalidInput)
        );

        let (unmapped, error) = unmapped.truncate(fs, 0, &mut || {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(
            kind(fs.truncate(&unmapped, 10_001)),
            Some(ErrorKind::InvalidInput)
        );
        let mut lengths = Vec::new();
        let truncated = unmapped
            .truncate(fs, 4096, &mut || lengths.push(fs.len(&path).unwrap()))
            .map_err(|(_, error)| error)
            .unwrap();
        assert_eq!(lengths, [8192, 4096]);
        assert_eq!((truncated.path(), fs.len(&path).unwrap()), (&*path, 0));
        let removed = truncated.remove(fs).map_err(|(_, error)| error).unwrap();
        assert_eq!(removed.path(), path);
        assert!(!fs.exists(&path).unwrap());

        // The name is free again.
        write(fs, &path, b"again");
        let table = fs.open_table(&path, &lock, MapMode::Read).unwrap();
        assert_eq!(&*table.read_at(0, 5).unwrap(), b"again");
        let _ = table.unmap().remove(fs).map_err(|(_, error)| error).unwrap();
        assert!(!fs.exists(&path).unwrap());
    });
}

#[test]
fn an_orphan_is_claimed_once_and_a_failed_step_gives_the_proof_back() {
    on_each(|fs, dir| {
        let path = dir.join("1.sst");
        let lock = fs.lock_dir(dir).unwrap();
        let orphan = lock.claim_orphan(path.clone()).unwrap();
        assert_eq!(
            kind(lock.claim_orphan(path.clone())),
            Some(ErrorKind::InvalidInput)
        );
        let (orphan, error) = orphan.truncate(fs, 1, &mut || {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let (orphan, error) = orphan.remove(fs).unwrap_err();
        assert_eq!((orphan.path(), error.kind()), (&*path, ErrorKind::NotFound));
        write(fs, &path, b"left over");
        let truncated = orphan
            .truncate(fs, 1 << 20, &mut || {})
            .map_err(|(_, error)| error)
            .unwrap();
        let _ = truncated.remove(fs).map_err(|(_, error)| error).unwrap();
        assert!(!fs.exists(&path).unwrap());
        lock.claim_orphan(path.clone()).unwrap();

        for stranger in [
            dir.join("1.wal"),
            Path::new("/elsewhere/1.sst").to_path_buf(),
            dir.join("../1.sst"),
        ] {
            assert_eq!(
                kind(lock.claim_orphan(stranger.clone())),
                Some(ErrorKind::InvalidInput)
            );
            assert!(fs.open_table(&stranger, &lock, MapMode::Map).is_err());
        }
    });
}

#[test]
fn a_table_that_is_open_twice_is_not_truncated() {
    on_each(|fs, dir| {
        let path = dir.join("1.sst");
        write(fs, &path, b"table");
        let lock = fs.lock_dir(dir).unwrap();
        let first = fs.open_table(&path, &lock, MapMode::Map).unwrap();
        let second = fs.open_table(&path, &lock, MapMode::Map).unwrap();
        let (unmapped, error) = first.unmap().truncate(fs, 1, &mut || {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(kind(fs.truncate(&unmapped, 0)), Some(ErrorKind::InvalidInput));
        assert_eq!(second.bytes().unwrap(), b"table");
        drop(second);
        assert!(unmapped.truncate(fs, 1, &mut || {}).is_ok());
    });
}

#[test]
fn a_second_name_keeps_a_table_from_truncation() {
    on_each(|fs, dir| {
        let (path, checkpoint) = (dir.join("1.sst"), dir.join("checkpoint"));
        write(fs, &path, b"table");
        fs.create_dir_all(&checkpoint).unwrap();
        fs.hard_link(&path, &checkpoint.join("1.sst")).unwrap();
        let lock = fs.lock_dir(dir).unwrap();
        let unmapped: Unmapped = fs.open_table(&path, &lock, MapMode::Map).unwrap().unmap();
        let (unmapped, error) = unmapped.truncate(fs, 1, &mut || {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let _ = unmapped.remove(fs).map_err(|(_, error)| error).unwrap();
        assert!(!fs.exists(&path).unwrap());
        assert_eq!(read(fs, &checkpoint.join("1.sst")), b"table");
    });
}

#[test]
fn tables_are_not_removed_or_renamed_as_plain_files() {
    on_each(|fs, dir| {
        let (table, plain) = (dir.join("1.sst"), dir.join("1.tmp"));
        write(fs, &table, b"table");
        write(fs, &plain, b"plain");
        for path in [&table, &dir.join("1.SST")] {
            let error = Removable::plain(path).unwrap_err();
            assert_eq!(
                (error.kind(), error.path()),
                (ErrorKind::InvalidInput, Some(&**path))
            );
        }
        assert_eq!(Removable::plain(&plain).unwrap().path(), plain);
        assert_eq!(
            kind(fs.rename(&table, &dir.join("2.tmp"))),
            Some(ErrorKind::InvalidInput)
        );
        assert_eq!(kind(fs.rename(&plain, &table)), Some(ErrorKind::InvalidInput));
        assert_eq!(
            kind(fs.hard_link(&table, &dir.join("2.tmp"))),
            Some(ErrorKind::InvalidInput)
        );
        assert_eq!(
            kind(fs.hard_link(&plain, &dir.join("2.sst"))),
            Some(ErrorKind::InvalidInput)
        );
        assert_eq!(read(fs, &table), b"table");
    });
}

#[test]
fn the_systems_tables_need_the_systems_lock() {
    if cfg!(miri) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("1.sst");
    write(&OsFs, &path, b"table");
    // It excludes nobody, and so proves nothing about who has the file mapped.
    let stranger = DirLock::new(root.path().to_path_buf(), Box::new(()));
    assert_eq!(
        kind(OsFs.open_table(&path, &stranger, MapMode::Map)),
        Some(ErrorKind::InvalidInput)
    );
    let orphan = stranger.claim_orphan(path.clone()).unwrap();
    assert_eq!(kind(OsFs.truncate(&orphan, 0)), Some(ErrorKind::InvalidInput));
    assert_eq!(read(&OsFs, &path), b"table");
}

#[test]
fn the_lock_file_holds_the_pid_of_its_owner() {
    if cfg!(miri) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let lock_path = root.path().join(LOCK_FILE_NAME);
    std::fs::write(&lock_path, "4294967295\n").unwrap();
    let _lock = OsFs.lock_dir(root.path()).unwrap();
    assert_eq!(
        std::fs::read_to_string(&lock_path).unwrap(),
        format!("{:<10}\n", std::process::id())
    );
}
