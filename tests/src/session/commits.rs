//! Commits of a session: in the model first, taken back where the engine refused them.

use siltstone::{Durability, WriteBatch, WriteOptions};

use super::Session;
use crate::model::{CommitIndex, Write, show};
use crate::violation::{Violation, must};

impl Session {
    pub(super) fn commit(&mut self, batch: &[Write], sync: bool) -> Result<(), Violation> {
        let live = |write: &&Write| self.keyspaces.contains_key(&write.keyspace);
        let batch: Vec<Write> = batch.iter().filter(live).cloned().collect();
        if batch.is_empty() {
            return Ok(());
        }
        let before = self.model.last();
        let at = self.model.commit(&batch);
        self.progress.lock().started = at;
        match self.write(&batch, sync) {
            Ok(durable) => {
                let mut progress = self.progress.lock();
                progress.acknowledged = at;
                if durable {
                    progress.synced = at;
                }
                drop(progress);
                match &self.judge {
                    Some(judge) => judge.check_not_sticky(),
                    None => Ok(()),
                }
            }
            Err(error) => {
                self.excuse("a commit", &error, false)?;
                if let Some(judge) = &mut self.judge {
                    judge.note_failed_commit(&error);
                }
                if !self.is_visible(&batch, before, at)? {
                    self.rewind_to(before);
                    self.progress.lock().started = before;
                }
                Ok(())
            }
        }
    }

    /// Writes, and says whether what it wrote survives power loss.
    fn write(&self, batch: &[Write], sync: bool) -> siltstone::Result<bool> {
        let default_is_sync = self.options.is_sync();
        if let ([write], false) = (batch, sync) {
            let keyspace = &self.keyspaces[&write.keyspace];
            match &write.value {
                Some(value) => keyspace.put(&write.key, value)?,
                None => keyspace.delete(&write.key)?,
            }
            return Ok(default_is_sync);
        }
        let mut writes = WriteBatch::new();
        for write in batch {
            let keyspace = &self.keyspaces[&write.keyspace];
            match &write.value {
                Some(value) => writes.put_in(keyspace, &write.key, value),
                None => writes.delete_in(keyspace, &write.key),
            };
        }
        let options = if sync {
            WriteOptions::default().durability(Durability::Sync)
        } else {
            WriteOptions::default()
        };
        self.db().write_with(writes, &options)?;
        Ok(sync || default_is_sync)
    }

    /// Whether a commit that failed is visible: as a whole, or not at all.
    fn is_visible(
        &mut self,
        batch: &[Write],
        before: CommitIndex,
        after: CommitIndex,
    ) -> Result<bool, Violation> {
        let mut verdict: Option<bool> = None;
        for write in batch {
            let Some((keyspace, incarnation)) = self.keyspace(&write.keyspace) else {
                continue;
            };
            let at = |session: &Self, at| session.model.get(incarnation, &write.key, at).map(<[u8]>::to_vec);
            let (old, new) = (at(self, before), at(self, after));
            if old == new {
                continue;
            }
            let found = match keyspace.get(&write.key) {
                Ok(found) => found,
                // The fault that failed the commit is still there, and the table is not mapped.
                Err(error) => {
                    self.excuse("a read after a failed commit", &error, true)?;
                    if let Some(judge) = &self.judge {
                        judge.mend();
                    }
                    must("a read after a failed commit", keyspace.get(&write.key))?
                }
            };
            let visible = match found.as_deref() {
                found if found == new.as_deref() => true,
                found if found == old.as_deref() => false,
                found => {
                    return Err(Violation::new(format!(
                        "after a failed commit {} is {:?}",
                        show(&write.key),
                        found.map(show)
                    )));
                }
            };
            if verdict.is_some_and(|verdict| verdict != visible) {
                return Err(Violation::new("a failed commit is visible in part"));
            }
            verdict = Some(visible);
        }
        Ok(verdict.unwrap_or(false))
    }
}
