//! Siltstone's main job on real input: which country is an address in?
//!
//! Loads ranges of IPv4 and IPv6 addresses into one ordered key space, looks addresses up with
//! [`seek_for_prev`](siltstone::Cursor::seek_for_prev) on all threads while a background load, flushes and
//! compactions go on, deletes a country, compacts, reopens, and checks every answer on the way against a binary
//! search over the source. Without arguments it takes the excerpt in `data/`; the full files of Debian's package
//! `tor-geoipdb` are taken by path:
//!
//! ```text
//! cargo run --release -p geoip
//! cargo run --release -p geoip -- --ipv4 /usr/share/tor/geoip --ipv6 /usr/share/tor/geoip6
//! ```
//!
//! Exit codes: 0 when every answer was right, 1 when one was wrong or the engine failed, 2 for wrong usage.

mod entry;
mod job;
mod load;
mod lookup;
mod reference;
mod report;
mod source;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use job::{Job, Outcome};
use reference::Reference;
use source::{Country, Family};

/// Errors are told, not handled: all that matters of one is its text.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Countries of IP addresses in a Siltstone database, with every lookup checked.
#[derive(Debug, Parser)]
struct Args {
    /// IPv4 ranges: lines of start,end,country in decimal. Default: the excerpt shipped with the example.
    #[arg(long, value_name = "PATH", requires = "ipv6")]
    ipv4: Option<PathBuf>,
    /// IPv6 ranges: lines of start,end,country as text.
    #[arg(long, value_name = "PATH", requires = "ipv4")]
    ipv6: Option<PathBuf>,
    /// Where to put the database: an empty directory, or one to be created. It is kept. Default: a temporary one,
    /// which is removed, unless an answer was wrong.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How long to look up under load, at least; one whole round of the background load is waited for.
    #[arg(long, value_name = "N", default_value_t = 3)]
    seconds: u64,
    /// Threads that look up. Default: as many as the machine has.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// The country to delete. Default: the one with the most ranges.
    #[arg(long, value_name = "CC")]
    delete: Option<Country>,
    /// The seed of the addresses that are drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("geoip: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether every answer was right.
fn run(args: &Args) -> Result<bool> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let path = |given: &Option<PathBuf>, name| given.clone().unwrap_or_else(|| data.join(name));
    let (ipv4, ipv6) = (path(&args.ipv4, "geoip"), path(&args.ipv6, "geoip6"));
    let source = Reference::new(source::read(&ipv4, Family::V4)?, source::read(&ipv6, Family::V6)?);
    let delete = country_to_delete(&source, args.delete)?;
    let place = Place::new(args.dir.as_deref())?;
    let threads = match args.threads {
        Some(threads) => usize::from(threads),
        None => std::thread::available_parallelism().map_or(2, usize::from),
    };
    let sizes = load::Sizes::of(source.ranges().len());
    let (memtable_kib, base_kib) = (sizes.memtable_bytes >> 10, sizes.level_base_bytes >> 10);
    println!("source   {}\n         {}", ipv4.display(), ipv6.display());
    println!("database {}", place.path().display());
    println!(
        "sizes    memtables and tables of {memtable_kib} KiB, level 1 of {base_kib} KiB: small on purpose,"
    );
    println!("         so that this little data is flushed and compacted (the default is 64 MiB)");
    println!(
        "seed     {}; deletes {delete}; {threads} threads look up\n",
        args.seed
    );
    let job = Job {
        source: &source,
        reference: &source,
        dir: place.path(),
        duration: Duration::from_secs(args.seconds),
        threads,
        delete,
        seed: args.seed,
    };
    let outcome = job::run(&job).map_err(|error| match args.dir {
        Some(_) => error,
        None => format!("{error} (run again with --dir to keep the database)").into(),
    })?;
    let mut text = String::new();
    report::print(&mut text, &source, &outcome)?;
    print!("{text}");
    let right = tell_wrong(&outcome);
    if !right {
        eprintln!("the database is kept in {}", place.keep().display());
    }
    Ok(right && outcome.passed)
}

fn country_to_delete(source: &Reference, asked: Option<Country>) -> Result<Country> {
    match asked {
        None => Ok(source.most_frequent().ok_or("the source has no ranges")?.0),
        Some(country) if source.ranges().iter().any(|range| range.country == country) => Ok(country),
        Some(country) => Err(format!("the source has no range in {country}").into()),
    }
}

/// Tells of each wrong answer; false where there was one.
fn tell_wrong(outcome: &Outcome) -> bool {
    for wrong in &outcome.checked.first_wrong {
        eprintln!("{wrong}");
    }
    if outcome.checked.wrong > 0 {
        eprintln!(
            "FAILED: {} of {} answers are wrong",
            outcome.checked.wrong, outcome.checked.lookups
        );
    }
    outcome.checked.wrong == 0
}

/// Where the database lies.
enum Place {
    Temporary(tempfile::TempDir),
    Given(PathBuf),
}

impl Place {
    fn new(dir: Option<&Path>) -> Result<Place> {
        let Some(dir) = dir else {
            return Ok(Place::Temporary(tempfile::tempdir()?));
        };
        std::fs::create_dir_all(dir)?;
        if std::fs::read_dir(dir)?.next().is_some() {
            return Err(format!(
                "{} is not empty: give an empty directory, or a new one",
                dir.display()
            )
            .into());
        }
        Ok(Place::Given(dir.to_owned()))
    }

    fn path(&self) -> &Path {
        match self {
            Place::Temporary(dir) => dir.path(),
            Place::Given(dir) => dir,
        }
    }

    fn keep(self) -> PathBuf {
        match self {
            Place::Temporary(dir) => dir.keep(),
            Place::Given(dir) => dir,
        }
    }
}
