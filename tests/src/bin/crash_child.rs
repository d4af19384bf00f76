//! The process that `tests/process.rs` kills: writes from several threads, and says on its standard output what has
//! been acknowledged, one line `thread number sync` a batch. Ends when the pipe does.
//!
//! Arguments: directory, threads, options seed. Every thread goes on where the database says it stopped.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use siltstone::{Db, Keyspace, WriteBatch, WriteOptions};
use siltstone_tests::RandomOptions;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(threads), Some(seed)) = (args.next(), args.next(), args.next()) else {
        eprintln!("usage: crash_child DIRECTORY THREADS OPTIONS-SEED");
        return ExitCode::from(2);
    };
    let outcome = threads
        .parse::<u64>()
        .map_err(|error| error.to_string())
        .and_then(|threads| Ok((threads, seed.parse::<u64>().map_err(|error| error.to_string())?)))
        .and_then(|(threads, seed)| {
            run(&PathBuf::from(dir), threads, seed).map_err(|error| format!("{error:?}"))
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("crash_child: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(dir: &PathBuf, threads: u64, seed: u64) -> siltstone::Result<()> {
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
