//! What a child process does: one engine, one workload, once.

mod open;
mod work;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::cold::{self, Cold};
use crate::data::{Data, Key, Zipfian};
use crate::engine::{Engine, EngineKind, Reads, Result, Seen, Session, Setup, Survives, engine_named};
use crate::measure::{DeviceBytes, MemorySampler, Timed, cpu, disk_bytes, nanos};
use crate::timeline::Timeline;
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
    pub(crate) compress: bool,
    pub(crate) dir: PathBuf,
    /// For the runs of cold workloads only.
    pub(crate) cold: Option<Cold>,
}

impl Order {
    /// What the store is opened for, but for loading.
    fn setup(&self) -> Setup {
        Setup {
            survives: self.workload.survives(),
            compress: self.compress,
            reads: match &self.cold {
                None => Reads::Warm,
                Some(cold) if self.workload.is_one_call() => Reads::ColdScan(cold.memory_bytes),
                Some(cold) => Reads::ColdRandom(cold.memory_bytes),
            },
        }
    }

    /// As `setup`, for records that need not survive power loss yet.
    fn setup_to_load(&self) -> Setup {
        Setup {
            survives: Survives::Process,
            ..self.setup()
        }
    }
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

/// The cache state of a run that is not cold.
pub(crate) const WARM: &str = "warm";

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
    /// Per cent of the calls, and the nanoseconds that none of them took longer than.
    pub(crate) latency_percentiles_ns: Option<Vec<(f64, u64)>>,
    pub(crate) timeline: Option<Timeline>,
    /// Warm, or how cold.
    pub(crate) cache_state: String,
    /// CPU of the timed phase, all threads of the store included.
    pub(crate) cpu_us_per_op: f64,
    /// The same with flushing and compacting what was written.
    pub(crate) cpu_settled_us_per_op: f64,
    pub(crate) settle_ns: u64,
    pub(crate) peak_anonymous_bytes: u64,
    pub(crate) peak_mapped_bytes: u64,
    /// From the start of the timed phase until settled; `None` where the kernel does not say.
    pub(crate) written_bytes: Option<u64>,
    /// Likewise.
    pub(crate) read_bytes: Option<u64>,
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
    let data = Data::new(order.n, order.value_bytes, order.key_prefix_bytes, order.compress);
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
    let engine = (kind.open)(&order.dir, &order.setup_to_load())?;
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
    let engine = (kind.open)(&order.dir, &order.setup_to_load())?;
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
        Work::OpenClean => return open::open_clean(kind, order, data),
        Work::OpenKilled => return open::open_killed(kind, order, data),
        _ => {}
    }
    let cache_state = match &order.cold {
        Some(cold) => cold::prepare(cold, &order.dir)?,
        None => WARM.to_owned(),
    };
    let engine = match workload.ground() {
        Ground::Own => load(kind, order, data)?,
        Ground::Empty | Ground::Shared | Ground::Killed => (kind.open)(&order.dir, &order.setup())?,
    };
    if workload.ground() != Ground::Empty && !workload.is_cold() {
        warm_up(&*engine, data)?;
    }
    match workload.work {
        Work::ReadUnsettled => {
            let mut session = engine.session()?;
            for i in 0..data.n {
                put(&mut *session, data, data.shuffled(i), 0)?;
            }
        }
        Work::SeekDeleted | Work::ScanDeleted => {
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
    let (cpu_before, device_before) = (cpu(), DeviceBytes::now());
    let mut writer_ops_per_s = None;
    let timed = work::measure(&*engine, workload, data, &zipfian, &mut writer_ops_per_s)?;
    let cpu_timed = cpu() - cpu_before;
    let settling = Instant::now();
    engine.settle()?;
    let settle_ns = nanos(settling.elapsed());
    let cpu_settled = cpu() - cpu_before;
    let device = DeviceBytes::now();
    let memory = memory.stop();
    let disk = disk_bytes(&order.dir)?;
    // A cold run changes nothing and its sum covers what it read; a whole scan could take longer than the run.
    let state = match order.cold {
        Some(_) => Seen {
            records: data.n,
            sum: 0,
        },
        None => engine.session()?.scan(false)?,
    };
    engine.close()?;
    let ops = timed.ops as f64;
    Ok(Outcome {
        cache_state,
        cpu_us_per_op: cpu_timed.as_secs_f64() * 1e6 / ops,
        cpu_settled_us_per_op: cpu_settled.as_secs_f64() * 1e6 / ops,
        settle_ns,
        peak_anonymous_bytes: memory.anonymous_bytes,
        peak_mapped_bytes: memory.mapped_bytes,
        written_bytes: device.written_since(&device_before),
        read_bytes: device.read_since(&device_before),
        disk_bytes: disk,
        logical_bytes: data.logical_bytes(state.records),
        writer_ops_per_s,
        state_sum: state.sum,
        state_records: state.records,
        ..outcome(&timed, !workload.is_one_call())
    })
}

/// Per cent for the latency plot: even steps near the middle, even steps of the logarithm towards the end.
const PERCENTILES: [f64; 18] = [
    0.0, 1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 80.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 99.95, 99.99, 99.999,
    100.0,
];

/// Calls below which there is no distribution to draw.
const CALLS_TO_DRAW_MIN: u64 = 100;

/// What the timed phase gave.
fn outcome(timed: &Timed, latencies: bool) -> Outcome {
    let quantile = |q: f64| latencies.then(|| timed.latency_ns.value_at_quantile(q));
    let drawn = latencies && timed.latency_ns.len() >= CALLS_TO_DRAW_MIN;
    Outcome {
        ops: timed.ops,
        elapsed_ns: nanos(timed.elapsed),
        ops_per_s: timed.ops as f64 / timed.elapsed.as_secs_f64().max(1e-9),
        p50_ns: quantile(0.5),
        p99_ns: quantile(0.99),
        p999_ns: quantile(0.999),
        max_ns: quantile(1.0),
        latency_percentiles_ns: drawn.then(|| {
            PERCENTILES
                .iter()
                .map(|at| (*at, timed.latency_ns.value_at_quantile(at / 100.0)))
                .collect()
        }),
        timeline: drawn.then(|| timed.timeline.clone()),
        cache_state: WARM.to_owned(),
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
