//! Writes the seeds of the fuzz targets, files of the engine's own making, into a corpus: `fuzz/run.sh --seeds`.

use std::path::PathBuf;
use std::{env, fs, io};

use siltstone_tests::FuzzTarget;

fn main() -> io::Result<()> {
    let Some(corpus) = env::args_os().nth(1).map(PathBuf::from) else {
        return Err(io::Error::other("usage: fuzz_seeds CORPUS"));
    };
    for target in FuzzTarget::ALL {
        let dir = corpus.join(target.name());
        fs::create_dir_all(&dir)?;
        for (nth, seed) in target.seeds().iter().enumerate() {
            fs::write(dir.join(format!("seed-{nth}")), seed)?;
        }
    }
    Ok(())
}
