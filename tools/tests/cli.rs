//! The real executable over real tables.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use siltstone_sstable::{
    Compression, FilterKind, InternalKey, SeqNo, TableBuilder, TableId, TableOptions, Tag, ValueKind,
};
use siltstone_vfs::{Fs, OsFs};
use tempfile::TempDir;

/// What a run came to.
struct Run {
    code: i32,
    out: String,
    err: String,
}

impl Run {
    #[track_caller]
    fn expect(self, code: i32) -> Run {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in\n{}", self.out))
    }

    #[track_caller]
    fn json_lines(&self) -> Vec<Value> {
        let lines = self.out.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")))
            .collect()
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sst-dump"))
}

fn run<S: AsRef<OsStr>>(args: &[S]) -> Run {
    let output = program().args(args).output().unwrap();
    Run {
        code: output.status.code().expect("it ends by itself"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `sst-dump COMMAND... FILE`.
fn on(command: &str, file: &Path) -> Run {
    let mut args: Vec<&OsStr> = command.split(' ').map(OsStr::new).collect();
    args.push(file.as_os_str());
    run(&args)
}

type Entry = (Vec<u8>, u64, ValueKind, Vec<u8>);

fn put(key: impl AsRef<[u8]>, seqno: u64, value: impl AsRef<[u8]>) -> Entry {
    (
        key.as_ref().to_vec(),
        seqno,
        ValueKind::Put,
        value.as_ref().to_vec(),
    )
}

fn build(path: &Path, options: TableOptions, entries: &[Entry]) {
    let mut builder = TableBuilder::new(OsFs.create(path).unwrap(), path, options);
    for (key, seqno, kind, value) in entries {
        builder
            .add(InternalKey::new(key, Tag::new(SeqNo(*seqno), *kind)), value)
            .unwrap();
    }
    builder.finish().unwrap();
}

/// `key000` to `key299` in several blocks.
fn numbered() -> Vec<Entry> {
    (0..300)
        .map(|n| {
            put(
                format!("key{n:03}"),
                1000 + n,
                format!("value of {n}, {}", "x".repeat(40)),
            )
        })
        .collect()
}

/// A directory with one table of [`numbered`] entries.
fn one_table(options: TableOptions) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("000001.sst");
    build(&path, options, &numbered());
    (dir, path)
}

/// A directory with a table of keys that need escapes, versions and a tombstone.
fn odd_table() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("000007.sst");
    let deleted = (b"b".to_vec(), 9, ValueKind::Delete, Vec::new());
    let entries = [
        put("", 1, "empty key"),
        put("a", 3, "newer"),
        put("a", 2, "older"),
        deleted,
        put("b\tc", 4, "tab"),
        put([b'b', 0, 0xff], 5, [1, 2, 0xfe]),
        put(r#"back\slash "q""#, 6, ""),
    ];
    let mut entries = entries.to_vec();
    entries.sort_by(|one, two| one.0.cmp(&two.0).then(two.1.cmp(&one.1)));
    build(&path, TableOptions::default(), &entries);
    (dir, path)
}

fn flip(path: &Path, at: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

/// The parts of a sound table: kind and offset.
fn parts(path: &Path) -> Vec<(String, u64, u64)> {
    let document = on("layout --json", path).expect(0).json();
    let part = |part: &Value| {
        let number = |field: &str| part[field].as_u64().unwrap();
        (
            part["kind"].as_str().unwrap().to_owned(),
            number("offset"),
            number("stored_bytes"),
        )
    };
    document["tables"][0]["parts"]
        .as_array()
        .unwrap()
        .iter()
        .map(part)
        .collect()
}

#[test]
fn a_sound_table_passes_check() {
    for compression in [Compression::None, Compression::Zstd { level: 1 }] {
        for filter in [
            FilterKind::None,
            FilterKind::default(),
            FilterKind::HashIndex,
            FilterKind::Standard { bits_per_key: 10 },
        ] {
            let (_dir, path) = one_table(TableOptions {
                compression,
                filter,
                ..TableOptions::default()
            });
            let text = on("check", &path).expect(0);
            let size = path.metadata().unwrap().len();
            assert_eq!(text.out.lines().count(), 1);
            assert!(
                text.out
                    .starts_with(&format!("{}: sound: 300 entries in ", path.display())),
                "{}",
                text.out
            );
            assert!(text.out.contains(&format!("{size} bytes (")), "{}", text.out);
            assert_eq!(text.err, "");

            let document = on("check --json", &path).expect(0).json();
            let table = &document["tables"][0];
            assert_eq!(table["file"].as_str(), path.to_str());
            assert_eq!(table["sound"], true);
            assert_eq!(table["entries"], 300);
            assert_eq!(table["file_bytes"], size);
            assert!(table.get("error").is_none());
        }
    }
}

#[test]
fn scan_lists_every_version_in_order() {
    let (_dir, path) = odd_table();
    let text = on("scan", &path).expect(0);
    let expected = [
        "\t1\tput\tempty key",
        "a\t3\tput\tnewer",
        "a\t2\tput\tolder",
        "b\t9\tdelete\t",
        "b\\x00\\xff\t5\tput\t\\x01\\x02\\xfe",
        "b\\tc\t4\tput\ttab",
        "back\\\\slash \\\"q\\\"\t6\tput\t",
    ];
    assert_eq!(text.out.lines().collect::<Vec<_>>(), expected);

    let hex = on("scan --hex", &path).expect(0);
    let expected = [
        "\t1\tput\t656d707479206b6579",
        "61\t3\tput\t6e65776572",
        "61\t2\tput\t6f6c646572",
        "62\t9\tdelete\t",
        "6200ff\t5\tput\t0102fe",
        "620963\t4\tput\t746162",
        "6261636b5c736c61736820227122\t6\tput\t",
    ];
    assert_eq!(hex.out.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn scan_in_json_is_an_object_a_line_with_the_same_notation() {
    let (_dir, path) = odd_table();
    let lines = on("scan --json", &path).expect(0).json_lines();
    assert_eq!(lines.len(), 7);
    assert!(lines.iter().all(|line| line["file"].as_str() == path.to_str()));
    assert_eq!(
        (&lines[4]["key"], &lines[4]["value"]),
        (&r"b\x00\xff".into(), &r"\x01\x02\xfe".into())
    );
    assert_eq!(
        (&lines[3]["kind"], &lines[3]["seqno"]),
        (&"delete".into(), &9.into())
    );
    assert!(lines[3].get("value").is_none(), "a tombstone has no value");
    assert_eq!(lines[6]["value"], "", "an empty value is a value");

    let hex = on("scan --json --hex", &path).expect(0).json_lines();
    assert_eq!(
        (&hex[4]["key"], &hex[4]["value"]),
        (&"6200ff".into(), &"0102fe".into())
    );
}

#[test]
fn scan_obeys_its_bounds() {
    let (_dir, path) = one_table(TableOptions::default());
    let keys = |command: &str| -> Vec<String> {
        let text = on(command, &path).expect(0).out;
        text.lines()
            .map(|line| line.split('\t').next().unwrap().to_owned())
            .collect()
    };
    let numbers = |range: std::ops::Range<u32>| range.map(|n| format!("key{n:03}")).collect::<Vec<_>>();

    assert_eq!(keys("scan"), numbers(0..300));
    assert_eq!(keys("scan --from key297"), numbers(297..300));
    assert_eq!(keys("scan --from key2965"), numbers(297..300));
    assert_eq!(keys("scan --to key003"), numbers(0..3));
    assert_eq!(keys("scan --from key100 --to key103"), numbers(100..103));
    assert_eq!(keys("scan --prefix key12"), numbers(120..130));
    assert_eq!(keys("scan --prefix key12 --from key127"), numbers(127..130));
    assert_eq!(
        keys("scan --prefix key12 --from a --to key122"),
        numbers(120..122)
    );
    assert_eq!(keys("scan --prefix key12 --from key2"), numbers(0..0));
    assert_eq!(keys("scan --prefix other"), numbers(0..0));
    assert_eq!(keys("scan --limit 5"), numbers(0..5));
    assert_eq!(keys("scan --limit 0"), numbers(0..0));
    assert_eq!(keys("scan --limit 4 --from key298"), numbers(298..300));
    assert_eq!(
        keys("scan --hex --from 6b6579323938"),
        ["6b6579323938", "6b6579323939"]
    );
    assert_eq!(keys("scan --hex --prefix 0x6B6579323939"), ["6b6579323939"]);
    assert_eq!(keys(r"scan --from \x6bey299"), numbers(299..300));

    let (_dir, odd) = odd_table();
    let copied = on(r"scan --from b\x00\xff --limit 1", &odd).expect(0).out;
    assert!(
        copied.starts_with(r"b\x00\xff"),
        "a key that was shown can be given back: {copied}"
    );
}

#[test]
fn properties_are_shown_in_words() {
    let (_dir, path) = odd_table();
    let document = on("properties --json", &path).expect(0).json();
    let table = &document["tables"][0];
    let expected: [(&str, Value); 11] = [
        ("entries", 7.into()),
        ("tombstones", 1.into()),
        ("seqno_min", 1.into()),
        ("seqno_max", 9.into()),
        ("data_blocks", 1.into()),
        ("block_size_bytes", 4096.into()),
        ("compression", "none".into()),
        ("filter", "blocked".into()),
        ("smallest_key", "".into()),
        ("largest_key", r#"back\\slash \"q\""#.into()),
        ("file_bytes", path.metadata().unwrap().len().into()),
    ];
    for (field, value) in expected {
        assert_eq!(table[field], value, "{field}");
    }
    assert_eq!(table["number"], Value::Null, "it was written without");
    let text = on("properties --hex", &path).expect(0).out;
    assert!(text.contains("  written as      none\n"), "{text}");
    assert!(text.starts_with(&format!("{}\n", path.display())), "{text}");
    assert!(text.contains("  tombstones      1\n"), "{text}");
    assert!(
        text.contains("  largest key     6261636b5c736c61736820227122\n"),
        "{text}"
    );
}

#[test]
fn properties_tell_what_a_renamed_table_was_called() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("000012.sst");
    let builder = TableBuilder::new(OsFs.create(&path).unwrap(), &path, TableOptions::default());
    let mut builder = builder.with_id(TableId(59));
    let tag = Tag::new(SeqNo(1), ValueKind::Put);
    builder.add(InternalKey::new(b"key", tag), b"value").unwrap();
    builder.finish().unwrap();
    let document = on("properties --json", &path).expect(0).json();
    assert_eq!(document["tables"][0]["number"], Value::from(59));
    let text = on("properties", &path).expect(0).out;
    assert!(text.contains("  written as      000059\n"), "{text}");
}

#[test]
fn layout_covers_the_file() {
    for compression in [Compression::None, Compression::Zstd { level: 1 }] {
        let (_dir, path) = one_table(TableOptions {
            compression,
            ..TableOptions::default()
        });
        let document = on("layout --json", &path).expect(0).json();
        let table = &document["tables"][0];
        let listed = table["parts"].as_array().unwrap();
        let data: Vec<_> = listed.iter().filter(|part| part["kind"] == "data").collect();
        assert!(data.len() > 1);
        assert_eq!(
            data.iter()
                .map(|part| part["entries"].as_u64().unwrap())
                .sum::<u64>(),
            300
        );
        assert_eq!(
            (&data[0]["first_key"], &data[0]["offset"]),
            (&"key000".into(), &0.into())
        );
        assert_eq!(data[data.len() - 1]["last_key"], "key299");
        let shrunk = data[0]["raw_bytes"].as_u64() > data[0]["stored_bytes"].as_u64();
        assert_eq!(shrunk, compression != Compression::None);
        assert_eq!(data[0]["compression"], if shrunk { "zstd" } else { "none" });
        for kind in ["index", "filter", "properties", "directory", "footer"] {
            assert_eq!(
                listed.iter().filter(|part| part["kind"] == kind).count(),
                1,
                "{kind}"
            );
        }
        let mut end = 0;
        for (kind, offset, stored) in parts(&path) {
            assert!(
                offset >= end && offset - end < 64,
                "{kind} at {offset}, the one before ends at {end}"
            );
            end = offset + stored;
        }
        assert_eq!(end, path.metadata().unwrap().len());

        let text = on("layout", &path).expect(0).out;
        assert_eq!(
            text.lines().count(),
            listed.len() + 2,
            "a line a part, one for the file, one for the data:\n{text}"
        );
        assert!(text.contains("first key000\n"), "{text}");
    }
}

/// Each part in turn has a byte flipped.
#[test]
fn a_flipped_byte_anywhere_is_found_and_named_by_file_and_offset() {
    let (dir, path) = one_table(TableOptions::default());
    let sound = std::fs::read(&path).unwrap();
    let all = parts(&path);
    let blocks = all.iter().filter(|part| part.0 == "data").count();
    let bad = dir.path().join("000002.sst");
    for (number, (kind, offset, stored)) in all.iter().enumerate() {
        std::fs::write(&bad, &sound).unwrap();
        flip(&bad, offset + stored / 2);
        let check = on("check", &bad).expect(1);
        assert!(
            check
                .out
                .starts_with(&format!("{}: damaged at offset ", bad.display())),
            "{}",
            check.out
        );
        assert!(check.err.contains(bad.to_str().unwrap()), "{kind}: {}", check.err);
        assert!(
            check.err.contains(&format!("offset {offset}")),
            "{kind} at {offset}: {}",
            check.err
        );

        let document = on("check --json", &bad).expect(1).json();
        let table = &document["tables"][0];
        assert_eq!(
            (&table["sound"], &table["error"]["kind"]),
            (&false.into(), &"Corruption".into())
        );
        assert_eq!(table["error"]["offset"], *offset, "{kind}");

        // The entries before a bad block can still be listed, and those alone.
        let scan = on("scan", &bad).expect(1);
        assert!(
            scan.err.contains(&format!("offset {offset}")),
            "{kind}: {}",
            scan.err
        );
        let before = scan.out.lines().count();
        match (kind.as_str(), number) {
            ("data", 0) => assert_eq!(before, 0),
            ("data", _) => assert!((1..300).contains(&before), "{before}"),
            _ => assert_eq!(before, 0, "a table that cannot be opened has no entries"),
        }
        assert!(
            numbered()
                .iter()
                .zip(scan.out.lines())
                .all(|(entry, line)| { line.as_bytes().starts_with(&entry.0) })
        );
        let lines = on("scan --json", &bad).expect(1).json_lines();
        assert_eq!(lines.len(), before + 1);
        assert_eq!(lines[before]["error"]["offset"], *offset);

        // The sections can still be listed where directory and footer are sound.
        let layout = on("layout --json", &bad).expect(1).json();
        let listed = layout["tables"][0]["parts"].as_array().unwrap().clone();
        let expected = match kind.as_str() {
            "footer" => 0,
            "directory" => 2,
            _ => all.len() - blocks,
        };
        assert_eq!(listed.len(), expected, "{kind}");
        let marked: Vec<_> = listed
            .iter()
            .filter(|part| part["damaged"] == true)
            .map(|part| &part["kind"])
            .collect();
        match kind.as_str() {
            "data" | "directory" | "footer" => assert!(marked.is_empty(), "{marked:?}"),
            section => assert_eq!(marked, [section]),
        }

        // The properties do not depend on data blocks.
        on("properties", &bad).expect(if kind == "data" { 0 } else { 1 });
    }
}

#[test]
fn what_is_no_table_at_all_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("000001.sst");
    for bytes in [
        &b""[..],
        b"short",
        &[0; 64],
        &[0xff; 5000],
        "no table ".repeat(1000).as_bytes(),
    ] {
        std::fs::write(&path, bytes).unwrap();
        for command in [
            "check",
            "scan",
            "properties",
            "layout",
            "check --json",
            "layout --json",
        ] {
            let failed = on(command, &path).expect(1);
            assert!(
                failed.err.contains(path.to_str().unwrap()) && failed.err.contains("offset"),
                "{}",
                failed.err
            );
        }
    }
}

#[test]
fn a_cut_table_is_damaged_wherever_it_was_cut() {
    let (_dir, path) = one_table(TableOptions::default());
    let sound = std::fs::read(&path).unwrap();
    for len in [
        sound.len() - 1,
        sound.len() - 64,
        sound.len() / 2,
        4096,
        64,
        63,
        0,
    ] {
        std::fs::write(&path, &sound[..len]).unwrap();
        on("check", &path).expect(1);
    }
}

#[test]
fn a_directory_stands_for_all_its_tables_and_damage_in_one_spares_the_next() {
    let (dir, first) = one_table(TableOptions::default());
    let (second, third) = (dir.path().join("000002.sst"), dir.path().join("000003.sst"));
    build(&second, TableOptions::default(), &[put("k", 1, "v")]);
    build(&third, TableOptions::default(), &[put("l", 2, "w")]);
    std::fs::write(dir.path().join("MANIFEST-000004"), "not a table").unwrap();
    std::fs::create_dir(dir.path().join("000009.sst")).unwrap();

    let sound = on("check", dir.path()).expect(0);
    let starts = |out: &str| -> Vec<String> {
        out.lines()
            .map(|line| line.split(": ").next().unwrap().to_owned())
            .collect()
    };
    let all = [&first, &second, &third].map(|path| path.display().to_string());
    assert_eq!(starts(&sound.out), all);

    flip(&second, 3);
    let damaged = on("check", dir.path()).expect(1);
    assert_eq!(starts(&damaged.out), all);
    assert_eq!(
        damaged
            .out
            .lines()
            .filter(|line| line.contains(": sound: "))
            .count(),
        2
    );
    assert_eq!(damaged.err.lines().count(), 1);
    assert!(damaged.err.contains("000002.sst"));

    let document = on("check --json", dir.path()).expect(1).json();
    let verdicts: Vec<_> = document["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| &table["sound"])
        .collect();
    assert_eq!(verdicts, [true, false, true]);

    let scan = on("scan --limit 1", dir.path()).expect(1);
    let expected = format!("==> {} <==\nkey000", all[0]);
    assert!(scan.out.starts_with(&expected), "{}", scan.out);
    assert!(
        scan.out.ends_with(&format!("==> {} <==\nl\t2\tput\tw\n", all[2])),
        "the limit is each table's: {}",
        scan.out
    );
}

#[test]
fn an_empty_directory_is_remarked_upon() {
    let dir = tempfile::tempdir().unwrap();
    let text = on("check", dir.path()).expect(0);
    assert_eq!(text.out, "");
    assert!(text.err.contains("no tables"), "{}", text.err);
    assert_eq!(
        on("layout --json", dir.path()).expect(0).json()["tables"],
        Value::Array(Vec::new())
    );
}

#[test]
fn wrong_usage_is_2() {
    let (dir, path) = one_table(TableOptions::default());
    let file = path.to_str().unwrap();
    let other = dir.path().join("CURRENT");
    std::fs::write(&other, "x").unwrap();
    let missing = dir.path().join("000099.sst");
    for wrong in [
        vec![],
        vec!["check"],
        vec!["frobnicate", file],
        vec!["check", "--frobnicate", file],
        vec!["check", "--from", "a", file],
        vec!["scan", "--limit", "many", file],
        vec!["scan", "--limit", "-1", file],
        vec!["scan", "--hex", "--from", "abc", file],
        vec!["scan", "--prefix", r"\q", file],
        vec!["scan", "--from", "b", "--to", "a", file],
        vec!["check", missing.to_str().unwrap()],
        vec!["check", other.to_str().unwrap()],
        vec!["check", "/dev/null"],
        vec!["check", ""],
    ] {
        let failed = run(&wrong).expect(2);
        assert_eq!(failed.out, "", "{wrong:?}");
        assert!(!failed.err.is_empty(), "{wrong:?}");
    }

    // The paths that can be read are; damage outweighs usage.
    let mixed = run(&["check", missing.to_str().unwrap(), file]).expect(2);
    assert!(mixed.out.contains(": sound: ") && mixed.err.contains("000099.sst"));
    let document = run(&["check", "--json", missing.to_str().unwrap(), file])
        .expect(2)
        .json();
    assert_eq!(document["tables"][0]["error"]["kind"], "NotFound");
    assert_eq!(document["tables"][1]["sound"], true);
    flip(&path, 0);
    run(&["check", missing.to_str().unwrap(), file]).expect(1);
}

#[test]
fn help_says_what_the_exit_codes_mean() {
    for help in [
        &["--help"][..],
        &["help"],
        &["check", "--help"],
        &["scan", "--help"],
    ] {
        let text = run(help).expect(0).out;
        assert!(text.contains("Exit codes:") && text.contains("damaged"), "{text}");
    }
    run(&["--version"]).expect(0);
}

#[test]
fn the_options_for_all_commands_may_stand_before_the_command() {
    let (_dir, path) = odd_table();
    let after = on("scan --json --hex", &path).expect(0).out;
    assert_eq!(on("--json --hex scan", &path).expect(0).out, after);
}

#[test]
fn no_lock_is_needed_or_touched_and_nothing_is_written() {
    let (dir, path) = one_table(TableOptions::default());
    let lock = OsFs.lock_dir(dir.path()).unwrap();
    let names = OsFs.list(dir.path()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for command in ["check", "scan", "properties", "layout"] {
        on(command, dir.path()).expect(0);
    }
    drop(lock);
    assert_eq!(OsFs.list(dir.path()).unwrap(), names);
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn names_are_found_from_the_current_directory() {
    let (dir, _path) = one_table(TableOptions::default());
    for name in ["000001.sst", "./000001.sst", ".", "../"] {
        let inside = dir.path().join("inside");
        std::fs::create_dir_all(&inside).unwrap();
        let from = if name == "../" {
            inside.as_path()
        } else {
            dir.path()
        };
        let output = program()
            .args(["check", name])
            .current_dir(from)
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("000001.sst: sound: "),
            "{name}"
        );
    }
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("000001.sst");
    // Far more than a pipe and the program's own buffer hold.
    let entries: Vec<Entry> = (0..40)
        .map(|n| put(format!("{n:02}"), 1, vec![b'v'; 100_000]))
        .collect();
    build(&path, TableOptions::default(), &entries);
    for command in [&["scan"][..], &["scan", "--json"]] {
        let mut child = program()
            .args(command)
            .arg(&path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut first)
            .unwrap();
        assert!(first.contains("00"));
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[test]
fn output_that_cannot_be_written_is_no_success() {
    let (_dir, path) = one_table(TableOptions::default());
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else {
        return; // A system without that device.
    };
    let output = program().arg("scan").arg(&path).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("could not write the output"));
}
