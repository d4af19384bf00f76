//! Iterators: a cursor with two ends, for `for` loops.

use siltstone_vfs::Result;

use crate::cursor::Cursor;
use crate::value::{Key, Value};

/// Entries in key order from either end, as they were when it was made. Each item is owned.
///
/// An error ends the iteration, at both ends.
///
/// ```
/// # fn main() -> siltstone::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = siltstone::Db::open(dir.path())?;
/// for key in ["a/1", "a/2", "b/1"] {
///     db.put(key, "")?;
/// }
/// let keys = db.prefix("a/")?.map(|entry| Ok(entry?.0)).collect::<siltstone::Result<Vec<_>>>()?;
/// assert_eq!(keys, ["a/1", "a/2"]);
/// assert_eq!(db.iter()?.next_back().unwrap()?.0, "b/1");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Iter {
    front: Cursor,
    front_started: bool,
    /// The other end; made when it is first asked for.
    back: Option<Cursor>,
    done: bool,
}

impl Iter {
    pub(crate) fn new(front: Cursor) -> Iter {
        Iter {
            front,
            front_started: false,
            back: None,
            done: false,
        }
    }

    fn step_front(&mut self) -> Result<Option<(Key, Value)>> {
        if self.front_started {
            self.front.next()?
        } else {
            self.front.first()?
        }
        self.front_started = true;
        // The ends have met where the front reaches what the back has given out.
        let met = self
            .back
            .as_ref()
            .is_some_and(|back| self.front.valid() && self.front.key() >= back.key());
        Ok((self.front.valid() && !met).then(|| entry(&self.front)))
    }

    fn step_back(&mut self) -> Result<Option<(Key, Value)>> {
        let back = match &mut self.back {
            Some(back) => {
                back.prev()?;
                back
            }
            none => {
                let mut back = self.front.another()?;
                back.last()?;
                none.insert(back)
            }
        };
        let met = self.front_started && back.valid() && back.key() <= self.front.key();
        Ok((back.valid() && !met).then(|| entry(back)))
    }

    fn emit(&mut self, step: Result<Option<(Key, Value)>>) -> Option<Result<(Key, Value)>> {
        let item = step.transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

fn entry(cursor: &Cursor) -> (Key, Value) {
    (Key::from(cursor.key()), Value::from(cursor.value()))
}

impl Iterator for Iter {
    type Item = Result<(Key, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step_front();
        self.emit(step)
    }
}

impl DoubleEndedIterator for Iter {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step_back();
        self.emit(step)
    }
}

impl std::iter::FusedIterator for Iter {}
