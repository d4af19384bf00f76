//! Operations drawn from the input, applied to a database in memory and to the model.

use std::ops::Bound;

use arbitrary::{Result, Unstructured};

use crate::model::{Bounds, DEFAULT_KEYSPACE, Write};
use crate::random_options::RandomOptions;
use crate::session::Session;
use crate::workload::{CursorStep, KEYSPACES, Operation};

/// Longer histories find no more in the same time.
const OPERATIONS_MAX: usize = 80;

pub(super) fn run(input: &[u8]) {
    let mut bytes = Unstructured::new(input);
    let seed = bytes.arbitrary::<u8>().unwrap_or_default();
    let outcome = Session::in_memory(RandomOptions::new(seed.into())).and_then(|mut session| {
        for _ in 0..OPERATIONS_MAX {
            if bytes.is_empty() {
                break;
            }
            let Ok(operation) = operation(&mut bytes) else {
                break;
            };
            session.apply(&operation)?;
        }
        session.finish()
    });
    if let Err(violation) = outcome {
        panic!("options {seed}: {violation}");
    }
}

fn operation(bytes: &mut Unstructured<'_>) -> Result<Operation> {
    Ok(match bytes.int_in_range(0..=23_u8)? {
        0..=5 => {
            let count = bytes.int_in_range(1..=8_u8)?;
            Operation::Commit {
                batch: (0..count).map(|_| write(bytes)).collect::<Result<_>>()?,
                sync: bytes.ratio(1_u8, 4)?,
            }
        }
        6 => Operation::Get {
            keyspace: keyspace(bytes)?,
            key: key(bytes)?,
        },
        7 | 8 => Operation::Scan {
            keyspace: keyspace(bytes)?,
            bounds: bounds(bytes)?,
            ends: bytes.arbitrary()?,
        },
        9 => Operation::OpenCursor {
            keyspace: keyspace(bytes)?,
            bounds: bounds(bytes)?,
        },
        10 | 11 => {
            let count = bytes.int_in_range(1..=12_u8)?;
            Operation::MoveCursor {
                nth: bytes.arbitrary::<u8>()?.into(),
                steps: (0..count).map(|_| step(bytes)).collect::<Result<_>>()?,
            }
        }
        12 => Operation::CloseCursor(bytes.arbitrary::<u8>()?.into()),
        13 => Operation::TakeSnapshot,
        14 => Operation::ReadSnapshot {
            nth: bytes.arbitrary::<u8>()?.into(),
            keyspace: keyspace(bytes)?,
            key: key(bytes)?,
        },
        15 => Operation::DropSnapshot(bytes.arbitrary::<u8>()?.into()),
        16 => Operation::Flush(keyspace(bytes)?),
        17 => Operation::FlushAll,
        18 => Operation::Compact(keyspace(bytes)?, bounds(bytes)?),
        19 => Operation::Reopen {
            clean: bytes.arbitrary()?,
        },
        20 => Operation::CreateKeyspace(KEYSPACES[bytes.choose_index(KEYSPACES.len())?].into()),
        21 => Operation::DropKeyspace(KEYSPACES[bytes.choose_index(KEYSPACES.len())?].into()),
        22 => Operation::BackgroundJob,
        _ => Operation::Verify,
    })
}

fn keyspace(bytes: &mut Unstructured<'_>) -> Result<String> {
    let name = match bytes.int_in_range(0..=4_u8)? {
        0 => "a",
        1 => "b",
        _ => DEFAULT_KEYSPACE,
    };
    Ok(name.into())
}

/// Few, so that they meet: most share a prefix, some hold the extreme bytes.
fn key(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    Ok(match bytes.int_in_range(0..=7_u8)? {
        0 => Vec::new(),
        1 => {
            let len = bytes.int_in_range(1..=9_usize)?;
            bytes.bytes(len)?.to_vec()
        }
        2 => vec![b'k'; bytes.int_in_range(1..=70_usize)?],
        _ => format!("key{:04}", bytes.int_in_range(0..=40_u8)?).into_bytes(),
    })
}

fn write(bytes: &mut Unstructured<'_>) -> Result<Write> {
    let (keyspace, key) = (keyspace(bytes)?, key(bytes)?);
    let value = match bytes.int_in_range(0..=5_u8)? {
        0 | 1 => None,
        2 => Some(Vec::new()),
        3 => Some(vec![bytes.arbitrary()?; bytes.int_in_range(1..=4000_usize)?]),
        _ => Some(vec![bytes.arbitrary()?; bytes.int_in_range(1..=100_usize)?]),
    };
    Ok(Write { keyspace, key, value })
}

fn bounds(bytes: &mut Unstructured<'_>) -> Result<Bounds> {
    let mut bound = || -> Result<Bound<Vec<u8>>> {
        Ok(match bytes.int_in_range(0..=3_u8)? {
            0 | 1 => Bound::Unbounded,
            2 => Bound::Included(key(bytes)?),
            _ => Bound::Excluded(key(bytes)?),
        })
    };
    Ok((bound()?, bound()?))
}

fn step(bytes: &mut Unstructured<'_>) -> Result<CursorStep> {
    Ok(match bytes.int_in_range(0..=9_u8)? {
        0 => CursorStep::First,
        1 => CursorStep::Last,
        2 => CursorStep::Seek(key(bytes)?),
        3 => CursorStep::SeekForPrev(key(bytes)?),
        4..=6 => CursorStep::Next,
        _ => CursorStep::Prev,
    })
}

/// Any bytes are operations: a multiplicative generator gives some to begin with.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let byte = |seed: u64, n: u64| {
        let word = (seed * 1000 + n + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
        word.wrapping_mul(0xd6e8_feb8_6659_fd93).to_be_bytes()[0]
    };
    [60, 200, 400, 600]
        .map(|len| (0..len).map(|n| byte(len, n)).collect())
        .to_vec()
}
