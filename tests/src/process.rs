//! A real process under multi-threaded load, killed with SIGKILL at a random moment, again and again.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use siltstone::{Db, Keyspace, VerifyOptions, WriteBatch, WriteOptions};

use crate::directory::check_directory;
use crate::random_options::RandomOptions;
use crate::violation::{Violation, must};

/// Starts a process that writes from several threads ([`write_until_killed`]), kills it, opens its database, and checks that
/// nothing acknowledged is lost, that no thread's batches have a hole, and that batches are whole across keyspaces.
#[derive(Clone, Debug)]
pub struct ProcessDriver {
    /// The program that calls [`write_until_killed`] with its last three arguments: directory, threads, seed.
    pub program: PathBuf,
    /// The arguments before these.
    pub arguments: Vec<OsString>,
    /// How many threads write.
    pub threads: u64,
    /// How often a database is killed.
    pub kills: u64,
}

/// What was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessFigures {
    /// Processes that were killed.
    pub kills: u64,
    /// Batches that were there at the end.
    pub batches: u64,
}

impl ProcessDriver {
    /// Kills one database several times, with the options of `seed`.
    ///
    /// # Errors
    /// A [`Violation`] with the number of the kill.
    ///
    /// # Panics
    /// Where no temporary directory can be made, or the program does not do what it should.
    pub fn run(&self, seed: u64) -> Result<ProcessFigures, Violation> {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let mut figures = ProcessFigures::default();
        for round in 0..self.kills {
            // Now and then soon after recovery, mostly after some flushes.
            let until = 1 + (seed.wrapping_mul(7919) + round * 104_729) % 3000;
            let acknowledged = self.run_and_kill(dir.path(), seed, until);
            figures.batches = check(dir.path(), seed, &acknowledged)
                .map_err(|violation| violation.context(format!("kill {round}")))?;
            figures.kills += 1;
        }
        Ok(figures)
    }

    /// Runs the writer until it has acknowledged `until` batches, kills it, and returns the last acknowledged number of
    /// each thread.
    ///
    /// # Panics
    /// Where the writer cannot be started, or ends by itself.
    fn run_and_kill(&self, dir: &Path, seed: u64, until: u64) -> Vec<Option<u64>> {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .arg(dir)
            .args([self.threads.to_string(), seed.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the writer can be started");
        let out = child.stdout.take().expect("its output is piped");
        let mut acknowledged = vec![None; usize::try_from(self.threads).unwrap_or_default()];
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
            let mut words = line.split_whitespace();
            let thread = words.next().and_then(|word| word.parse::<usize>().ok());
            let number = words.next().and_then(|word| word.parse::<u64>().ok());
            let (thread, number) = thread.zip(number).expect("a line is a thread and a number");
            acknowledged[thread] = Some(number);
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
}

/// Opens what the killed process left, and says how many batches are there.
fn check(dir: &Path, seed: u64, acknowledged: &[Option<u64>]) -> Result<u64, Violation> {
    let options = RandomOptions::new(seed);
    let wrong = |what: String| Err(Violation::new(what));
    let db = must("recovery", options.options().open(dir))?;
    let other = must("keyspace", db.keyspace("other", options.keyspace("other")))?;
    let mut total = 0;
    for (thread, acknowledged) in acknowledged.iter().enumerate() {
        let numbers = |keyspace: &Keyspace| {
            let entries = must("prefix", keyspace.prefix(format!("{thread}/")))?;
            let keys = entries.map(|entry| Ok(must("a step of a scan", entry)?.0));
            keys.collect::<Result<Vec<_>, Violation>>()
        };
        let (here, there) = (numbers(&db)?, numbers(&other)?);
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
            let last = must("get", keyspace.get(format!("last/{thread}")))?;
            let last = last.and_then(|bytes| Some(u64::from_le_bytes(bytes[..].try_into().ok()?)));
            if last != present.checked_sub(1) {
                return wrong(format!(
                    "thread {thread}: the last of {present} batches says {last:?}"
                ));
            }
        }
        total += present;
    }
    let report = must("verify", db.verify(&VerifyOptions::default()))?;
    if !report.is_sound() {
        return wrong(format!("verify: {:?}", report.damage));
    }
    check_directory(&siltstone::vfs::OsFs::new(), dir, &db)?;
    drop(other);
    must("close", db.close())?;
    Ok(total)
}

/// The process that is killed: writes from several threads, and says on its standard output what has been acknowledged,
/// one line `thread number sync` a batch. Every thread goes on where the database says it stopped. Ends when the pipe does.
///
/// # Errors
/// Those of the engine.
pub fn write_until_killed(dir: &Path, threads: u64, seed: u64) -> siltstone::Result<()> {
    let options = RandomOptions::new(seed);
    let db = options.options().open(dir)?;
    let other = db.keyspace("other", options.keyspace("other"))?;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn({
                    let (db, other) = (&db, &other);
                    move || write(db, other, thread)
                })
            })
            .collect();
        writers
            .into_iter()
            .try_for_each(|writer| writer.join().unwrap_or(Ok(())))
    })
}

fn write(db: &Db, other: &Keyspace, thread: u64) -> siltstone::Result<()> {
    let begun = db.prefix(format!("{thread}/"))?.next_back().transpose()?;
    let first = begun.map_or(0, |(key, _)| {
        let text = String::from_utf8_lossy(&key).into_owned();
        let number = text
            .split('/')
            .nth(1)
            .and_then(|number| number.parse::<u64>().ok());
        number.map_or(0, |number| number + 1)
    });
    for number in first.. {
        let key = format!("{thread}/{number:010}");
        let filler = usize::try_from(number * 37 % 400).unwrap_or(0);
        let mut batch = WriteBatch::new();
        batch
            .put(&key, format!("{key}{}", ".".repeat(filler)))
            .put_in(other, &key, &key)
            // A counter that is overwritten: the last one wins, in both keyspaces alike.
            .put(format!("last/{thread}"), number.to_le_bytes())
            .put_in(other, format!("last/{thread}"), number.to_le_bytes());
        let sync = number % 16 == 0;
        let options = if sync {
            WriteOptions::sync()
        } else {
            WriteOptions::default()
        };
        db.write_with(batch, &options)?;
        // One line, one write: a line that arrives whole was acknowledged before it was sent.
        let line = format!("{thread} {number} {}\n", u8::from(sync));
        let mut out = std::io::stdout().lock();
        if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
