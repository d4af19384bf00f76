//! What reads of a settled, warm database cost: gets, gets of 64 keys at once, and seeks with ten steps.
//!
//! ```text
//! cargo run --release -p siltstone --example read_speed -- [records] [rounds] [directory]
//! ```
//!
//! Records of 16 + 100 bytes, loaded at random and settled; a directory that is given is kept, and read again if it is there
//! already. Keys are drawn uniformly, all of them are there, and every byte of every value is summed. Nanoseconds that pass
//! for each key, and for each seek; loops have functions of their own (`get`, `multi_get`, `seek`), so that a profile or
//! `valgrind --tool=callgrind --toggle-collect='read_speed::multi_get*'` can tell them apart.

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use siltstone::{Db, Options};

mod records;

use records::{key, scramble};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const KEYS_A_CALL: usize = 64;
const STEPS_A_SEEK: u32 = 10;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u64| args.next().map_or(Ok(default), |arg| arg.parse::<u64>());
    let (records, rounds) = (number(1_000_000)?, number(5)?);
    let made;
    let dir = match args.next() {
        Some(dir) => PathBuf::from(dir),
        None => {
            made = tempfile::tempdir()?;
            made.path().join("db")
        }
    };
    let is_new = !dir.exists();
    let db = Options::default().open(&dir)?;
    if is_new {
        for i in 0..records {
            db.put(key(i), [i.to_le_bytes()[0]; 100])?;
        }
        db.flush()?;
    }
    db.wait_idle()?;
    let calls = (records / KEYS_A_CALL as u64).clamp(1, 1 << 14);
    let keys = calls * KEYS_A_CALL as u64;
    println!("get  multi_get of {KEYS_A_CALL}, a key  seek and ten steps   (ns)");
    for round in 0..rounds {
        let drawn = Drawn {
            state: round << 32,
            records,
        };
        let (get_ns, sum) = timed(keys, || get(&db, keys, drawn.clone()))?;
        let (multi_ns, same) = timed(keys, || multi_get(&db, calls, drawn.clone()))?;
        let seeks = keys / 8;
        let (seek_ns, _) = timed(seeks, || seek(&db, seeks, drawn.clone()))?;
        if sum != same {
            return Err(format!("get summed {sum} and multi_get {same}").into());
        }
        println!("{get_ns:.0}  {multi_ns:.0}  {seek_ns:.0}");
    }
    Ok(())
}

/// Numbers of records, drawn uniformly.
#[derive(Clone)]
struct Drawn {
    state: u64,
    records: u64,
}

impl Iterator for Drawn {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.state = scramble(self.state.wrapping_add(1));
        Some(self.state % self.records)
    }
}

/// Nanoseconds for each of `count` operations, and what they summed.
fn timed(count: u64, work: impl FnOnce() -> Result<u64>) -> Result<(f64, u64)> {
    let start = Instant::now();
    let sum = work()?;
    Ok((start.elapsed().as_secs_f64() * 1e9 / count as f64, sum))
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

#[inline(never)]
fn get(db: &Db, keys: u64, drawn: Drawn) -> Result<u64> {
    let mut total = 0;
    for (_, record) in (0..keys).zip(drawn) {
        total += db
            .get_with(key(record), sum)?
            .ok_or("a key that was put is not there")?;
    }
    Ok(total)
}

#[inline(never)]
fn multi_get(db: &Db, calls: u64, mut drawn: Drawn) -> Result<u64> {
    let mut total = 0;
    for _ in 0..calls {
        for value in db.multi_get(drawn.by_ref().take(KEYS_A_CALL).map(key)) {
            total += sum(&value?.ok_or("a key that was put is not there")?);
        }
    }
    Ok(total)
}

#[inline(never)]
fn seek(db: &Db, seeks: u64, drawn: Drawn) -> Result<u64> {
    let mut total = 0;
    for (_, record) in (0..seeks).zip(drawn) {
        let mut cursor = db.cursor::<&[u8]>(..)?;
        cursor.seek(key(record))?;
        for step in 0..=STEPS_A_SEEK {
            if step > 0 {
                cursor.next()?;
            }
            if !cursor.valid() {
                break;
            }
            total += sum(cursor.key()) + sum(cursor.value());
        }
    }
    Ok(total)
}
