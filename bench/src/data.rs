//! Keys and values: the same bytes for every engine, computed from a record's number.

/// A key of up to 80 bytes, built without allocating.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    bytes: [u8; KEY_BYTES_MAX],
    len: usize,
}

const KEY_BYTES_MAX: usize = 80;
/// The part of a key that tells it apart.
pub(crate) const KEY_BYTES: usize = 16;
/// The longest common prefix before it.
pub(crate) const KEY_PREFIX_BYTES_MAX: usize = KEY_BYTES_MAX - KEY_BYTES;

impl AsRef<[u8]> for Key {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The records of a run. Record `r` has slot `slot(r)` of the key space: even slots are loaded, odd slots are free
/// between them, for keys that are missing and for inserts.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    /// Records loaded.
    pub(crate) n: u64,
    prefix_bytes: usize,
    value_bytes: usize,
    /// Random bytes that values are cut from.
    noise: Vec<u8>,
    half_bits: u32,
}

impl Data {
    /// `n` records with values of `value_bytes`, and keys with a common prefix of `prefix_bytes`. Half of each value
    /// is zeros if values are to be compressible.
    pub(crate) fn new(n: u64, value_bytes: usize, prefix_bytes: usize, compressible: bool) -> Self {
        let words = (value_bytes + NOISE_STARTS) / 8 + 1;
        let mut noise: Vec<u8> = (0..words as u64)
            .flat_map(|word| mix(word ^ 0x5117).to_le_bytes())
            .collect();
        if compressible {
            // Repeats with the length of a value: wherever it is cut out, it has the same number of zeros. They form
            // runs of at most 512 bytes, so that a block that holds only a part of a value has its share.
            let period = (1..)
                .map(|parts| value_bytes / parts)
                .find(|bytes| *bytes <= 1024);
            for piece in noise.chunks_mut(period.unwrap_or(0).max(1)) {
                let random = piece.len().div_ceil(2);
                piece[random..].fill(0);
            }
        }
        // A Feistel network needs an even number of bits that covers n.
        let bits = u64::BITS - n.max(2).saturating_sub(1).leading_zeros();
        Self {
            n,
            prefix_bytes,
            value_bytes,
            noise,
            half_bits: bits.div_ceil(2),
        }
    }

    /// Record `i` of a random order that visits every record once.
    #[inline]
    pub(crate) fn shuffled(&self, i: u64) -> u64 {
        let mask = (1_u64 << self.half_bits) - 1;
        let mut at = i;
        loop {
            let (mut left, mut right) = (at >> self.half_bits, at & mask);
            for round in 0..4 {
                (left, right) = (right, left ^ (mix(right ^ (round << 56)) & mask));
            }
            at = (left << self.half_bits) | right;
            if at < self.n {
                return at;
            }
        }
    }

    /// A record for draw `i`, each as likely as any other.
    #[inline]
    pub(crate) fn uniform(&self, i: u64) -> u64 {
        mix(i ^ 0x00AB_CDEF_0000_0000) % self.n
    }

    /// The key of record `r` in key order, which is loaded.
    #[inline]
    pub(crate) fn key(&self, record: u64) -> Key {
        self.slot(record * 2)
    }

    /// A key just after that of record `r`, which is not loaded.
    #[inline]
    pub(crate) fn free_key(&self, record: u64) -> Key {
        self.slot(record * 2 + 1)
    }

    /// As in `db_bench`: the number, big end first, and zeros.
    #[inline]
    fn slot(&self, slot: u64) -> Key {
        let mut bytes = [b'0'; KEY_BYTES_MAX];
        bytes[..self.prefix_bytes].fill(b'p');
        bytes[self.prefix_bytes..self.prefix_bytes + 8].copy_from_slice(&slot.to_be_bytes());
        Key {
            bytes,
            len: self.prefix_bytes + KEY_BYTES,
        }
    }

    /// The value of a key: noise that starts where key and version say, so that a wrong value changes the sum.
    #[inline]
    pub(crate) fn value(&self, key: &Key, version: u64) -> &[u8] {
        let hash = mix(crate::engine::sum(key.as_ref()) ^ (version << 48));
        let start = usize::try_from(hash % NOISE_STARTS as u64).unwrap_or(0);
        &self.noise[start..start + self.value_bytes]
    }

    /// Bytes of a key.
    pub(crate) fn key_bytes(&self) -> usize {
        self.prefix_bytes + KEY_BYTES
    }

    /// Bytes of keys and values.
    pub(crate) fn logical_bytes(&self, records: u64) -> u64 {
        records * (self.key_bytes() + self.value_bytes) as u64
    }
}

const NOISE_STARTS: usize = 64 << 10;

/// SplitMix64's finalizer.
#[inline]
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Ranks with YCSB's zipfian distribution (constant 0.99), after Gray et al., "Quickly generating billion-record
/// synthetic databases", SIGMOD 1994.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zipfian {
    n: f64,
    zeta: f64,
    eta: f64,
}

const THETA: f64 = 0.99;

impl Zipfian {
    /// Ranks below `n`.
    pub(crate) fn new(n: u64) -> Self {
        let zeta: f64 = (1..=n).map(|i| (i as f64).powf(-THETA)).sum();
        let zeta_2 = 1.0 + 2.0_f64.powf(-THETA);
        let eta = (1.0 - (2.0 / n as f64).powf(1.0 - THETA)) / (1.0 - zeta_2 / zeta);
        Self {
            n: n as f64,
            zeta,
            eta,
        }
    }

    /// The rank for draw `i`: 0 is the most likely.
    #[inline]
    pub(crate) fn rank(&self, i: u64) -> u64 {
        let u = (mix(i ^ 0x0021_0F1A_0000_0000) >> 11) as f64 / (1_u64 << 53) as f64;
        let uz = u * self.zeta;
        if uz < 1.0 {
            return 0;
        }
        if uz < 1.0 + 0.5_f64.powf(THETA) {
            return 1;
        }
        // 1 / (1 - THETA) is 100; a general power would take longer than the rest of the draw.
        let rank = self.n * (self.eta * u - self.eta + 1.0).powi(100);
        // Never negative; rounding can reach n.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rank = rank.min(self.n - 1.0) as u64;
        rank
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_random_order_visits_every_record_once() {
        for n in [1, 2, 3, 1000, 4096, 5001] {
            let data = Data::new(n, 10, 0, false);
            let mut seen: Vec<u64> = (0..n).map(|i| data.shuffled(i)).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..n).collect::<Vec<_>>(), "n = {n}");
        }
    }

    #[test]
    fn keys_are_in_record_order_and_free_keys_lie_between() {
        let data = Data::new(1000, 10, 7, false);
        for record in 0..999 {
            let (key, free, next) = (data.key(record), data.free_key(record), data.key(record + 1));
            assert!(key.as_ref() < free.as_ref() && free.as_ref() < next.as_ref());
            assert_eq!(key.as_ref().len(), 23);
        }
    }

    #[test]
    fn zipfian_ranks_stay_below_n_and_favour_the_first() {
        let zipfian = Zipfian::new(1000);
        let ranks: Vec<u64> = (0..20_000).map(|i| zipfian.rank(i)).collect();
        assert!(ranks.iter().all(|rank| *rank < 1000));
        let first = ranks.iter().filter(|rank| **rank == 0).count();
        // 1 / zeta(1000, 0.99) is about 0.13.
        assert!((2_000..3_400).contains(&first), "{first}");
    }

    #[test]
    fn values_differ_by_version() {
        let data = Data::new(1000, 100, 0, false);
        let key = data.key(5);
        assert_eq!(data.value(&key, 0), data.value(&key, 0));
        assert_ne!(data.value(&key, 0), data.value(&key, 1));
        assert_eq!(data.value(&key, 0).len(), 100);
    }

    #[test]
    fn half_of_a_compressible_value_is_zeros_wherever_it_is_cut() {
        for bytes in [20, 100, 1024, 64 << 10] {
            let data = Data::new(1000, bytes, 0, true);
            for record in 0..1000 {
                let zeros = data
                    .value(&data.key(record), 0)
                    .iter()
                    .filter(|byte| **byte == 0)
                    .count();
                // A random byte is zero now and then.
                assert!(
                    (bytes / 2..=bytes * 6 / 10).contains(&zeros),
                    "{zeros} of {bytes}"
                );
            }
        }
    }
}
