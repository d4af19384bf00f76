use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::{
    ErrorKind, Fault, FaultEffect, FaultFs, Fs, LogIo, MapMode, MemFs, OpInfo, OpKind, Removable, Result,
};

fn fault(nth: u64, kind: OpKind, effect: FaultEffect) -> Fault {
    Fault {
        nth,
        kinds: Some(vec![kind]),
        path_contains: None,
        effect,
        repeat: false,
    }
}

fn new_fs() -> (MemFs, FaultFs) {
    let mem = MemFs::new();
    mem.create_dir_all(Path::new("db")).unwrap();
    (mem.clone(), FaultFs::new(Arc::new(mem)))
}

/// Every kind of operation once, in a fixed order, each with its paths.
fn every_operation(fs: &FaultFs) -> Result<()> {
    let dir = Path::new("db");
    fs.create_dir_all(dir)?;
    let lock = fs.lock_dir(dir)?;
    let table = dir.join("000003.sst");
    let mut file = fs.create(&table)?;
    file.append(&[7; 4096])?;
    file.sync()?;
    fs.sync_dir(dir)?;
    let (mut log, sync) = fs.create_log(&dir.join("000004.wal"), 8192, LogIo::Write)?;
    log.write_at(128, &[1; 16])?;
    sync.sync()?;
    let reader = fs.open(&dir.join("000004.wal"))?;
    reader.read_at(128, &mut [0; 16])?;
    reader.len()?;
    fs.create(&dir.join("CURRENT.tmp"))?;
    fs.sync_file(&dir.join("CURRENT.tmp"))?;
    fs.hard_link(&dir.join("CURRENT.tmp"), &dir.join("link"))?;
    fs.rename(&dir.join("CURRENT.tmp"), &dir.join("CURRENT"))?;
    fs.list(dir)?;
    fs.exists(dir)?;
    fs.len(&dir.join("CURRENT"))?;
    fs.space_available(dir)?;
    let mapping = fs.open_table(&table, &lock, MapMode::Read)?;
    mapping.read_at(0, 4)?;
    let truncated = mapping
        .unmap()
        .truncate(fs, 4096, &mut || {})
        .map_err(|(_, error)| error)?;
    let _ = truncated.remove(fs).map_err(|(_, error)| error)?;
    fs.remove(&Removable::plain(&dir.join("link"))?)
}

const EVERY_OPERATION: [&str; 28] = [
    "mkdir db",
    "lock db",
    "create db/000003.sst",
    "append db/000003.sst 4096",
    "sync db/000003.sst",
    "syncdir db",
    "createlog db/000004.wal 8192",
    "write db/000004.wal 128+16",
    "synclog db/000004.wal",
    "open db/000004.wal",
    "read db/000004.wal 128+16",
    "len db/000004.wal",
    "create db/CURRENT.tmp",
    "syncfile db/CURRENT.tmp",
    "link db/CURRENT.tmp -> db/link",
    "rename db/CURRENT.tmp -> db/CURRENT",
    "list db",
    "exists db",
    "len db/CURRENT",
    "space db",
    "opentable db/000003.sst",
    "len db/000003.sst",
    "read db/000003.sst 0+4",
    "len db/000003.sst",
    "truncate db/000003.sst 0",
    "remove db/000003.sst",
    "remove db/link",
    "exists db",
];

#[test]
fn the_trace_is_readable() {
    let (_, fs) = new_fs();
    every_operation(&fs).unwrap();
    fs.set_tracing(false);
    fs.exists(Path::new("db")).unwrap();
    fs.set_tracing(true);
    fs.exists(Path::new("db")).unwrap();
    assert_eq!(fs.trace(), EVERY_OPERATION);
    assert_eq!(fs.op_count(), 29, "what is not traced is counted");
    fs.clear_trace();
    assert!(fs.trace().is_empty());
}

#[test]
fn each_operation_can_be_failed_and_nothing_of_it_is_done() {
    for effect in [FaultEffect::Eio, FaultEffect::Enospc] {
        for nth in 0..27 {
            let (_, fs) = new_fs();
            fs.inject(Fault {
                nth,
                kinds: None,
                path_contains: None,
                effect,
                repeat: false,
            });
            let error = every_operation(&fs).unwrap_err();
            let expected = if effect == FaultEffect::Eio {
                ErrorKind::Io
            } else {
                ErrorKind::NoSpace
            };
            assert_eq!(error.kind(), expected, "{error}");
            assert!(error.path().is_some());
            let trace = fs.trace();
            let failed = trace.last().unwrap();
            let (line, name) = failed.split_once(" !").unwrap();
            assert_eq!(line, EVERY_OPERATION[usize::try_from(nth).unwrap()]);
            assert_eq!(name, effect.name());
            assert_eq!((fs.faults_struck(), fs.op_count()), (1, nth + 1));
        }
    }
}

#[test]
fn a_struck_creation_leaves_no_file() {
    let (mem, fs) = new_fs();
    fs.inject(fault(0, OpKind::Create, FaultEffect::Enospc));
    fs.inject(fault(0, OpKind::CreateLog, FaultEffect::Eio));
    assert!(fs.create(Path::new("db/a")).is_err());
    assert!(fs.create_log(Path::new("db/b"), 10, LogIo::Mapped).is_err());
    assert!(mem.files().is_empty());
}

#[test]
fn a_short_write_leaves_a_prefix() {
    let (mem, fs) = new_fs();
    // Only writes count for it, whatever the kinds say.
    let short = Fault {
        nth: 1,
        kinds: None,
        path_contains: Some("3".into()),
        effect: FaultEffect::ShortWrite,
        repeat: false,
    };
    fs.inject(short.clone());
    let mut file = fs.create(Path::new("db/3.sst")).unwrap();
    fs.create(Path::new("db/4.sst"))
        .unwrap()
        .append(b"elsewhere")
        .unwrap();
    file.append(b"whole ").unwrap();
    assert_eq!(file.append(b"half").unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(mem.read_file("db/3.sst").unwrap(), b"whole ha");
    file.append(b"!").unwrap();
    assert_eq!(mem.read_file("db/3.sst").unwrap(), b"whole ha!");

    fs.inject(Fault { nth: 0, ..short });
    let (mut log, _sync) = fs.create_log(Path::new("db/3.wal"), 4, LogIo::Write).unwrap();
    assert!(log.write_at(0, b"abcd").is_err());
    assert_eq!(mem.read_file("db/3.wal").unwrap(), b"ab\0\0");
}

#[test]
fn a_failed_sync_leaves_the_bytes_unsynced() {
    for kind in [OpKind::Sync, OpKind::SyncLog, OpKind::SyncFile, OpKind::SyncDir] {
        let (mem, fs) = new_fs();
        let mut file = fs.create(Path::new("db/a")).unwrap();
        let (mut log, log_sync) = fs.create_log(Path::new("db/b"), 4, LogIo::Write).unwrap();
        if kind != OpKind::SyncDir {
            fs.sync_dir(Path::new("db")).unwrap();
        }
        file.append(b"a").unwrap();
        log.write_at(0, b"b").unwrap();
        fs.inject(fault(0, kind, FaultEffect::FailedSync));
        let mut sync = || match kind {
            OpKind::Sync => file.sync(),
            OpKind::SyncLog => log_sync.sync(),
            OpKind::SyncFile => fs.sync_file(Path::new("db/a")),
            _ => fs.sync_dir(Path::new("db")),
        };
        let survives = || {
            (0..100).all(|seed| {
                let after = mem.crash_clone(seed);
                match kind {
                    OpKind::SyncDir => after.exists(Path::new("db/a")).unwrap(),
                    OpKind::SyncLog => after.read_file("db/b").unwrap() == b"b\0\0\0",
                    _ => after.read_file("db/a").unwrap() == b"a",
                }
            })
        };
        assert_eq!(sync().unwrap_err().kind(), ErrorKind::Io);
        assert!(!survives(), "{kind:?}");
        sync().unwrap();
        assert!(survives(), "{kind:?}");
    }
}

#[test]
fn faults_are_picked_by_kind_path_and_number() {
    let (_, fs) = new_fs();
    let dir = Path::new("db");
    fs.inject(Fault {
        nth: 1,
        kinds: Some(vec![OpKind::Exists, OpKind::List]),
        path_contains: Some("db".into()),
        effect: FaultEffect::Eio,
        repeat: false,
    });
    fs.exists(dir).unwrap();
    fs.exists(Path::new("elsewhere")).unwrap();
    fs.space_available(dir).unwrap();
    assert!(fs.list(dir).is_err());
    fs.list(dir).unwrap();

    fs.inject(Fault {
        repeat: true,
        ..fault(1, OpKind::List, FaultEffect::Enospc)
    });
    fs.list(dir).unwrap();
    for _ in 0..3 {
        assert!(fs.list(dir).is_err());
    }
    fs.clear();
    fs.list(dir).unwrap();
    assert_eq!(fs.faults_struck(), 4);

    // A rename matches by its new name, too.
    fs.create(Path::new("db/tmp")).unwrap();
    fs.inject(Fault {
        path_contains: Some("CURRENT".into()),
        ..fault(0, OpKind::Rename, FaultEffect::Eio)
    });
    assert!(fs.rename(Path::new("db/tmp"), Path::new("db/CURRENT")).is_err());
    assert!(fs.exists(Path::new("db/tmp")).unwrap());
}

#[test]
fn the_hook_comes_before_the_operation_and_may_use_the_file_system() {
    let (mem, fs) = new_fs();
    let (seen, clones) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
    {
        let (seen, clones, mem) = (Arc::clone(&seen), Arc::clone(&clones), mem.clone());
        let handle = fs.clone();
        fs.on_op(Box::new(move |op: &OpInfo| {
            let after = mem.process_crash_clone();
            let existed = after.exists(&op.path).unwrap();
            assert!(handle.op_count() > op.index);
            clones.fetch_add(1, Ordering::Relaxed);
            seen.lock().push((op.index, op.kind, op.path.clone(), existed));
        }));
    }
    fs.create(Path::new("db/a")).unwrap();
    fs.rename(Path::new("db/a"), Path::new("db/b")).unwrap();
    fs.clear_on_op();
    fs.exists(Path::new("db")).unwrap();
    assert_eq!(
        *seen.lock(),
        [
            (0, OpKind::Create, Path::new("db/a").to_path_buf(), false),
            (1, OpKind::Rename, Path::new("db/a").to_path_buf(), true)
        ]
    );
    assert_eq!(clones.load(Ordering::Relaxed), 2);
}

#[test]
fn the_trace_is_bounded() {
    let (_, fs) = new_fs();
    let lines = if cfg!(miri) { 10 } else { (1 << 16) + 10 };
    for _ in 0..lines {
        fs.exists(Path::new("db")).unwrap();
    }
    assert_eq!(fs.trace().len(), lines.min(1 << 16));
}
