//! The job from beginning to end: load, look up under load, delete a country, compact, reopen; checked at every step.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use siltstone::{Db, VerifyOptions};

use crate::Result;
use crate::load::{self, Churned, SetOnDrop, Sizes};
use crate::lookup::{self, Checked, Speed};
use crate::reference::Reference;
use crate::report::Shot;
use crate::source::Country;

/// What to do.
pub(crate) struct Job<'j> {
    /// What is loaded.
    pub(crate) source: &'j Reference,
    /// What the answers are checked against: the same, except in a test of the checks.
    pub(crate) reference: &'j Reference,
    /// A directory without a database.
    pub(crate) dir: &'j Path,
    pub(crate) duration: Duration,
    pub(crate) threads: usize,
    /// The country to delete.
    pub(crate) delete: Country,
    pub(crate) seed: u64,
}

/// What came of it. Where an answer was wrong, the job ends with that step, and the later ones are missing.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) shots: Vec<Shot>,
    pub(crate) checked: Checked,
    pub(crate) load_took: Duration,
    pub(crate) flush_took: Duration,
    pub(crate) speed: Option<Speed>,
    pub(crate) churned: Churned,
    pub(crate) deleted: usize,
    pub(crate) compact_took: Duration,
    pub(crate) reopen_took: Duration,
    pub(crate) sound_blocks: u64,
    pub(crate) flushes: u64,
    pub(crate) compactions: u64,
    pub(crate) tables_retired: u64,
    pub(crate) bytes_retired: u64,
    /// Whether every step was done and every answer right.
    pub(crate) passed: bool,
}

impl Outcome {
    /// Adds answers of several checks; false where one was wrong.
    fn add<const N: usize>(&mut self, checked: [Checked; N]) -> bool {
        checked.into_iter().for_each(|checked| self.checked.add(checked));
        self.checked.wrong == 0
    }

    /// Adds what an open database has counted, before it is closed.
    fn count(&mut self, db: &Db) {
        let metrics = db.metrics();
        self.flushes += metrics.flushes;
        self.compactions += metrics.compactions;
        self.tables_retired += metrics.tables_retired;
        self.bytes_retired += metrics.bytes_retired;
    }
}

/// Does the job.
///
/// # Errors
/// What the engine met, an entry that nobody loaded, deleted data that compaction left on disk, damage that
/// verification found. A wrong answer is not an error here but an outcome that has not passed.
pub(crate) fn run(job: &Job<'_>) -> Result<Outcome> {
    let sizes = Sizes::of(job.source.ranges().len());
    let mut outcome = Outcome::default();
    let db = sizes.open(job.dir)?;
    let go_on = fill(job, &db, &mut outcome)?
        && look_up_under_load(job, &db, &sizes, &mut outcome)?
        && delete(job, &db, &mut outcome)?;
    outcome.count(&db);
    db.close()?;
    if go_on {
        let begin = Instant::now();
        let db = sizes.open(job.dir)?;
        outcome.reopen_took = begin.elapsed();
        outcome.passed = check_again(job, &db, &mut outcome)?;
        outcome.count(&db);
        db.close()?;
    }
    Ok(outcome)
}

fn fill(job: &Job<'_>, db: &Db, outcome: &mut Outcome) -> Result<bool> {
    outcome.load_took = load::load(db, job.source.ranges())?;
    let begin = Instant::now();
    db.flush()?;
    db.wait_idle()?;
    outcome.flush_took = begin.elapsed();
    let (ranges, stage) = (job.source.ranges(), "after the load");
    let (entries, scanned) = lookup::whole_scan(db, job.reference, stage)?;
    let looked = lookup::every_range(db, ranges, job.reference, stage, job.threads)?;
    outcome.shots.push(Shot::take(
        "loaded",
        job.dir,
        db,
        entries,
        outcome.tables_retired,
    )?);
    Ok(outcome.add([scanned, looked]))
}

fn look_up_under_load(job: &Job<'_>, db: &Db, sizes: &Sizes, outcome: &mut Outcome) -> Result<bool> {
    let (first_done, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let stage = "under load";
    let (looked, churned) = std::thread::scope(|scope| {
        let churn = scope.spawn(|| load::churn(db, sizes, job.source.ranges(), &first_done, &stop));
        let looked = {
            let _stop = SetOnDrop(&stop);
            let random = lookup::random(
                db,
                job.reference,
                stage,
                job.threads,
                job.seed,
                job.duration,
                &first_done,
            );
            // Before the background load is told to end.
            random.and_then(|(checked, speed)| {
                let (entries, scanned) = lookup::whole_scan(db, job.reference, stage)?;
                let shot = Shot::take("under load", job.dir, db, entries, outcome.tables_retired)?;
                Ok((checked, scanned, speed, shot))
            })
        };
        let churned = churn.join().map_err(|_| "the background load panicked")??;
        looked.map(|looked| (looked, churned))
    })?;
    let (checked, scanned, speed, shot) = looked;
    outcome.churned = churned;
    outcome.speed = Some(speed);
    outcome.shots.push(shot);
    Ok(outcome.add([checked, scanned]))
}

fn delete(job: &Job<'_>, db: &Db, outcome: &mut Outcome) -> Result<bool> {
    let rest = job.reference.without(job.delete);
    outcome.deleted = load::delete(db, job.source.ranges(), job.delete)?;
    // Tombstones hide the ranges now; afterwards there is nothing left to hide.
    let (ranges, stage) = (job.source.ranges(), "after the delete, before compaction");
    let (_, scanned) = lookup::whole_scan(db, &rest, stage)?;
    let looked = lookup::every_range(db, ranges, &rest, stage, job.threads)?;
    if !outcome.add([scanned, looked]) {
        return Ok(false);
    }
    let begin = Instant::now();
    db.compact::<&[u8]>(..)?;
    outcome.compact_took = begin.elapsed();
    db.wait_idle()?;
    let (entries, scanned) = lookup::whole_scan(db, &rest, "after compaction")?;
    let right = outcome.add([scanned]);
    outcome.shots.push(Shot::take(
        "deleted",
        job.dir,
        db,
        entries,
        outcome.tables_retired,
    )?);
    let on_disk = db.metrics().table_entries;
    if right && on_disk != entries {
        let what = "the tables hold deleted or overwritten data after a compaction of everything";
        return Err(format!("{what}: {on_disk} entries, of which {entries} are live").into());
    }
    Ok(right)
}

fn check_again(job: &Job<'_>, db: &Db, outcome: &mut Outcome) -> Result<bool> {
    let rest = job.reference.without(job.delete);
    let stage = "after reopening";
    let (entries, scanned) = lookup::whole_scan(db, &rest, stage)?;
    // The ranges of the deleted country, too: their addresses must answer nothing.
    let looked = lookup::every_range(db, job.source.ranges(), &rest, stage, job.threads)?;
    let report = db.verify(&VerifyOptions::default())?;
    if let Some((path, error)) = report.damage.first() {
        return Err(format!("verification found damage in {}: {error}", path.display()).into());
    }
    outcome.sound_blocks = report.blocks;
    outcome.shots.push(Shot::take(
        "reopened",
        job.dir,
        db,
        entries,
        outcome.tables_retired,
    )?);
    Ok(outcome.add([scanned, looked]))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::reference::tests::sample;
    use crate::source::Range;

    fn run_with(source: &Reference, reference: &Reference) -> Outcome {
        let dir = tempfile::tempdir().unwrap();
        let delete = "AU".parse().unwrap();
        let duration = Duration::from_millis(1);
        run(&Job {
            source,
            reference,
            dir: dir.path(),
            duration,
            threads: 2,
            delete,
            seed: 1,
        })
        .unwrap()
    }

    fn planted(change: impl Fn(&mut Range)) -> Reference {
        let (mut v4, v6): (Vec<_>, Vec<_>) =
            sample().ranges().iter().partition(|range| range.start.is_ipv4());
        change(&mut v4[1]);
        Reference::new(v4, v6)
    }

    #[test]
    fn right_answers_pass() {
        let outcome = run_with(&sample(), &sample());
        assert!(outcome.passed && outcome.checked.wrong == 0);
        assert_eq!(
            (outcome.shots.len(), outcome.deleted, outcome.churned.rounds > 0),
            (4, 2, true)
        );
        // All ranges in five places, three times, and at least one round of random ones.
        assert!(outcome.checked.lookups >= 3 * 4 * 5 + 256);
    }

    #[test]
    fn a_planted_country_is_found_and_fails_the_job() {
        let wrong = planted(|range| range.country = "NZ".parse().unwrap());
        let outcome = run_with(&sample(), &wrong);
        assert!(!outcome.passed && outcome.checked.wrong > 0);
        let lines: Vec<String> = outcome
            .checked
            .first_wrong
            .iter()
            .map(ToString::to_string)
            .collect();
        let expected = "WRONG ANSWER for 1.0.1.0 (after the load): expected NZ, found CN";
        assert!(lines.iter().any(|line| line == expected), "{lines:#?}");
    }

    #[test]
    fn one_planted_address_is_found_by_every_check() {
        let dir = tempfile::tempdir().unwrap();
        let db = Sizes::of(4).open(dir.path()).unwrap();
        load::load(&db, sample().ranges()).unwrap();
        let end: IpAddr = "1.0.1.6".parse().unwrap();
        let wrong = planted(|range| range.end = end);
        let swept = lookup::every_range(&db, wrong.ranges(), &wrong, "test", 2).unwrap();
        assert_eq!(swept.wrong, 1, "{swept:?}");
        let text = swept.first_wrong[0].to_string();
        assert_eq!(
            text,
            "WRONG ANSWER for 1.0.1.7 (test): expected nothing, found CN"
        );
        let (_, scanned) = lookup::whole_scan(&db, &wrong, "test").unwrap();
        assert_eq!(scanned.wrong, 1);
        let (random, _) = lookup::random(
            &db,
            &wrong,
            "test",
            2,
            1,
            Duration::from_millis(50),
            &AtomicBool::new(true),
        )
        .unwrap();
        assert!(random.wrong > 0 && random.first_wrong.iter().all(|wrong| wrong.found == "CN"));
    }

    #[test]
    fn missing_foreign_and_extra_entries_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let (db, reference) = (Sizes::of(4).open(dir.path()).unwrap(), sample());
        let sweep = || lookup::every_range(&db, reference.ranges(), &reference, "test", 1);
        // Start, middle and end of each range answer nothing, and a neighbour that lies in the next range.
        assert_eq!(sweep().unwrap().wrong, 4 * 3 + 2);
        assert_eq!(lookup::whole_scan(&db, &reference, "test").unwrap().1.wrong, 1);
        load::load(&db, reference.ranges()).unwrap();
        assert_eq!(sweep().unwrap().wrong, 0);
        load::load(
            &db,
            &[Range {
                start: "9.9.9.9".parse().unwrap(),
                ..reference.ranges()[0]
            }],
        )
        .unwrap();
        assert_eq!(lookup::whole_scan(&db, &reference, "test").unwrap().1.wrong, 1);
        db.put(b"\x04\x01\x00\x01\x00", "not a range").unwrap();
        let error = sweep().unwrap_err().to_string();
        assert!(error.contains("looking up 1.0.1.0"), "{error}");
    }
}
