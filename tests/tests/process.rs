//! A real process under multi-threaded load is killed with SIGKILL at a random moment and the database opened again.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use siltstone::{Db, Keyspace, VerifyOptions};
use siltstone_tests::{RandomOptions, Seeds, Violation, check_directory};

const THREADS: u64 = 4;
const ROUNDS: u64 = 6;

/// Runs the writer until it has acknowledged `until` batches, kills it, and returns the last acknowledged number of
/// each thread.
fn run_and_kill(dir: &std::path::Path, seed: u64, until: u64) -> Vec<Option<u64>> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_crash_child"))
        .arg(dir)
        .args([THREADS.to_string(), seed.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the writer can be started");
    let out = child.stdout.take().expect("its output is piped");
    let mut acknowledged = vec![None; usize::try_from(THREADS).unwrap()];
    let mut lines = 0;
    let mut reader = BufReader::new(out);
    let mut line = String::new();
    loop {
        line.clear();
        let read = reader.read_line(&mut line).expect("the pipe can be read");
        // What was in the pipe when it died still counts; a line without its end does not.
        if read == 0 || !line.ends_with('\n') {
            break;
        }
        let mut words = line.split_whitespace().map(|word| word.parse::<u64>().unwrap());
        let (thread, number) = (words.next().unwrap(), words.next().unwrap());
        acknowledged[usize::try_from(thread).unwrap()] = Some(number);
        lines += 1;
        if lines == until {
            child.kill().expect("our own child can be killed");
        }
    }
    let status = child.wait().expect("our own child can be waited for");
    assert!(
        lines >= until,
        "the writer ended by itself after {lines} batches: {status}"
    );
    acknowledged
}

fn check(dir: &std::path::Path, seed: u64, acknowledged: &[Option<u64>]) -> Result<u64, Violation> {
    let options = RandomOptions::new(seed);
    let wrong = |what: String| Err(Violation::new(what));
    let db = match options.options().open(dir) {
        Ok(db) => db,
        Err(error) => return Err(Violation::unexpected("recovery", &error)),
    };
    let other = db
        .keyspace("other", options.keyspace("other"))
        .map_err(|error| Violation::unexpected("keyspace", &error))?;
    let mut total = 0;
    for (thread, acknowledged) in acknowledged.iter().enumerate() {
        let numbers = |keyspace: &Keyspace| {
            let entries = keyspace.prefix(format!("{thread}/")).unwrap();
            entries.map(|entry| entry.unwrap().0).collect::<Vec<_>>()
        };
        let (here, there) = (numbers(&db), numbers(&other));
        if here != there {
            return wrong(format!(
                "thread {thread}: {} batches in one keyspace, {} in the other",
                here.len(),
                there.len()
            ));
        }
        for (n, key) in here.iter().enumerate() {
            if *key != format!("{thread}/{n:010}") {
                return wrong(format!("thread {thread}: a hole at {n}, where {key:?} is"));
            }
        }
        let present = here.len() as u64;
        let least = acknowledged.map_or(0, |last| last + 1);
        // Of each thread one more may have been on its way, with its acknowledgement not yet sent.
        if present < least || present > least + 1 && acknowledged.is_some() {
            return wrong(format!(
                "thread {thread}: {present} batches, {least} were acknowledged"
            ));
        }
        for keyspace in [&*db, &other] {
            let last = keyspace.get(format!("last/{thread}")).unwrap();
            let last = last.map(|bytes| u64::from_le_bytes(bytes[..].try_into().unwrap()));
            if last != present.checked_sub(1) {
                return wrong(format!(
                    "thread {thread}: the last of {present} batches says {last:?}"
                ));
            }
        }
        total += present;
    }
    let report = db.verify(&VerifyOptions::default()).unwrap();
    if !report.is_sound() {
        return wrong(format!("verify: {:?}", report.damage));
    }
    check_directory(&siltstone::vfs::OsFs::new(), dir, &db)?;
    close(db, other)?;
    Ok(total)
}

fn close(db: Db, other: Keyspace) -> Result<(), Violation> {
    drop(other);
    db.close().map_err(|error| Violation::unexpected("close", &error))
}

#[test]
fn a_killed_process_loses_nothing_acknowledged() {
    Seeds::new("process", "a_killed_process_loses_nothing_acknowledged", 4).run(1, |seed| {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let mut total = 0;
        for round in 0..ROUNDS {
            // Now and then soon after recovery, mostly after some flushes.
            let until = 1 + (seed.wrapping_mul(7919) + round * 104_729) % 3000;
            let acknowledged = run_and_kill(dir.path(), seed, until);
            total = check(dir.path(), seed, &acknowledged)
                .map_err(|violation| violation.context(format!("round {round}")))?;
        }
        println!("seed {seed}: {ROUNDS} kills, {total} batches");
        Ok(())
    });
}
