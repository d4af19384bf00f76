//! Building a test binary, and running a part of it within a time limit.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A part of one test binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suite {
    package: &'static str,
    /// `None` for the unit tests of the package's library.
    binary: Option<&'static str>,
    /// A part of the names of the tests that are run; empty for all.
    filter: &'static str,
}

impl Suite {
    /// Tests of `tests/tests/BINARY.rs`.
    pub(crate) const fn integration(binary: &'static str, filter: &'static str) -> Suite {
        Suite {
            package: "siltstone-tests",
            binary: Some(binary),
            filter,
        }
    }

    /// Tests of `tests/BINARY.rs` of another package, or of the folder of that name.
    pub(crate) const fn integration_of(
        package: &'static str,
        binary: &'static str,
        filter: &'static str,
    ) -> Suite {
        Suite {
            package,
            binary: Some(binary),
            filter,
        }
    }

    /// Unit tests of a package.
    pub(crate) const fn unit(package: &'static str, filter: &'static str) -> Suite {
        Suite {
            package,
            binary: None,
            filter,
        }
    }

    /// The file of a suite of the harness, relative to the workspace, and what the name of a test in it contains.
    #[cfg(test)]
    pub(crate) fn source(&self) -> Option<(String, &'static str)> {
        let binary = self.binary.filter(|_| self.package == "siltstone-tests")?;
        Some((format!("tests/tests/{binary}.rs"), self.filter))
    }

    fn target(&self) -> [&'static str; 2] {
        match self.binary {
            Some(binary) => ["--test", binary],
            None => ["--lib", ""],
        }
    }

    /// Builds the binary in the copy at `root`.
    ///
    /// # Errors
    /// What the compiler says.
    pub(crate) fn build(&self, root: &Path, target_dir: &Path) -> Result<Built, String> {
        let start = Instant::now();
        let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(root)
            .args([
                "test",
                "--locked",
                "--no-run",
                "--message-format=json",
                "--package",
                self.package,
            ])
            .args(self.target().iter().filter(|argument| !argument.is_empty()))
            .env("CARGO_TARGET_DIR", target_dir)
            // Only what differs from build to build has to be fast.
            .env("CARGO_INCREMENTAL", "1")
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .output()
            .map_err(|error| format!("cargo cannot be run: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let messages: Vec<serde_json::Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        if !output.status.success() {
            let rendered = |message: &serde_json::Value| {
                let message = message.get("message")?;
                (message.get("level")? == "error")
                    .then(|| message.get("rendered")?.as_str().map(str::to_owned))?
            };
            let errors: Vec<String> = messages.iter().filter_map(rendered).collect();
            return Err(match errors.first() {
                Some(first) => first.clone(),
                None => String::from_utf8_lossy(&output.stderr).into_owned(),
            });
        }
        let executable = messages.iter().rev().find_map(|message| {
            let kind = message.get("target")?.get("kind")?.get(0)?;
            let wanted = if self.binary.is_some() {
                kind == "test"
            } else {
                kind == "lib"
            };
            let path = message.get("executable")?.as_str()?;
            wanted.then(|| PathBuf::from(path))
        });
        Ok(Built {
            executable: executable.ok_or("cargo has built no test binary")?,
            elapsed: start.elapsed(),
        })
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = self.binary.unwrap_or("unit tests");
        write!(f, "{} {binary}", self.package)?;
        if !self.filter.is_empty() {
            write!(f, " {}", self.filter)?;
        }
        Ok(())
    }
}

/// A test binary.
pub(crate) struct Built {
    executable: PathBuf,
    pub(crate) elapsed: Duration,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// The tests that failed and the first thing that was said about it; no names where the process died.
    Failed {
        tests: Vec<String>,
        message: String,
    },
    /// It was killed at the time limit.
    Hung,
}

impl Built {
    /// Runs the suite's part of the binary, for at most `limit`.
    ///
    /// # Errors
    /// Where the process cannot be started, or no test has run.
    pub(crate) fn run(&self, suite: &Suite, limit: Duration) -> Result<(Verdict, Duration), String> {
        let start = Instant::now();
        let cannot = |error: std::io::Error| format!("{} cannot be run: {error}", self.executable.display());
        let (mut output, end) = std::io::pipe().map_err(cannot)?;
        let mut child = Command::new(&self.executable)
            .args(["--test-threads", "2"])
            .args((!suite.filter.is_empty()).then_some(suite.filter))
            .stdin(Stdio::null())
            .stdout(end.try_clone().map_err(cannot)?)
            .stderr(end)
            .spawn()
            .map_err(cannot)?;
        let (sender, receiver) = mpsc::channel();
        // The pipe ends when the process does.
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let read = output.read_to_end(&mut bytes);
            // Nobody waits any more for what was killed.
            let _ = sender.send(read.map(|_| String::from_utf8_lossy(&bytes).into_owned()));
        });
        let received = receiver.recv_timeout(limit);
        if received.is_err() {
            child.kill().map_err(cannot)?;
        }
        let status = child.wait().map_err(cannot)?;
        reader.join().map_err(|_| "the reader of the output panicked")?;
        let elapsed = start.elapsed();
        let Ok(text) = received else {
            return Ok((Verdict::Hung, elapsed));
        };
        let text = text.map_err(cannot)?;
        if status.success() {
            if text.contains("running 0 tests") {
                return Err(format!("{suite} has no test of that name"));
            }
            return Ok((Verdict::Passed, elapsed));
        }
        Ok((failure(&text, &status.to_string()), elapsed))
    }
}

/// Reads libtest's output.
fn failure(text: &str, status: &str) -> Verdict {
    let tests = text
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
        .map(str::to_owned)
        .collect();
    // What follows the line with the place of the panic.
    let mut lines = text.lines().skip_while(|line| !line.contains("panicked at"));
    let message = lines.nth(1).filter(|line| !line.is_empty()).unwrap_or(status);
    Verdict::Failed {
        tests,
        message: message.chars().take(160).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_a_failed_run_is_understood() {
        let text = "running 2 tests\ntest a::b ... ok\ntest c ... FAILED\n\nfailures:\n\n---- c stdout ----\n\n\
                    thread 'c' (1) panicked at src/x.rs:1:2:\nseed 7: wrong scan\nnote: run with\n";
        let expected = Verdict::Failed {
            tests: vec!["c".into()],
            message: "seed 7: wrong scan".into(),
        };
        assert_eq!(failure(text, "exit status: 101"), expected);
        let killed = failure("running 1 test\n", "signal: 6 (SIGABRT)");
        assert!(
            matches!(killed, Verdict::Failed { tests, message } if tests.is_empty() && message.contains("SIGABRT"))
        );
    }
}
