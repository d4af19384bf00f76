//! A bank over Siltstone, proved: no money appears or vanishes, and a confirmed transfer is never lost, whatever crashes or fails.
//!
//! With `--plant` it has a bug, which is found: a transfer writes its two accounts one after the other.

use std::process::ExitCode;

use siltstone::{Db, WriteBatch, WriteOptions};
use siltstone_tests::{ApplicationCrash, ApplicationFigures, ApplicationResult, Promises, Violation};

// The application.

const ACCOUNTS: u64 = 5;
const BALANCE: u64 = 100;

fn balance(db: &Db, account: u64) -> siltstone::Result<u64> {
    let bytes = db.get(format!("account/{account}"))?;
    Ok(bytes.map_or(BALANCE, |bytes| {
        bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }))
}

/// Moves up to `most` from one account to another one.
fn transfer(db: &Db, number: u64, from: u64, to: u64, most: u64, plant: bool) -> siltstone::Result<()> {
    let amount = balance(db, from)?.min(most);
    let (less, more) = (balance(db, from)? - amount, balance(db, to)? + amount);
    let mut batch = WriteBatch::new();
    batch.put(format!("transfer/{number}"), amount.to_be_bytes());
    batch.put(format!("account/{from}"), less.to_be_bytes());
    if plant {
        db.write_with(std::mem::take(&mut batch), &WriteOptions::sync())?;
    }
    batch.put(format!("account/{to}"), more.to_be_bytes());
    db.write_with(batch, &WriteOptions::sync())
}

// Its proof: what it does, and what must hold whenever the power went.

fn work(db: &Db, seed: u64, confirmed: &Promises<u64>, plant: bool) -> ApplicationResult {
    for number in 1..=8 {
        let (from, to) = ((seed + number) % ACCOUNTS, (seed + number * 3 + 1) % ACCOUNTS);
        if from != to {
            transfer(db, number, from, to, number * 7, plant)?;
            confirmed.synced(number);
        }
    }
    Ok(())
}

fn check(db: &Db, confirmed: &[u64]) -> ApplicationResult {
    for number in confirmed {
        db.get(format!("transfer/{number}"))?
            .ok_or_else(|| format!("the confirmed transfer {number} is lost"))?;
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
