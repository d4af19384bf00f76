//! Options drawn from a seed: small sizes, so that everything that can happen happens soon.

use std::str::FromStr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use siltstone::{Compression, Durability, FilterKind, KeyspaceOptions, LEVELS, LogIo, Options};

/// A group of options that can be left at their defaults together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionGroup {
    /// Segments, how they are written, and how much of them is kept.
    Log,
    /// The durability of writes that do not say theirs.
    Durability,
    /// The block cache.
    Cache,
    /// The reserve for a full disk.
    Reserve,
    /// The limit on mapped tables.
    Mapping,
    /// Size and number of memtables.
    Memtable,
    /// The size of blocks.
    Block,
    /// Compression.
    Compression,
    /// Filters.
    Filter,
    /// The shape of the levels.
    Levels,
    /// How many threads there are for background work, and so how many parts a job is written in.
    Threads,
}

impl OptionGroup {
    /// All there are.
    pub const ALL: [OptionGroup; 11] = [
        OptionGroup::Log,
        OptionGroup::Durability,
        OptionGroup::Cache,
        OptionGroup::Reserve,
        OptionGroup::Mapping,
        OptionGroup::Memtable,
        OptionGroup::Block,
        OptionGroup::Compression,
        OptionGroup::Filter,
        OptionGroup::Levels,
        OptionGroup::Threads,
    ];

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            OptionGroup::Log => "log",
            OptionGroup::Durability => "durability",
            OptionGroup::Cache => "cache",
            OptionGroup::Reserve => "reserve",
            OptionGroup::Mapping => "mapping",
            OptionGroup::Memtable => "memtable",
            OptionGroup::Block => "block",
            OptionGroup::Compression => "compression",
            OptionGroup::Filter => "filter",
            OptionGroup::Levels => "levels",
            OptionGroup::Threads => "threads",
        }
    }
}

impl FromStr for OptionGroup {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        all.find(|group| group.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("no group of options is called {name}; there are {names}")
        })
    }
}

/// Options of a database and its keyspaces, drawn from a seed.
///
/// ```
/// let options = siltstone_tests::RandomOptions::new(7);
/// let dir = tempfile::tempdir().unwrap();
/// options.options().open(dir.path()).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct RandomOptions {
    options: Options,
    durability: Durability,
    keyspaces: [KeyspaceOptions; 3],
    time_per_operation: Duration,
}

impl RandomOptions {
    /// The options of `seed`.
    pub fn new(seed: u64) -> Self {
        Self::with_defaults(seed, &[])
    }

    /// The options of `seed`, but for the groups that are `plain`: those are the engine's defaults.
    ///
    /// ```
    /// use siltstone_tests::{OptionGroup, RandomOptions};
    /// let plain = RandomOptions::with_defaults(7, &OptionGroup::ALL);
    /// assert_eq!(format!("{:?}", plain.options()), format!("{:?}", siltstone::Options::default()));
    /// ```
    pub fn with_defaults(seed: u64, plain: &[OptionGroup]) -> Self {
        // Everything is drawn either way, so that one group's default leaves the others as they are.
        let drawn = |group| !plain.contains(&group);
        let mut rng = StdRng::seed_from_u64(seed ^ 0x6f70_7469_6f6e_7300);
        let keyspaces = [(); 3].map(|()| Shape::draw(&mut rng).keyspace(drawn));
        let segment_bytes = pick(&mut rng, &[4 << 10, 4 << 10, 8 << 10, 16 << 10, 64 << 10]);
        let durability = pick(
            &mut rng,
            &[Durability::Buffered, Durability::Buffered, Durability::Sync],
        );
        let log_size_max_bytes = segment_bytes * pick(&mut rng, &[2, 4, 16]);
        let log_io = pick(&mut rng, &[LogIo::Mapped, LogIo::Write]);
        let cache = pick(&mut rng, &[0, 16 << 10, 1 << 20]);
        let reserve = pick(&mut rng, &[0, 0, 64 << 10]);
        let mapped = pick(&mut rng, &[0, 3, 1000]);
        let mut options = Shape::draw(&mut rng).database(drawn);
        let time_per_operation = Duration::from_millis(pick(&mut rng, &[25, 25, 0]));
        let threads = pick(&mut rng, &[2, 2, 3, 5]);
        if drawn(OptionGroup::Log) {
            options = options
                .log_segment_bytes(segment_bytes)
                .log_size_max_bytes(log_size_max_bytes)
                .log_io(log_io);
        }
        if drawn(OptionGroup::Threads) {
            options = options.background_threads(threads);
        }
        if drawn(OptionGroup::Cache) {
            options = options.block_cache_bytes(cache);
        }
        if drawn(OptionGroup::Reserve) {
            options = options.reserve_bytes(reserve);
        }
        if drawn(OptionGroup::Mapping) {
            options = options.mapped_tables_max(mapped);
        }
        let drawn = Self {
            options,
            durability: Durability::default(),
            keyspaces,
            time_per_operation,
        };
        if plain.contains(&OptionGroup::Durability) {
            drawn
        } else {
            drawn.durability(durability)
        }
    }

    /// The options of the database.
    pub fn options(&self) -> Options {
        self.options.clone()
    }

    /// The same with another default durability.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options = self.options.durability(durability);
        self.durability = durability;
        self
    }

    /// The same with all tables mapped: their reads cannot fail.
    #[must_use]
    pub fn mapped(mut self) -> Self {
        self.options = self.options.mapped_tables_max(1000);
        self
    }

    /// How far a manual clock goes on with each operation, where nothing fails: a good deal, or not at all. Then flushes come faster than compactions can follow, and level 0 puts off what it can.
    pub fn time_per_operation(&self) -> Duration {
        self.time_per_operation
    }

    /// Whether writes that do not say so are synced.
    pub fn is_sync(&self) -> bool {
        self.durability == Durability::Sync
    }

    /// The options of the keyspace called `name`; a few names share one set.
    pub fn keyspace(&self, name: &str) -> KeyspaceOptions {
        let n = name.bytes().map(usize::from).sum::<usize>() % self.keyspaces.len();
        self.keyspaces[n].clone()
    }
}

fn pick<T: Clone>(rng: &mut StdRng, choices: &[T]) -> T {
    choices[rng.random_range(0..choices.len())].clone()
}

fn random_compression(rng: &mut StdRng) -> [Compression; LEVELS] {
    let zstd = Compression::Zstd {
        level: rng.random_range(-3..=4),
    };
    match rng.random_range(0..3) {
        0 => [Compression::None; LEVELS],
        1 => [zstd; LEVELS],
        _ => {
            let from = rng.random_range(0..4);
            std::array::from_fn(|level| if level < from { Compression::None } else { zstd })
        }
    }
}

fn random_filter(rng: &mut StdRng) -> FilterKind {
    let bits_per_key = rng.random_range(1..=16);
    pick(
        rng,
        &[
            FilterKind::None,
            FilterKind::Standard { bits_per_key },
            FilterKind::Blocked { bits_per_key },
            FilterKind::HashIndex,
            FilterKind::Auto,
        ],
    )
}

/// What is drawn for a keyspace, the default one included.
struct Shape {
    memtable_size_bytes: u64,
    memtables_max: usize,
    block_size_bytes: usize,
    compression: [Compression; LEVELS],
    filter: FilterKind,
    l0_compaction_trigger: usize,
    l0_stall_tables: (usize, usize),
    level_base_bytes: u64,
    level_multiplier: u64,
    target_table_bytes: u64,
}

/// The same choices through two builders that have no type in common.
macro_rules! shaped {
    ($shape:expr, $options:expr, $drawn:expr) => {{
        let (shape, mut options, drawn) = ($shape, $options, $drawn);
        if drawn(OptionGroup::Memtable) {
            options = options
                .memtable_size_bytes(shape.memtable_size_bytes)
                .memtables_max(shape.memtables_max);
        }
        if drawn(OptionGroup::Block) {
            options = options.block_size_bytes(shape.block_size_bytes);
        }
        if drawn(OptionGroup::Compression) {
            options = options.compression_per_level(shape.compression);
        }
        if drawn(OptionGroup::Filter) {
            options = options.filter(shape.filter);
        }
        if drawn(OptionGroup::Levels) {
            options = options
                .l0_compaction_trigger(shape.l0_compaction_trigger)
                .l0_stall_tables(shape.l0_stall_tables.0, shape.l0_stall_tables.1)
                .level_base_bytes(shape.level_base_bytes)
                .level_multiplier(shape.level_multiplier)
                .target_table_bytes(shape.target_table_bytes);
        }
        options
    }};
}

impl Shape {
    fn draw(rng: &mut StdRng) -> Self {
        let trigger = rng.random_range(1..=4usize);
        let slowdown = trigger + rng.random_range(1..=8usize);
        Self {
            compression: random_compression(rng),
            filter: random_filter(rng),
            memtable_size_bytes: pick(rng, &[16 << 10, 16 << 10, 32 << 10, 64 << 10]),
            memtables_max: rng.random_range(2..=4),
            block_size_bytes: pick(rng, &[512, 777, 1024, 4096, 16 << 10]),
            l0_compaction_trigger: trigger,
            l0_stall_tables: (slowdown, slowdown + rng.random_range(1..=8usize)),
            level_base_bytes: pick(rng, &[64 << 10, 128 << 10]),
            level_multiplier: rng.random_range(2..=10),
            target_table_bytes: pick(rng, &[16 << 10, 32 << 10, 128 << 10]),
        }
    }

    fn keyspace(&self, drawn: impl Fn(OptionGroup) -> bool) -> KeyspaceOptions {
        shaped!(self, KeyspaceOptions::default(), drawn)
    }

    fn database(&self, drawn: impl Fn(OptionGroup) -> bool) -> Options {
        shaped!(self, Options::default(), drawn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_options_are_accepted() {
        for seed in 0..200 {
            let drawn = RandomOptions::new(seed);
            let fs = std::sync::Arc::new(siltstone::vfs::MemFs::new());
            let environment = siltstone::Environment {
                fs,
                background: siltstone::BackgroundMode::Manual,
                ..siltstone::Environment::default()
            };
            let db = drawn.options().open_with("db", environment).unwrap();
            db.keyspace("a", drawn.keyspace("a")).unwrap();
        }
    }
}
