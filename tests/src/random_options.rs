//! Options drawn from a seed: small sizes, so that everything that can happen happens soon.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use siltstone::{Compression, Durability, FilterKind, KeyspaceOptions, LEVELS, LogIo, Options};

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
}

impl RandomOptions {
    /// The options of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x6f70_7469_6f6e_7300);
        let keyspaces = [(); 3].map(|()| random_keyspace(&mut rng, KeyspaceOptions::default()));
        let segment_bytes = pick(&mut rng, &[4 << 10, 4 << 10, 8 << 10, 16 << 10, 64 << 10]);
        let durability = pick(
            &mut rng,
            &[Durability::Buffered, Durability::Buffered, Durability::Sync],
        );
        let mut options = Options::default()
            .log_segment_bytes(segment_bytes)
            .log_size_max_bytes(segment_bytes * pick(&mut rng, &[2, 4, 16]))
            .log_io(pick(&mut rng, &[LogIo::Mapped, LogIo::Write]))
            .durability(durability)
            .block_cache_bytes(pick(&mut rng, &[0, 16 << 10, 1 << 20]))
            .reserve_bytes(pick(&mut rng, &[0, 0, 64 << 10]))
            .mapped_tables_max(pick(&mut rng, &[0, 3, 1000]));
        options = random_default(&mut rng, options);
        Self {
            options,
            durability,
            keyspaces,
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

/// The same choices through two builders that have no type in common.
macro_rules! random_shape {
    ($rng:expr, $options:expr) => {{
        let rng: &mut StdRng = $rng;
        let trigger = rng.random_range(1..=4usize);
        let slowdown = trigger + rng.random_range(1..=8usize);
        let compression = random_compression(rng);
        let filter = random_filter(rng);
        $options
            .memtable_size_bytes(pick(rng, &[16 << 10, 16 << 10, 32 << 10, 64 << 10]))
            .memtables_max(rng.random_range(2..=4))
            .block_size_bytes(pick(rng, &[512, 777, 1024, 4096, 16 << 10]))
            .compression_per_level(compression)
            .filter(filter)
            .l0_compaction_trigger(trigger)
            .l0_stall_tables(slowdown, slowdown + rng.random_range(1..=8usize))
            .level_base_bytes(pick(rng, &[64 << 10, 128 << 10]))
            .level_multiplier(rng.random_range(2..=10))
            .target_table_bytes(pick(rng, &[16 << 10, 32 << 10, 128 << 10]))
    }};
}

fn random_keyspace(rng: &mut StdRng, options: KeyspaceOptions) -> KeyspaceOptions {
    random_shape!(rng, options)
}

fn random_default(rng: &mut StdRng, options: Options) -> Options {
    random_shape!(rng, options)
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
