//! A bank over Siltstone, proved: no money appears or vanishes, and a confirmed transfer is never lost, whatever crashes or fails.
//!
//! With `--plant` it has a bug, which is found: a transfer writes its two accounts one after the other.

use std::process::ExitCode;

use siltstone::{Db, WriteBatch, WriteOptions};
use siltstone_tests::{ApplicationCrash, ApplicationFigures, ApplicationResult, Promises, Violation};

const ACCOUNTS: u64 = 5;
const BALANCE: u64 = 100;

fn balance(db: &Db, account: u64) -> siltstone::Result<u64> {
    let bytes = db.get(format!("account/{account}"))?;
    Ok(bytes.map_or(BALANCE, |bytes| {
        bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }))
}

/// Makes some transfers, and confirms each.
fn work(db: &Db, seed: u64, confirmed: &Promises<u64>, plant: bool) -> ApplicationResult {
    for transfer in 1..=8 {
        let (from, to) = ((seed + transfer) % ACCOUNTS, (seed + transfer * 3 + 1) % ACCOUNTS);
        if from == to {
            continue;
        }
        let amount = balance(db, from)?.min(transfer * 7);
        let (less, more) = (balance(db, from)? - amount, balance(db, to)? + amount);
        let mut batch = WriteBatch::new();
        batch.put(format!("transfer/{transfer}"), amount.to_be_bytes());
        batch.put(format!("account/{from}"), less.to_be_bytes());
        if plant {
            db.write_with(std::mem::take(&mut batch), &WriteOptions::sync())?;
        }
        batch.put(format!("account/{to}"), more.to_be_bytes());
        db.write_with(batch, &WriteOptions::sync())?;
        confirmed.synced(transfer);
    }
    Ok(())
}

fn check(db: &Db, confirmed: &[u64]) -> ApplicationResult {
    for transfer in confirmed {
        db.get(format!("transfer/{transfer}"))?
            .ok_or_else(|| format!("the confirmed transfer {transfer} is lost"))?;
    }
    let balances = (0..ACCOUNTS).map(|account| balance(db, account));
    match balances.sum::<siltstone::Result<u64>>()? {
        sum if sum == ACCOUNTS * BALANCE => Ok(()),
        sum => Err(format!("the accounts hold {sum}, not {}", ACCOUNTS * BALANCE).into()),
    }
}

pub(crate) fn prove(seed: u64, plant: bool) -> Result<ApplicationFigures, Violation> {
    ApplicationCrash::new(move |db, seed, confirmed| work(db, seed, confirmed, plant), check).run(seed)
}

fn main() -> ExitCode {
    let plant = std::env::args().any(|argument| argument == "--plant");
    for seed in 1..=3 {
        match prove(seed, plant) {
            Ok(figures) => println!("seed {seed}: no bug found in {figures:?}"),
            Err(violation) => {
                println!("a bug found: {violation}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
