//! The command as a user runs it, on the excerpt.

use std::process::{Command, Output};

fn geoip(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_geoip"))
        .args(arguments)
        .output()
        .expect("the example runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_excerpt_is_loaded_and_every_answer_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let output = geoip(&[
        "--seconds",
        "0",
        "--threads",
        "3",
        "--delete",
        "FR",
        "--dir",
        path,
    ]);
    let (printed, complained) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{printed}{complained}");
    assert!(
        printed.contains("6000 ranges (4000 IPv4, 2000 IPv6)"),
        "{printed}"
    );
    assert!(
        printed.contains("lookups against a binary search: 0 wrong"),
        "{printed}"
    );
    assert!(printed.contains("388 ranges, compacted"), "{printed}");
    // A second load over what is there would be checked against the wrong reference.
    let again = geoip(&["--dir", path]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("is not empty"));
}

#[test]
fn wrong_input_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
    std::fs::write(&good, "1,2,DE\n").unwrap();
    std::fs::write(&bad, "::,::1,DE\n::1,::2,DE\n").unwrap();
    let output = geoip(&["--ipv4", good.to_str().unwrap(), "--ipv6", bad.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("bad:2: range from ::1"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(geoip(&["--ipv4", "only"]).status.code(), Some(2));
    assert_eq!(geoip(&["--delete", "de"]).status.code(), Some(2));
    assert_eq!(geoip(&["--delete", "QQ"]).status.code(), Some(1));
}
