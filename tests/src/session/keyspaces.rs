//! Keyspaces of a session: while one is being created or dropped, a crash may find it either way.

use siltstone::ErrorKind;

use super::Session;
use crate::progress::Presence;
use crate::violation::Violation;

impl Session {
    pub(super) fn create_keyspace(&mut self, name: &str) -> Result<(), Violation> {
        let existed = self.keyspaces.contains_key(name);
        let options = self.options.keyspace(name);
        let incarnation = if existed {
            None
        } else {
            let incarnation = self.model.create_keyspace(name);
            self.model.drop_keyspace(name);
            let entry = (incarnation, Presence::Uncertain);
            self.progress.lock().keyspaces.insert(name.to_owned(), entry);
            Some(incarnation)
        };
        match self.db().keyspace(name, options) {
            Ok(keyspace) => {
                self.keyspaces.insert(name.to_owned(), keyspace);
                if let Some(incarnation) = incarnation {
                    self.model.revive_keyspace(name, incarnation);
                    let entry = (incarnation, Presence::Live);
                    self.progress.lock().keyspaces.insert(name.to_owned(), entry);
                }
                Ok(())
            }
            Err(error) => self.excuse("creating a keyspace", &error, false),
        }
    }

    pub(super) fn drop_keyspace(&mut self, name: &str) -> Result<(), Violation> {
        let Some((_, incarnation)) = self.keyspace(name) else {
            return Ok(());
        };
        let entry = (incarnation, Presence::Uncertain);
        self.progress.lock().keyspaces.insert(name.to_owned(), entry);
        match self.db().drop_keyspace(name) {
            Ok(()) => {
                self.model.drop_keyspace(name);
                self.progress.lock().keyspaces.remove(name);
                let dropped = self.keyspaces.remove(name);
                let answer = dropped.map(|keyspace| keyspace.get("any"));
                if !matches!(&answer, Some(Err(error)) if error.kind() == ErrorKind::NotFound) {
                    return Err(Violation::new(format!(
                        "a read of a dropped keyspace answers {answer:?}"
                    )));
                }
                Ok(())
            }
            Err(error) => self.excuse("dropping a keyspace", &error, false),
        }
    }
}
