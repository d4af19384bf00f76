//! The timed phases.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::child::{BATCH_RECORDS, get, put, put_batch};
use crate::data::{Data, Key, Zipfian, mix};
use crate::engine::{Engine, Result, Session};
use crate::measure::{Timed, timed};
use crate::workload::{Work, Workload};

/// Runs the timed phase.
pub(super) fn measure(
    engine: &dyn Engine,
    workload: Workload,
    data: &Data,
    zipfian: &Zipfian,
    writer_ops_per_s: &mut Option<f64>,
) -> Result<Timed> {
    let (threads, n) = (workload.threads, data.n);
    let calls = |calls: u64, work: &(dyn Fn(&mut dyn Session, u64) -> Result<u64> + Sync)| {
        timed(engine, threads, calls, work)
    };
    // Ranks are spread over the key space, so that hot keys are not neighbours.
    let hot = |i: u64| data.shuffled(zipfian.rank(i));
    match workload.work {
        Work::FillSeq => calls(n, &|session, i| put(session, data, i, 0)),
        Work::FillRandom => calls(n, &|session, i| put(session, data, data.shuffled(i), 0)),
        Work::FillSync => {
            let synced = (n / 50).clamp(1000, 100_000).min(n);
            calls(synced, &|session, i| put(session, data, data.shuffled(i), 0))
        }
        Work::FillBatch => {
            let timed = calls(n.div_ceil(BATCH_RECORDS), &|session, batch| {
                put_batch(session, data, batch)?;
                Ok(0)
            })?;
            Ok(timed.counting(n))
        }
        Work::Overwrite => calls(n, &|session, i| put(session, data, data.shuffled(n - 1 - i), 1)),
        Work::Delete => calls(n, &|session, i| {
            session.delete(data.key(data.shuffled(n - 1 - i)).as_ref())?;
            Ok(0)
        }),
        Work::ReadRandom | Work::ReadUnsettled => {
            calls(n, &|session, i| get(session, data.key(data.uniform(i))))
        }
        Work::ReadZipfian | Work::YcsbC => calls(n, &|session, i| get(session, data.key(hot(i)))),
        Work::ReadMissing => calls(n, &|session, i| match session
            .get(data.free_key(data.uniform(i)).as_ref())?
        {
            None => Ok(0),
            Some(_) => Err("a key was found that was never written".into()),
        }),
        Work::MultiGet => {
            const KEYS: u64 = 64;
            let timed = calls((n / KEYS).max(1), &|session, i| {
                let keys: [Key; 64] = std::array::from_fn(|at| data.key(data.uniform(i * KEYS + at as u64)));
                Ok(session.multi_get(&keys)?.sum)
            })?;
            let keys = timed.ops * KEYS;
            Ok(timed.counting(keys))
        }
        Work::SeekRandom => calls((n / 4).max(1), &|session, i| {
            Ok(session.seek(data.key(data.uniform(i)).as_ref(), 11)?.sum)
        }),
        Work::SeekReuse => calls((n / 4).max(1), &|session, i| {
            Ok(session.seek_reused(data.key(data.uniform(i)).as_ref(), 11)?.sum)
        }),
        Work::Scan | Work::Reverse | Work::ScanDeleted | Work::ColdScan => {
            let reverse = workload.work == Work::Reverse;
            let records = AtomicU64::new(0);
            let timed = calls(1, &|session, _| {
                let seen = session.scan(reverse)?;
                records.store(seen.records, Ordering::Relaxed);
                Ok(seen.sum)
            })?;
            Ok(timed.counting(records.into_inner()))
        }
        Work::ColdRead => {
            let most = if threads > 1 { 200_000 } else { 100_000 };
            calls(n.min(most), &|session, i| get(session, data.key(data.uniform(i))))
        }
        Work::SeekDeleted => calls(11, &|session, _| {
            Ok(session.seek(data.key(n / 4).as_ref(), 1)?.sum)
        }),
        Work::ReadWhileWriting => {
            let (timed, writer) = read_while_writing(engine, data)?;
            *writer_ops_per_s = Some(writer);
            Ok(timed)
        }
        Work::YcsbA => calls(n, &|session, i| read_or_update(session, data, hot(i), i, 50)),
        Work::YcsbB => calls(n, &|session, i| read_or_update(session, data, hot(i), i, 5)),
        Work::YcsbD => {
            let inserted = AtomicU64::new(0);
            calls(n, &|session, i| {
                if percent(i) < 5 {
                    return insert(session, data, &inserted);
                }
                let back = zipfian.rank(i);
                let count = inserted.load(Ordering::Relaxed);
                let key = match count.checked_sub(back + 1) {
                    Some(newest) => data.free_key(data.shuffled(newest)),
                    None => data.key(data.shuffled(n - 1 - (back - count))),
                };
                get(session, key)
            })
        }
        Work::YcsbE => {
            let inserted = AtomicU64::new(0);
            calls((n / 10).max(1), &|session, i| {
                if percent(i) < 5 {
                    return insert(session, data, &inserted);
                }
                Ok(session.seek(data.key(hot(i)).as_ref(), 1 + mix(!i) % 100)?.sum)
            })
        }
        Work::YcsbF => calls(n, &|session, i| {
            let record = hot(i);
            let sum = get(session, data.key(record))?;
            if percent(i) < 50 {
                put(session, data, record, 1 + i % 7)?;
            }
            Ok(sum)
        }),
        Work::OpenClean | Work::OpenKilled => Err("opens are measured on their own".into()),
    }
}

fn percent(i: u64) -> u64 {
    mix(i ^ 0x00FE_0000_0000_0000) % 100
}

fn read_or_update(session: &mut dyn Session, data: &Data, record: u64, i: u64, updates: u64) -> Result<u64> {
    if percent(i) < updates {
        put(session, data, record, 1 + i % 7)
    } else {
        get(session, data.key(record))
    }
}

/// Inserts the next free key. Only one thread runs these workloads, so all engines see the same sequence.
fn insert(session: &mut dyn Session, data: &Data, inserted: &AtomicU64) -> Result<u64> {
    let count = inserted.load(Ordering::Relaxed);
    let key = data.free_key(data.shuffled(count % data.n));
    session.put(key.as_ref(), data.value(&key, 0))?;
    inserted.store(count + 1, Ordering::Relaxed);
    Ok(0)
}

/// The writer puts the values that are already there, so that the reader's sum stays the same.
fn read_while_writing(engine: &dyn Engine, data: &Data) -> Result<(Timed, f64)> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<f64> {
            let mut session = engine.session()?;
            let (begun, mut written) = (Instant::now(), 0_u64);
            while !done.load(Ordering::Relaxed) {
                put(&mut *session, data, data.uniform(!written), 0)?;
                written += 1;
            }
            Ok(written as f64 / begun.elapsed().as_secs_f64())
        });
        let reads = timed(engine, 1, data.n, |session, i| {
            get(session, data.key(data.uniform(i)))
        });
        done.store(true, Ordering::Relaxed);
        let writer = writer.join().map_err(|_| "the writer panicked")??;
        Ok((reads?, writer))
    })
}
