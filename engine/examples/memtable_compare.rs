//! The memtable beside other ordered maps in memory: what an insert, a read and a step of a scan cost, and how much
//! memory an entry takes. `docs/notes/0002-memtable.md` keeps the figures.
//!
//! ```text
//! cargo run --release -p siltstone --example memtable_compare [entries]
//! ```
//!
//! Every map gets the same entries (16-byte random keys, 100-byte values, each with a seqno) in the same order; then a
//! second one of its kind gets keys that share their first eight bytes. The maps take turns within each of three
//! rounds; the table shows medians over the rounds, in nanoseconds of the inserting or reading thread.
#![allow(missing_docs, unreachable_pub, dead_code)] // The crate's private module, compiled into an example.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::RwLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use crossbeam_skiplist::SkipMap;
use siltstone_sstable::{InternalIterator, InternalKey, SeqNo, Tag, ValueKind, key_hash};

#[path = "../src/memtable/mod.rs"]
mod memtable;
#[path = "../src/sync.rs"]
#[expect(unused_imports, reason = "not only the memtable is made of it")]
mod sync;

use memtable::Memtable;

const ROUNDS: usize = 3;
const VALUE: [u8; 100] = [7; 100];

/// Counts what is allocated: the one measure of memory that is the same for all maps.
struct Counting;

static HEAP_BYTES: AtomicI64 = AtomicI64::new(0);

fn signed(size: usize) -> i64 {
    i64::try_from(size).expect("a Layout is at most isize::MAX bytes")
}

#[allow(unsafe_code)] // What an allocator is made of.
// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HEAP_BYTES.fetch_add(signed(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's promises are the callee's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HEAP_BYTES.fetch_sub(signed(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's promises are the callee's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Key = [u8; 16];

/// What is asked of each map.
trait Map: Sync {
    fn name(&self) -> &'static str;
    fn insert(&self, key: &[u8], seqno: u64);
    /// The length of the newest value of a key, 0 for none.
    fn get(&self, key: &[u8]) -> usize;
    /// A cursor's seek: the length of the first value at or behind a key.
    fn seek(&self, key: &[u8]) -> usize;
    /// Walks over everything and returns a sum of what it met.
    fn scan(&self) -> u64;
    fn scan_back(&self) -> u64;
    /// Bytes that it has taken from the system itself, beside the allocator.
    fn mapped_bytes(&self) -> u64 {
        0
    }
}

fn put(seqno: u64) -> Tag {
    Tag::new(SeqNo(seqno), ValueKind::Put)
}

/// Reads a little of an entry, as a flush or a cursor would.
fn touch(key: &[u8], value: &[u8]) -> u64 {
    u64::from(key[0]) + u64::from(value[0])
}

impl Map for Arc<Memtable> {
    fn name(&self) -> &'static str {
        "memtable"
    }
    fn insert(&self, key: &[u8], seqno: u64) {
        Memtable::insert(self, InternalKey::new(key, put(seqno)), &VALUE);
    }
    fn get(&self, key: &[u8]) -> usize {
        Memtable::get(self, key, key_hash(key), SeqNo::MAX).map_or(0, |(_, value)| value.len())
    }
    fn seek(&self, key: &[u8]) -> usize {
        let mut iter = self.iter();
        iter.seek(InternalKey::new(key, Tag::FIRST))
            .expect("does not fail");
        iter.value().len()
    }
    fn scan(&self) -> u64 {
        let (mut iter, mut sum) = (self.iter(), 0);
        iter.seek_to_first().expect("does not fail");
        while iter.valid() {
            sum += touch(iter.user_key(), iter.value());
            iter.next().expect("does not fail");
        }
        sum
    }
    fn scan_back(&self) -> u64 {
        let (mut iter, mut sum) = (self.iter(), 0);
        iter.seek_to_last().expect("does not fail");
        while iter.valid() {
            sum += touch(iter.user_key(), iter.value());
            iter.prev().expect("does not fail");
        }
        sum
    }
    fn mapped_bytes(&self) -> u64 {
        self.bytes_used()
    }
}

type Owned = (Vec<u8>, Reverse<u64>);

fn owned(key: &[u8], seqno: u64) -> Owned {
    (key.to_vec(), Reverse(put(seqno).bits()))
}

fn newest(key: &[u8]) -> Owned {
    (key.to_vec(), Reverse(Tag::FIRST.bits()))
}

impl Map for SkipMap<Owned, Vec<u8>> {
    fn name(&self) -> &'static str {
        "crossbeam-skiplist"
    }
    fn insert(&self, key: &[u8], seqno: u64) {
        SkipMap::insert(self, owned(key, seqno), VALUE.to_vec());
    }
    fn get(&self, key: &[u8]) -> usize {
        self.lower_bound(Bound::Included(&newest(key)))
            .filter(|entry| entry.key().0 == key)
            .map_or(0, |entry| entry.value().len())
    }
    fn seek(&self, key: &[u8]) -> usize {
        self.lower_bound(Bound::Included(&newest(key)))
            .map_or(0, |entry| entry.value().len())
    }
    fn scan(&self) -> u64 {
        self.iter()
            .map(|entry| touch(&entry.key().0, entry.value()))
            .sum()
    }
    fn scan_back(&self) -> u64 {
        self.iter()
            .rev()
            .map(|entry| touch(&entry.key().0, entry.value()))
            .sum()
    }
}

impl Map for RwLock<BTreeMap<Owned, Vec<u8>>> {
    fn name(&self) -> &'static str {
        "RwLock<BTreeMap>"
    }
    fn insert(&self, key: &[u8], seqno: u64) {
        self.write()
            .expect("no panic")
            .insert(owned(key, seqno), VALUE.to_vec());
    }
    fn get(&self, key: &[u8]) -> usize {
        let map = self.read().expect("no panic");
        let first = map.range(newest(key)..).next();
        first
            .filter(|((found, _), _)| found == key)
            .map_or(0, |(_, value)| value.len())
    }
    fn seek(&self, key: &[u8]) -> usize {
        let map = self.read().expect("no panic");
        map.range(newest(key)..)
            .next()
            .map_or(0, |(_, value)| value.len())
    }
    fn scan(&self) -> u64 {
        self.read()
            .expect("no panic")
            .iter()
            .map(|((key, _), value)| touch(key, value))
            .sum()
    }
    fn scan_back(&self) -> u64 {
        self.read()
            .expect("no panic")
            .iter()
            .rev()
            .map(|((key, _), value)| touch(key, value))
            .sum()
    }
}

/// The finalizer of splitmix64.
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The same keys with their first eight bytes behind eight that all share.
fn with_shared_prefix(keys: &[Key]) -> Vec<Key> {
    let mut shared = keys.to_vec();
    for key in &mut shared {
        key.copy_within(..8, 8);
        key[..8].copy_from_slice(b"user:000");
    }
    shared
}

fn random_keys(count: u64) -> Vec<Key> {
    (0..count)
        .map(|i| {
            let mut key = Key::default();
            key[..8].copy_from_slice(&mix(2 * i + 1).to_be_bytes());
            key[8..].copy_from_slice(&i.to_be_bytes());
            key
        })
        .collect()
}

/// A clock in nanoseconds: the time this thread has run, where Linux tells, so that a busy machine does not count;
/// else the time of day.
fn thread_ns(start: Instant) -> f64 {
    let schedule = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ran = schedule
        .as_deref()
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    ran.unwrap_or_else(|| start.elapsed().as_secs_f64() * 1e9)
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("counts and sizes here are below 4 G"))
}

/// What each of `count` steps costs this thread.
fn ns_each(count: usize, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    let before = thread_ns(start);
    work();
    (thread_ns(start) - before) / number(count)
}

const COLUMNS: [&str; 10] = [
    "insert",
    "get",
    "seek",
    "scan",
    "scan back",
    "B an entry",
    "insert by 2 threads",
    "insert sorted",
    "insert, shared prefix",
    "get, shared prefix",
];

fn fill(map: &dyn Map, keys: &[Key], seqno: u64) {
    for (key, seqno) in keys.iter().zip(seqno..) {
        map.insert(key, seqno);
    }
}

fn get_all(map: &dyn Map, reads: &[Key]) {
    assert!(
        reads.iter().all(|key| map.get(key) == VALUE.len()),
        "every key is there"
    );
}

/// `keys` fill the map, two threads add `more` to it; `more` in order fills another one, `keys` behind a prefix a third.
fn measure(
    new: &dyn Fn() -> Box<dyn Map>,
    keys: &[Key],
    more: &[Key],
    reads: &[Key],
) -> [f64; COLUMNS.len()] {
    let heap_bytes = HEAP_BYTES.load(Ordering::Relaxed);
    let map = new();
    let insert = ns_each(keys.len(), || fill(&*map, keys, 1));
    let heap_bytes = HEAP_BYTES.load(Ordering::Relaxed) - heap_bytes;
    let taken_bytes = u64::try_from(heap_bytes).expect("grew") + map.mapped_bytes();
    let entry_bytes = number(usize::try_from(taken_bytes).expect("fits into memory")) / number(keys.len());
    let get = ns_each(reads.len(), || get_all(&*map, reads));
    let seek = ns_each(reads.len(), || {
        assert!(
            reads.iter().all(|key| map.seek(key) == VALUE.len()),
            "every key is there"
        );
    });
    let scan = ns_each(keys.len(), || {
        black_box(map.scan());
    });
    let scan_back = ns_each(keys.len(), || {
        black_box(map.scan_back());
    });
    // What one insert costs its thread while another one inserts as well.
    let (front, back) = more.split_at(more.len() / 2);
    let insert_by_2 = std::thread::scope(|scope| {
        let other = scope.spawn(|| ns_each(front.len(), || fill(&*map, front, 1 << 40)));
        let this = ns_each(back.len(), || fill(&*map, back, 1 << 41));
        f64::midpoint(this, other.join().expect("no panic"))
    });
    drop(map);

    let map = new();
    let mut sorted = more.to_vec();
    sorted.sort_unstable();
    let insert_sorted = ns_each(sorted.len(), || fill(&*map, &sorted, 1));
    drop(map);

    let map = new();
    let (keys, reads) = (with_shared_prefix(keys), with_shared_prefix(reads));
    let insert_shared = ns_each(keys.len(), || fill(&*map, &keys, 1));
    let get_shared = ns_each(reads.len(), || get_all(&*map, &reads));
    [
        insert,
        get,
        seek,
        scan,
        scan_back,
        entry_bytes,
        insert_by_2,
        insert_sorted,
        insert_shared,
        get_shared,
    ]
}

fn main() {
    let count = std::env::args()
        .nth(1)
        .map_or(1_000_000, |count| count.parse().expect("a number of entries"));
    let keys = random_keys(count + count / 4);
    let (keys, more) = keys.split_at(usize::try_from(count).expect("counts fit"));
    let mut reads: Vec<(u64, Key)> = keys
        .iter()
        .enumerate()
        .map(|(i, &key)| (mix(i as u64), key))
        .collect();
    reads.sort_unstable();
    let reads: Vec<Key> = reads.into_iter().take(200_000).map(|(_, key)| key).collect();

    let maps: [&dyn Fn() -> Box<dyn Map>; 3] = [
        &|| Box::new(Arc::new(Memtable::new(2 << 20, 1 << 20, Arc::default()))),
        &|| Box::new(SkipMap::<Owned, Vec<u8>>::new()),
        &|| Box::new(RwLock::new(BTreeMap::<Owned, Vec<u8>>::new())),
    ];
    let mut results = maps.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (new, results) in maps.iter().zip(&mut results) {
            results.push(measure(*new, keys, more, &reads));
        }
    }

    println!(
        "{count} entries of 16 + {} bytes, random; ns each, medians of {ROUNDS} rounds\n",
        VALUE.len()
    );
    println!(
        "| | {} |\n|---|{}",
        COLUMNS.join(" | "),
        "---:|".repeat(COLUMNS.len())
    );
    for (new, results) in maps.iter().zip(&results) {
        print!("| {} |", new().name());
        for column in 0..COLUMNS.len() {
            let mut values: Vec<f64> = results.iter().map(|result| result[column]).collect();
            values.sort_by(f64::total_cmp);
            print!(" {:.0} |", values[ROUNDS / 2]);
        }
        println!();
    }
}
