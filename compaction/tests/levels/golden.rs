//! What the picker chooses, as files to read: `testdata/pick_*`. `REWRITE=1` writes what it chooses now.
//!
//! A file is a list of cases, divided by empty lines; a case is commands, a line `----`, and the output of the last
//! command. State lasts from case to case. `#` begins a comment. Commands:
//!
//! ```text
//! options [name=value ..]          start from nothing, with these options
//! L<n> <id> <from>-<to> <bytes> [seq=<min>-<max>] [entries=<n>] [tombstones=<n>]     add a table
//! snapshot <seqno>|none            the oldest snapshot
//! pick | range <level> [<from>-<to>]     print a plan
//! start | finish                   the last plan begins to run; all running plans end without a result
//! aside | resume                   all running plans have failed and wait; those that wait may be picked again
//! install                          the last plan, if it writes nothing, is done
//! bulk on|off                      writes press, or let up
//! scores | debt | check | levels | runs | backlog    print them; runs are those of level 0
//! ```

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use siltstone_compaction::{
    Cursors, InFlight, LEVELS, LeveledOptions, Plan, TableMeta, Version, VersionEdit, base_level, debt_bytes,
    l0_backlog, pick, pick_range, scores,
};
use siltstone_sstable::{SeqNo, TableId};

#[test]
fn the_picker_chooses_what_the_golden_files_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut names: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    assert!(names.len() >= 5, "golden files are missing");
    for path in names {
        let found = std::fs::read_to_string(&path).unwrap();
        let expected = run_file(&found);
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(&path, expected).unwrap();
        } else {
            assert_eq!(found, expected, "{}: review, then REWRITE=1", path.display());
        }
    }
}

fn run_file(text: &str) -> String {
    let mut world = World::default();
    let mut out = String::new();
    let mut in_output = false;
    for line in text.lines() {
        match line {
            "----" => {
                in_output = true;
                out.push_str("----\n");
                out.push_str(&world.output);
            }
            "" => {
                in_output = false;
                out.push('\n');
            }
            _ if in_output => {}
            _ => {
                out.push_str(line);
                out.push('\n');
                world.run(line.split('#').next().unwrap().trim());
            }
        }
    }
    out
}

#[derive(Default)]
struct World {
    version: Version,
    options: LeveledOptions,
    busy: InFlight,
    running: Vec<Plan>,
    cursors: Cursors,
    plan: Option<Plan>,
    output: String,
}

impl World {
    fn run(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            ["options", settings @ ..] => {
                *self = World {
                    options: parse_options(settings),
                    ..World::default()
                };
            }
            [level, rest @ ..] if level.starts_with('L') => self.add(level[1..].parse().unwrap(), rest),
            ["snapshot", "none"] => self.busy.set_oldest_snapshot(None),
            ["snapshot", seqno] => self.busy.set_oldest_snapshot(Some(SeqNo(seqno.parse().unwrap()))),
            ["pick"] => {
                self.plan = pick(&self.version, &self.options, &self.busy, &mut self.cursors);
                self.print_plan();
            }
            ["range", level, bounds @ ..] => {
                let bounds = bounds.first().map(|bounds| bounds.split_once('-').unwrap());
                let (from, to) = (bounds.map(|b| b.0.as_bytes()), bounds.map(|b| b.1.as_bytes()));
                let level = level.parse().unwrap();
                self.plan = pick_range(&self.version, &self.options, &self.busy, level, from, to);
                self.print_plan();
            }
            ["start"] => {
                let plan = self.plan.take().expect("a plan to start");
                self.busy.start(&plan);
                self.running.push(plan);
            }
            ["finish"] => self.running.drain(..).for_each(|plan| self.busy.finish(&plan)),
            ["aside"] => self.running.drain(..).for_each(|plan| self.busy.put_aside(plan)),
            ["resume"] => self.busy.take_up_put_aside(),
            ["install"] => {
                let plan = self.plan.take().expect("a plan to install");
                self.version = self.version.apply(&plan.edit(Vec::new())).unwrap();
            }
            ["bulk", now] => self.options.bulk_load = *now == "on",
            ["backlog"] => self.output = format!("{}\n", l0_backlog(&self.version, &self.options)),
            ["runs"] => {
                self.output.clear();
                for run in self.version.l0_runs() {
                    writeln!(self.output, "{}", ids(&run.tables)).unwrap();
                }
            }
            ["scores"] => {
                self.output = format!("base L{}\n", base_level(&self.version, &self.options));
                for (level, score) in scores(&self.version, &self.options)
                    .iter()
                    .filter(|(_, score)| *score > 0.0)
                {
                    writeln!(self.output, "L{level} {score:.2}").unwrap();
                }
            }
            ["debt"] => self.output = format!("{}\n", debt_bytes(&self.version, &self.options)),
            ["check"] => {
                self.output = match self.version.check() {
                    Ok(()) => "sound\n".to_owned(),
                    Err(error) => format!("{error}\n"),
                }
            }
            ["levels"] => {
                self.output.clear();
                for level in (0..LEVELS).filter(|level| !self.version.level(*level).is_empty()) {
                    writeln!(self.output, "L{level}: {}", ids(self.version.level(level))).unwrap();
                }
            }
            _ => panic!("unknown command: {line}"),
        }
    }

    fn add(&mut self, level: u8, words: &[&str]) {
        let [id, keys, size_bytes, rest @ ..] = words else {
            panic!("a table needs id, keys and size: {words:?}")
        };
        let id: u64 = id.parse().unwrap();
        let (smallest, largest) = keys.split_once('-').unwrap();
        // Ids grow with time, so a table's default seqnos are its own.
        let mut table = TableMeta {
            id: TableId(id),
            size_bytes: size_bytes.parse().unwrap(),
            entries: 100,
            tombstones: 0,
            smallest: smallest.as_bytes().into(),
            largest: largest.as_bytes().into(),
            seqno_min: SeqNo(id * 100),
            seqno_max: SeqNo(id * 100 + 99),
        };
        for (name, value) in rest.iter().map(|word| word.split_once('=').unwrap()) {
            match name {
                "seq" => {
                    let (min, max) = value.split_once('-').unwrap();
                    (table.seqno_min, table.seqno_max) =
                        (SeqNo(min.parse().unwrap()), SeqNo(max.parse().unwrap()));
                }
                "entries" => table.entries = value.parse().unwrap(),
                "tombstones" => table.tombstones = value.parse().unwrap(),
                _ => panic!("unknown field {name}"),
            }
        }
        let edit = VersionEdit {
            added: vec![(level, table)],
            removed: Vec::new(),
        };
        match self.version.apply(&edit) {
            Ok(version) => self.version = version,
            Err(error) => self.output = format!("{error}\n"),
        }
    }

    fn print_plan(&mut self) {
        let Some(plan) = &self.plan else {
            self.output = "nothing\n".to_owned();
            return;
        };
        let (smallest, largest) = plan.key_range();
        let bottommost = if plan.bottommost { " bottommost" } else { "" };
        self.output = format!(
            "L{} -> L{} {:?} for {:?}, {}-{}, {} bytes{bottommost}\n",
            plan.level,
            plan.output_level,
            plan.kind,
            plan.reason,
            smallest.escape_ascii(),
            largest.escape_ascii(),
            plan.input_bytes()
        );
        for (level, tables) in &plan.inputs {
            writeln!(self.output, "  L{level}: {}", ids(tables)).unwrap();
        }
        if !plan.grandparents.is_empty() {
            writeln!(self.output, "  grandparents: {}", ids(&plan.grandparents)).unwrap();
        }
    }
}

fn ids(tables: &[Arc<TableMeta>]) -> String {
    tables
        .iter()
        .map(|table| table.id.0.to_string())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Small numbers, so that the files can be read: tables of 100 bytes, 1,000 in the first level.
fn parse_options(settings: &[&str]) -> LeveledOptions {
    let mut options = LeveledOptions {
        level_base_bytes: 1000,
        target_table_bytes: 100,
        max_compaction_bytes: 2500,
        ..LeveledOptions::default()
    };
    for (name, value) in settings.iter().map(|word| word.split_once('=').unwrap()) {
        match name {
            "trigger" => options.l0_compaction_trigger = value.parse().unwrap(),
            "run" => options.l0_run_trigger = value.parse().unwrap(),
            "base" => options.level_base_bytes = value.parse().unwrap(),
            "multiplier" => options.level_multiplier = value.parse().unwrap(),
            "target" => options.target_table_bytes = value.parse().unwrap(),
            "max" => options.max_compaction_bytes = value.parse().unwrap(),
            "dynamic" => options.dynamic_levels = value.parse().unwrap(),
            "tombstone_ratio" => options.tombstone_ratio = value.parse().unwrap(),
            "order" if value == "round_robin" => {
                options.pick_order = siltstone_compaction::PickOrder::RoundRobin
            }
            _ => panic!("unknown option {name}"),
        }
    }
    options.check().unwrap();
    options
}
