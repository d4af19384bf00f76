//! On the operating system's files: what a process leaves is what the next one reads.

use std::fs;
use std::path::PathBuf;

use siltstone_vfs::OsFs;

use super::*;
use crate::Tail;

/// A directory of its own, gone with the test.
struct TestDir(PathBuf);

impl TestDir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("siltstone-wal-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        // Best effort: the directory is one for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_was_appended_and_never_synced_is_there_for_the_next_process() {
    for io in [LogIo::Mapped, LogIo::Write] {
        let dir = TestDir::new(&format!("{io:?}"));
        let fs: Arc<dyn Fs> = Arc::new(OsFs::new());
        let options = LogOptions {
            segment_size_bytes: 8192,
            io,
        };
        let (mut log, syncer) =
            Log::create(fs.clone(), &dir.0, SegmentId(1), RecordSeq(1), options).expect("a log");
        append_to(&mut log, 100);
        let large = vec![9; 300_000];
        log.append(&[&large, b"end"]).expect("appended");
        // As with the death of the process, no destructor has run and nothing was synced.
        let segments: Vec<_> = syncer.live_segments().into_iter().map(|live| live.0).collect();
        let mut records = Vec::new();
        let replay = replay(&*fs, &dir.0, &segments, TailPolicy::Strict, &mut |record| {
            records.push((record.sequence.0, record.payload.to_vec()));
            Ok(())
        })
        .expect("sound");
        let mut model = expected(100);
        model.push((101, [&large[..], b"end"].concat()));
        assert!(records == model, "{io:?}");
        assert_eq!((replay.tail, replay.synced), (Tail::Clean, RecordSeq(0)));
        syncer.sync_to(RecordSeq(101)).expect("synced");
        syncer.release_below(log.segment());
        assert_eq!(syncer.live_segments().len(), 1);
    }
}
