//! Opening a store, which is measured on its own.

use std::time::{Duration, Instant};

use crate::child::{Order, Outcome, get, killed_records, outcome};
use crate::data::Data;
use crate::engine::{EngineKind, Result};
use crate::measure::{DeviceBytes, MemorySampler, Timed, cpu, disk_bytes, histogram, nanos};
use crate::timeline::Timeline;

/// Opens after a clean close.
pub(super) fn open_clean(kind: &EngineKind, order: &Order, data: &Data) -> Result<Outcome> {
    const OPENS: u64 = 5;
    let (mut latency_ns, mut sum, mut elapsed) = (histogram()?, 0_u64, Duration::ZERO);
    let memory = MemorySampler::start();
    let cpu_before = cpu();
    for i in 0..OPENS {
        let begun = Instant::now();
        let engine = (kind.open)(&order.dir, &order.setup())?;
        sum = sum.wrapping_add(get(&mut *engine.session()?, data.key(data.uniform(i)))?);
        let took = begun.elapsed();
        latency_ns.saturating_record(nanos(took));
        elapsed += took;
        engine.close()?;
    }
    let timed = Timed {
        ops: OPENS,
        elapsed,
        latency_ns,
        timeline: Timeline::default(),
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
        ..outcome(&timed, true)
    })
}

/// Opens after a kill, and fails if an acknowledged record is gone.
pub(super) fn open_killed(kind: &EngineKind, order: &Order, data: &Data) -> Result<Outcome> {
    let (memory, mut latency_ns) = (MemorySampler::start(), histogram()?);
    let (cpu_before, device_before) = (cpu(), DeviceBytes::now());
    let begun = Instant::now();
    let engine = (kind.open)(&order.dir, &order.setup())?;
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
    let (disk, device) = (disk_bytes(&order.dir)?, DeviceBytes::now());
    engine.close()?;
    Ok(Outcome {
        cpu_us_per_op: cpu_timed.as_secs_f64() * 1e6,
        cpu_settled_us_per_op: cpu_settled.as_secs_f64() * 1e6,
        settle_ns,
        peak_anonymous_bytes: peak.anonymous_bytes,
        peak_mapped_bytes: peak.mapped_bytes,
        written_bytes: device.written_since(&device_before),
        read_bytes: device.read_since(&device_before),
        disk_bytes: disk,
        logical_bytes: data.logical_bytes(state.records),
        state_sum: state.sum,
        state_records: state.records,
        ..outcome(
            &Timed {
                ops: 1,
                elapsed,
                latency_ns,
                timeline: Timeline::default(),
                sum,
            },
            true,
        )
    })
}
