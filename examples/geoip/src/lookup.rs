//! Looking addresses up, and checking every answer.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use siltstone::{Cursor, Db};

use crate::Result;
use crate::entry;
use crate::reference::Reference;
use crate::source::{Country, Range, after, before};

/// Lookups after which a thread makes its cursor anew: a cursor pins the tables that it sees, so one that is kept
/// would keep the files that compaction makes obsolete.
const LOOKUPS_A_CURSOR: usize = 4096;
/// Addresses that are drawn and answered by the reference before the database is asked, so that the reference's
/// cache misses are not timed with it.
const PROBES_A_ROUND: usize = 256;
/// Wrong answers that are kept in full; the others are counted.
const WRONG_KEPT: usize = 10;
/// Lookups longer than this are recorded as this long.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// A wrong answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) stage: &'static str,
    pub(crate) address: IpAddr,
    pub(crate) expected: String,
    pub(crate) found: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Wrong {
            stage,
            address,
            expected,
            found,
        } = self;
        write!(
            f,
            "WRONG ANSWER for {address} ({stage}): expected {expected}, found {found}"
        )
    }
}

/// How many answers were checked, and which were wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checked {
    pub(crate) lookups: u64,
    pub(crate) wrong: u64,
    pub(crate) first_wrong: Vec<Wrong>,
}

impl Checked {
    /// Counts one answer and compares it.
    fn answer(
        &mut self,
        stage: &'static str,
        address: IpAddr,
        expected: Option<Country>,
        found: Option<Country>,
    ) {
        self.lookups += 1;
        if found != expected {
            let text =
                |country: Option<Country>| country.map_or("nothing".to_owned(), |found| found.to_string());
            self.note(Wrong {
                stage,
                address,
                expected: text(expected),
                found: text(found),
            });
        }
    }

    fn note(&mut self, wrong: Wrong) {
        self.wrong += 1;
        if self.first_wrong.len() < WRONG_KEPT {
            self.first_wrong.push(wrong);
        }
    }

    /// Adds what was checked elsewhere.
    pub(crate) fn add(&mut self, other: Checked) {
        self.lookups += other.lookups;
        self.wrong += other.wrong;
        let room = WRONG_KEPT.saturating_sub(self.first_wrong.len());
        self.first_wrong.extend(other.first_wrong.into_iter().take(room));
    }
}

/// How fast lookups were.
#[derive(Clone, Debug)]
pub(crate) struct Speed {
    pub(crate) threads: usize,
    /// From the start of the first thread to the end of the last, with drawing addresses and checking answers.
    pub(crate) wall: Duration,
    /// Time in lookups alone, summed over threads.
    pub(crate) in_lookups: Duration,
    /// Nanoseconds of each lookup, with the two readings of the clock around it.
    pub(crate) latency_ns: Histogram<u64>,
}

/// The country of an address, from the database.
fn find(cursor: &mut Cursor, address: IpAddr) -> Result<Option<Country>> {
    let looked = cursor.seek_for_prev(entry::key(address));
    looked.map_err(|error| format!("looking up {address}: {error}"))?;
    if !cursor.valid() {
        return Ok(None);
    }
    let range = entry::decode(cursor.key(), cursor.value()).ok_or_else(|| {
        format!(
            "looking up {address}: key {:02x?} with value {:02x?} is no range that was loaded",
            cursor.key(),
            cursor.value()
        )
    })?;
    if range.start > address {
        return Err(format!("looking up {address}: the entry at or before it is {range}").into());
    }
    Ok((range.end >= address).then_some(range.country))
}

/// Looks up the start, the middle and the end of each of `ranges`, and the addresses one before and one after it, and
/// checks the answers against `reference`. The work is shared by `threads`.
pub(crate) fn every_range(
    db: &Db,
    ranges: &[Range],
    reference: &Reference,
    stage: &'static str,
    threads: usize,
) -> Result<Checked> {
    let part = ranges.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = ranges
            .chunks(part)
            .map(|ranges| scope.spawn(move || ranges_of_one_thread(db, ranges, reference, stage)))
            .collect();
        let mut all = Checked::default();
        for part in parts {
            all.add(part.join().map_err(|_| "a lookup thread panicked")??);
        }
        Ok(all)
    })
}

fn ranges_of_one_thread(
    db: &Db,
    ranges: &[Range],
    reference: &Reference,
    stage: &'static str,
) -> Result<Checked> {
    let mut cursor = db.cursor::<&[u8]>(..)?;
    let mut checked = Checked::default();
    for range in ranges {
        let inside = [range.start, middle(range), range.end];
        let outside = [before(range.start), after(range.end)];
        for address in inside.into_iter().chain(outside.into_iter().flatten()) {
            let found = find(&mut cursor, address)?;
            checked.answer(stage, address, reference.country(address), found);
        }
    }
    Ok(checked)
}

/// Walks the whole database, and checks that it holds the ranges of `reference`, all of them and no others.
pub(crate) fn whole_scan(db: &Db, reference: &Reference, stage: &'static str) -> Result<(u64, Checked)> {
    let mut cursor = db.cursor::<&[u8]>(..)?;
    cursor.first()?;
    let (mut entries, mut checked) = (0, Checked::default());
    let mut expected = reference.ranges().iter();
    loop {
        let found = if cursor.valid() {
            let range = entry::decode(cursor.key(), cursor.value());
            Some(range.ok_or_else(|| format!("key {:02x?} holds no range that was loaded", cursor.key()))?)
        } else {
            None
        };
        let expected = expected.next();
        let Some(address) = found.as_ref().or(expected).map(|range| range.start) else {
            return Ok((entries, checked));
        };
        if found.as_ref() != expected {
            let text = |range: Option<&Range>| range.map_or("the end".to_owned(), Range::to_string);
            let (expected, found) = (text(expected), text(found.as_ref()));
            // What follows is only shifted.
            checked.note(Wrong {
                stage,
                address,
                expected,
                found,
            });
            return Ok((entries, checked));
        }
        entries += 1;
        cursor.next()?;
    }
}

/// Looks random addresses up on `threads` threads until `duration` is over and `may_end` is set, and checks every
/// answer.
pub(crate) fn random(
    db: &Db,
    reference: &Reference,
    stage: &'static str,
    threads: usize,
    seed: u64,
    duration: Duration,
    may_end: &AtomicBool,
) -> Result<(Checked, Speed)> {
    let begin = Instant::now();
    let ends = || begin.elapsed() >= duration && may_end.load(Ordering::Acquire);
    std::thread::scope(|scope| {
        let lookers: Vec<_> = (0..threads)
            .map(|thread| {
                let ends = &ends;
                // Threads of one seed must not draw the same addresses.
                let rng = SmallRng::seed_from_u64(seed ^ (thread as u64).rotate_right(8));
                scope.spawn(move || random_of_one_thread(db, reference, stage, rng, ends))
            })
            .collect();
        let mut all = Checked::default();
        let mut speed = Speed {
            threads,
            wall: Duration::ZERO,
            in_lookups: Duration::ZERO,
            latency_ns: histogram()?,
        };
        for looker in lookers {
            let (checked, in_lookups, latency_ns) =
                looker.join().map_err(|_| "a lookup thread panicked")??;
            all.add(checked);
            speed.in_lookups += in_lookups;
            speed.latency_ns.add(latency_ns)?;
        }
        speed.wall = begin.elapsed();
        Ok((all, speed))
    })
}

fn random_of_one_thread(
    db: &Db,
    reference: &Reference,
    stage: &'static str,
    mut rng: SmallRng,
    ends: &impl Fn() -> bool,
) -> Result<(Checked, Duration, Histogram<u64>)> {
    let mut checked = Checked::default();
    let mut in_lookups = Duration::ZERO;
    let mut latency_ns = histogram()?;
    let mut cursor = db.cursor::<&[u8]>(..)?;
    let mut lookups = 0;
    let mut probes = Vec::with_capacity(PROBES_A_ROUND);
    while !ends() {
        probes.clear();
        probes.extend((0..PROBES_A_ROUND).map(|_| {
            let address = draw(&mut rng, reference.ranges());
            (address, reference.country(address))
        }));
        for (address, expected) in &probes {
            let begin = Instant::now();
            // The lookup that has to make the cursor anew pays for it.
            lookups += 1;
            if lookups % LOOKUPS_A_CURSOR == 0 {
                cursor = db.cursor::<&[u8]>(..)?;
            }
            let found = find(&mut cursor, *address)?;
            let took = begin.elapsed();
            in_lookups += took;
            latency_ns.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(LATENCY_MAX_NS));
            checked.answer(stage, *address, *expected, found);
        }
    }
    Ok((checked, in_lookups, latency_ns))
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3)?)
}

/// Half of the addresses lie anywhere in a range, the others at its edges, just outside of it, or anywhere at all.
fn draw(rng: &mut SmallRng, ranges: &[Range]) -> IpAddr {
    let range = &ranges[rng.random_range(0..ranges.len())];
    match rng.random_range(0..10) {
        0..5 => inside(rng, range),
        5 => range.start,
        6 => range.end,
        7 => after(range.end).unwrap_or(range.end),
        8 => before(range.start).unwrap_or(range.start),
        _ if range.start.is_ipv4() => IpAddr::from(rng.random::<u32>().to_be_bytes()),
        _ => IpAddr::from(rng.random::<u128>().to_be_bytes()),
    }
}

fn inside(rng: &mut SmallRng, range: &Range) -> IpAddr {
    match (range.start, range.end) {
        (IpAddr::V4(start), IpAddr::V4(end)) => {
            IpAddr::from(rng.random_range(start.to_bits()..=end.to_bits()).to_be_bytes())
        }
        (IpAddr::V6(start), IpAddr::V6(end)) => {
            IpAddr::from(rng.random_range(start.to_bits()..=end.to_bits()).to_be_bytes())
        }
        (start, _) => start,
    }
}

fn middle(range: &Range) -> IpAddr {
    match (range.start, range.end) {
        (IpAddr::V4(start), IpAddr::V4(end)) => {
            IpAddr::from(start.to_bits().midpoint(end.to_bits()).to_be_bytes())
        }
        (IpAddr::V6(start), IpAddr::V6(end)) => {
            IpAddr::from(start.to_bits().midpoint(end.to_bits()).to_be_bytes())
        }
        (start, _) => start,
    }
}
