//! Every input of the fuzz corpus, read once more: what a fuzz run has found stays mended, without a fuzzer.

use std::fs;
use std::path::Path;

use siltstone_tests::FuzzTarget;

fn read(target: FuzzTarget) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target.name());
    let mut inputs = 0;
    for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.expect("a readable directory").path();
        println!("{}", path.display());
        target.run(&fs::read(&path).expect("a readable input"));
        inputs += 1;
    }
    assert!(inputs >= 3, "{inputs} inputs in {}", dir.display());
}

#[test]
fn wal_replay() {
    read(FuzzTarget::WalReplay);
}

#[test]
fn table_reader() {
    read(FuzzTarget::TableReader);
}

#[test]
fn manifest() {
    read(FuzzTarget::Manifest);
}

#[test]
fn filter() {
    read(FuzzTarget::Filter);
}

#[test]
fn properties() {
    read(FuzzTarget::Properties);
}

#[test]
fn api() {
    read(FuzzTarget::Api);
}
