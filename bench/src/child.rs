//! What a child process does: one engine, one workload, once.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::data::{Data, Key, Zipfian, mix};
use crate::engine::{Engine, EngineKind, Result, Session, Survives, engine_named};
use crate::measure::{MemorySampler, Timed, cpu, disk_bytes, histogram, nanos, timed, written_bytes};
use crate::workload::{Ground, Work, Workload};

/// What the parent asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) stage: Stage,
    pub(crate) engine: String,
    pub(crate) workload: Workload,
    pub(crate) n: u64,
    pub(crate) value_bytes: usize,
    pub(crate) key_prefix_bytes: usize,
    pub(crate) dir: PathBuf,
}

/// Which part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// Load all records, settle, close.
    Load,
    /// Write records, say so, and wait to be killed.
    FillAndWait,
    /// Measure.
    Run,
}

/// What a run gave.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Operations: records, or calls where the workload's line in `list` says so.
    pub(crate) ops: u64,
    pub(crate) elapsed_ns: u64,
    pub(crate) ops_per_s: f64,
    pub(crate) p50_ns: Option<u64>,
    pub(crate) p99_ns: Option<u64>,
    pub(crate) p999_ns: Option<u64>,
    pub(crate) max_ns: Option<u64>,
    /// CPU of the timed phase, all threads of the store included.
    pub(crate) cpu_us_per_op: f64,
    /// The same with flushing and compacting what was written.
    pub(crate) cpu_settled_us_per_op: f64,
    pub(crate) settle_ns: u64,
    pub(crate) peak_anonymous_bytes: u64,
    pub(crate) peak_mapped_bytes: u64,
    /// From the start of the timed phase until settled; `None` where the kernel does not say.
    pub(crate) written_bytes: Option<u64>,
    /// After settling.
    pub(crate) disk_bytes: u64,
    /// Bytes of the keys and values that are in the store at the end.
    pub(crate) logical_bytes: u64,
    /// `readwhilewriting` only.
    pub(crate) writer_ops_per_s: Option<f64>,
    /// The sum of every byte that the timed phase read: equal for all engines.
    pub(crate) sum: u64,
    /// The sum of a whole scan at the end: equal for all engines.
    pub(crate) state_sum: u64,
    pub(crate) state_records: u64,
}

/// Carries out an order.
pub(crate) fn obey(order: &Order) -> Result<()> {
    let kind = engine_named(&order.engine)?;
    let data = Data::new(order.n, order.value_bytes, order.key_prefix_bytes);
    match order.stage {
        Stage::Load => load(kind, order, &data)?.close(),
        Stage::FillAndWait => fill_and_wait(kind, order, &data),
        Stage::Run => {
            let outcome = run(kind, order, &data)?;
            println!("{}", serde_json::to_string(&outcome)?);
            Ok(())
        }
    }
}

fn load(kind: &EngineKind, order: &Order, data: &Data) -> Result<Box<dyn Engine>> {
    let engine = (kind.open)(&order.dir, Survives::Process)?;
    let mut session = engine.session()?;
    for batch in 0..data.n.div_ceil(BATCH_RECORDS) {
        put_batch(&mut *session, data, batch)?;
    }
    drop(session);
    engine.settle()?;
    Ok(engine)
}

const BATCH_RECORDS: u64 = 1000;

fn put_batch(session: &mut dyn Session, data: &Data, batch: u64) -> Result<()> {
    let first = batch * BATCH_RECORDS;
    let records: Vec<(Key, Vec<u8>)> = (first..data.n.min(first + BATCH_RECORDS))
        .map(|i| {
            let key = data.key(data.shuffled(i));
            (key, data.value(&key, 0).to_vec())
        })
        .collect();
    session.put_batch(&records)
}

fn killed_records(data: &Data) -> u64 {
    data.n.min((56 << 20) / data.logical_bytes(1))
}

fn fill_and_wait(kind: &EngineKind, order: &Order, data: &Data) -> Result<()> {
    let engine = (kind.open)(&order.dir, Survives::Process)?;
    let mut session = engine.session()?;
    for i in 0..killed_records(data) {
        put(&mut *session, data, data.shuffled(i), 0)?;
    }
    println!("ready");
    std::io::stdout().flush()?;
    // Never ends by itself: the parent kills this process while the store is open.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Err("the parent went away instead of killing the writer".into())
}

#[inline]
fn put(session: &mut dyn Session, data: &Data, record: u64, version: u64) -> Result<u64> {
    let key = data.key(record);
    session.put(key.as_ref(), data.value(&key, version))?;
    Ok(0)
}

#[inline]
fn get(session: &mut dyn Session, key: Key) -> Result<u64> {
    session
        .get(key.as_ref())?
        .ok_or_else(|| "a loaded key was not found".into())
}

fn run(kind: &EngineKind, order: &Order, data: &Data) -> Result<Outcome> {
    let workload = order.workload;
    match workload.work {
        Work::OpenClean => return open_clean(kind, order, data),
        Work::OpenKilled => return open_killed(kind, order, data),
        _ => {}
    }
    let engine = match workload.ground() {
        Ground::Own => load(kind, order, data)?,
        Ground::Empty | Ground::Shared | Ground::Killed => (kind.open)(&order.dir, workload.survives())?,
    };
    if workload.ground() != Ground::Empty {
        warm_up(&*engine, data)?;
    }
    match workload.work {
        Work::ReadUnsettled => {
            let mut session = engine.session()?;
            for i in 0..data.n {
                put(&mut *session, data, data.shuffled(i), 0)?;
            }
        }
        Work::SeekDeleted => {
            let mut session = engine.session()?;
            for record in data.n / 4..data.n / 2 {
                session.delete(data.key(record).as_ref())?;
            }
        }
        _ => {}
    }
    // Before the clocks: it costs a power for each record.
    let zipfian = Zipfian::new(data.n);
    let memory = MemorySampler::start();
    let (cpu_before, written_before) = (cpu(), written_bytes());
    let mut writer_ops_per_s = None;
    let (ops_per_call, timed) = measure(&*engine, workload, data, &zipfian, &mut writer_ops_per_s)?;
    let cpu_timed = cpu() - cpu_before;
    let settling = Instant::now();
    engine.settle()?;
    let settle_ns = nanos(settling.elapsed());
    let cpu_settled = cpu() - cpu_before;
    let written = written_bytes()
        .zip(written_before)
        .map(|(after, before)| after.saturating_sub(before));
    let memory = memory.stop();
    let disk = disk_bytes(&order.dir)?;
    let state = engine.session()?.scan(false)?;
    engine.close()?;
    let ops = timed.calls * ops_per_call;
    let one_by_one = !matches!(workload.work, Work::Scan | Work::Reverse);
    Ok(Outcome {
        cpu_us_per_op: cpu_timed.as_secs_f64() * 1e6 / ops as f64,
        cpu_settled_us_per_op: cpu_settled.as_secs_f64() * 1e6 / ops as f64,
        settle_ns,
        peak_anonymous_bytes: memory.anonymous_bytes,
        peak_mapped_bytes: memory.mapped_bytes,
        written_bytes: written,
        disk_bytes: disk,
        logical_bytes: data.logical_bytes(state.records),
        writer_ops_per_s,
        state_sum: state.sum,
        state_records: state.records,
        ..outcome(&timed, ops, one_by_one)
    })
}

fn outcome(timed: &Timed, ops: u64, latencies: bool) -> Outcome {
    let quantile = |q: f64| latencies.then(|| timed.latency_ns.value_at_quantile(q));
    Outcome {
        ops,
        elapsed_ns: nanos(timed.elapsed),
        ops_per_s: ops as f64 / timed.elapsed.as_secs_f64().max(1e-9),
        p50_ns: quantile(0.5),
        p99_ns: quantile(0.99),
        p999_ns: quantile(0.999),
        max_ns: quantile(1.0),
        sum: timed.sum,
        ..Outcome::default()
    }
}

/// One scan and n/10 gets: file pages, page tables and the store's own caches are then as warm as they get.
fn warm_up(engine: &dyn Engine, data: &Data) -> Result<()> {
    let mut session = engine.session()?;
    session.scan(false)?;
    for i in 0..data.n / 10 {
        get(&mut *session, data.key(data.uniform(!i)))?;
    }
    Ok(())
}

/// Runs the timed phase; with it, how many operations a call counts for.
fn measure(
    engine: &dyn Engine,
    workload: Workload,
    data: &Data,
    zipfian: &Zipfian,
    writer_ops_per_s: &mut Option<f64>,
) -> Result<(u64, Timed)> {
    let (threads, n) = (workload.threads, data.n);
    let calls = |calls: u64, work: &(dyn Fn(&mut dyn Session, u64) -> Result<u64> + Sync)| {
        timed(engine, threads, calls, work).map(|timed| (1, timed))
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
            let mut timed = timed(engine, threads, n.div_ceil(BATCH_RECORDS), |session, batch| {
                put_batch(session, data, batch)?;
                Ok(0)
            })?;
            timed.calls = n;
            Ok((1, timed))
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
            let (_, timed) = calls((n / KEYS).max(1), &|session, i| {
                let keys: [Key; 64] = std::array::from_fn(|at| data.key(data.uniform(i * KEYS + at as u64)));
                Ok(session.multi_get(&keys)?.sum)
            })?;
            Ok((KEYS, timed))
        }
        Work::SeekRandom => calls((n / 4).max(1), &|session, i| {
            Ok(session.seek(data.key(data.uniform(i)).as_ref(), 11)?.sum)
        }),
        Work::Scan | Work::Reverse => {
            let reverse = workload.work == Work::Reverse;
            let (_, mut timed) = calls(1, &|session, _| Ok(session.scan(reverse)?.sum))?;
            timed.calls = n;
            Ok((1, timed))
        }
        Work::SeekDeleted => calls(11, &|session, _| {
            Ok(session.seek(data.key(n / 4).as_ref(), 1)?.sum)
        }),
        Work::ReadWhileWriting => {
            let (timed, writer) = read_while_writing(engine, data)?;
            *writer_ops_per_s = Some(writer);
            Ok((1, timed))
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

fn open_clean(kind: &EngineKind, order: &Order, data: &Data) -> Result<Outcome> {
    const OPENS: u64 = 5;
    let (mut latency_ns, mut sum, mut elapsed) = (histogram()?, 0_u64, std::time::Duration::ZERO);
    let memory = MemorySampler::start();
    let cpu_before = cpu();
    for i in 0..OPENS {
        let begun = Instant::now();
        let engine = (kind.open)(&order.dir, Survives::Process)?;
        sum = sum.wrapping_add(get(&mut *engine.session()?, data.key(data.uniform(i)))?);
        let took = begun.elapsed();
        latency_ns.saturating_record(nanos(took));
        elapsed += took;
        engine.close()?;
    }
    let timed = Timed {
        calls: OPENS,
        elapsed,
        latency_ns,
        sum,
    };
    let cpu_us_per_op = (cpu() - cpu_before).as_secs_f64() * 1e6 / OPENS as f64;
    let peak = memory.stop();
    Ok(Outcome {
        cpu_us_per_op,
        cpu_settled_us_per_op: cpu_us_per_op,
        peak_anonymous_bytes: peak.anonymous_bytes,
        peak_mapped_bytes: peak.mapped_bytes,
        disk_bytes: disk_bytes(&order.dir)?,
        logical_bytes: data.logical_bytes(data.n),
        ..outcome(&timed, OPENS, true)
    })
}

fn open_killed(kind: &EngineKind, order: &Order, data: &Data) -> Result<Outcome> {
    let (memory, mut latency_ns) = (MemorySampler::start(), histogram()?);
    let (cpu_before, written_before) = (cpu(), written_bytes());
    let begun = Instant::now();
    let engine = (kind.open)(&order.dir, Survives::Process)?;
    let sum = get(&mut *engine.session()?, data.key(data.shuffled(0)))?;
    let elapsed = begun.elapsed();
    latency_ns.saturating_record(nanos(elapsed));
    let cpu_timed = cpu() - cpu_before;
    let settling = Instant::now();
    engine.settle()?;
    let settle_ns = nanos(settling.elapsed());
    let cpu_settled = cpu() - cpu_before;
    let peak = memory.stop();
    let state = engine.session()?.scan(false)?;
    if state.records != killed_records(data) {
        let (found, written) = (state.records, killed_records(data));
        return Err(format!("{found} of {written} acknowledged records survived the kill").into());
    }
    let disk = disk_bytes(&order.dir)?;
    engine.close()?;
    Ok(Outcome {
        cpu_us_per_op: cpu_timed.as_secs_f64() * 1e6,
        cpu_settled_us_per_op: cpu_settled.as_secs_f64() * 1e6,
        settle_ns,
        peak_anonymous_bytes: peak.anonymous_bytes,
        peak_mapped_bytes: peak.mapped_bytes,
        written_bytes: written_bytes()
            .zip(written_before)
            .map(|(after, before)| after.saturating_sub(before)),
        disk_bytes: disk,
        logical_bytes: data.logical_bytes(state.records),
        state_sum: state.sum,
        state_records: state.records,
        ..outcome(
            &Timed {
                calls: 1,
                elapsed,
                latency_ns,
                sum,
            },
            1,
            true,
        )
    })
}
