//! One small file an engine.

#[cfg(feature = "fjall")]
pub(crate) mod fjall;
#[cfg(feature = "lmdb")]
pub(crate) mod lmdb;
#[cfg(feature = "redb")]
pub(crate) mod redb;
#[cfg(feature = "rocksdb")]
pub(crate) mod rocksdb;
pub(crate) mod siltstone;
#[cfg(feature = "surrealkv")]
pub(crate) mod surrealkv;

#[cfg(test)]
mod tests {
    use crate::data::{Data, Key};
    use crate::engine::{ENGINES, EngineKind, Reads, Result, Seen, Setup, Survives};

    /// What an engine answers to the same questions.
    fn answers(kind: &EngineKind, setup: &Setup) -> Result<Vec<(u64, u64)>> {
        let data = Data::new(1000, 100, 0, setup.compress);
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("db");
        let engine = (kind.open)(&path, setup)?;
        let mut session = engine.session()?;
        let records: Vec<(Key, Vec<u8>)> = (0..data.n)
            .map(|i| data.key(data.shuffled(i)))
            .map(|key| (key, data.value(&key, 0).to_vec()))
            .collect();
        session.put_batch(&records[..900])?;
        for (key, value) in &records[900..] {
            session.put(key.as_ref(), value)?;
        }
        session.delete(data.key(100).as_ref())?;
        drop(session);
        engine.settle()?;
        engine.close()?;

        let engine = (kind.open)(&path, setup)?;
        let pair = |seen: Seen| (seen.records, seen.sum);
        let mut found = Vec::new();
        // The deleted record is passed over, and the last has none after it.
        let places = [0, 500, 100, 999];
        let mut session = engine.session()?;
        for record in places {
            found.push(pair(session.seek_reused(data.key(record).as_ref(), 11)?));
        }
        drop(session);
        let mut session = engine.session()?;
        for record in places {
            found.push(pair(session.seek(data.key(record).as_ref(), 11)?));
        }
        for record in places {
            let value = session.get(data.key(record).as_ref())?;
            found.push((u64::from(value.is_some()), value.unwrap_or(0)));
        }
        let keys: Vec<Key> = (90..110).map(|record| data.key(record)).collect();
        found.push(pair(session.multi_get(&keys)?));
        found.push(pair(session.scan(false)?));
        found.push(pair(session.scan(true)?));
        session.delete(data.key(998).as_ref())?;
        found.push(pair(session.seek(data.key(997).as_ref(), 11)?));
        let free = data.free_key(5);
        found.push((u64::from(session.get(free.as_ref())?.is_some()), 0));
        drop(session);
        engine.close()?;
        Ok(found)
    }

    #[test]
    fn every_engine_gives_the_same_answers() {
        for compress in [false, true] {
            let mut first = None;
            for kind in ENGINES {
                for (survives, reads) in [
                    (Survives::Process, Reads::Warm),
                    (Survives::PowerLoss, Reads::ColdRandom(64 << 20)),
                    (Survives::Process, Reads::ColdScan(64 << 20)),
                ] {
                    let setup = Setup {
                        survives,
                        compress,
                        reads,
                    };
                    // Syncs take long enough to do them once.
                    if survives == Survives::PowerLoss && compress {
                        continue;
                    }
                    let answers = answers(kind, &setup)
                        .unwrap_or_else(|error| panic!("{}, {setup:?}: {error}", kind.name));
                    assert_eq!(
                        &answers,
                        first.get_or_insert_with(|| answers.clone()),
                        "{}, {setup:?}",
                        kind.name
                    );
                }
            }
            let first = first.expect("there is always Siltstone");
            assert_eq!(first[..4], first[4..8], "a reused view gives what a new one does");
            assert_eq!(first[0].0, 11);
            assert_eq!(first[3].0, 1);
            assert_eq!(first[10], (0, 0), "the deleted record");
            assert_eq!(first[13].0, 999);
            assert_eq!(first[13], first[14], "both directions see the same");
            assert_eq!(first[15].0, 2, "the second deleted record is passed over at once");
        }
    }
}
