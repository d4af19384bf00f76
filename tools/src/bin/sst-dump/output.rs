//! Where results and errors go, and the exit code they add up to.

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use siltstone_vfs::{Error, ErrorKind};

use crate::problem::{Problem, condition};
use crate::source::{Fate, Source};

/// The shape of standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    /// One document for all tables.
    JsonDocument,
    /// One object a line.
    JsonLines,
}

/// What a command that makes one record a table has found out about one.
#[derive(Debug)]
pub(crate) struct Found<T> {
    /// What could be found out.
    pub(crate) body: Option<T>,
    /// Why that is not all.
    pub(crate) error: Option<Error>,
}

impl<T> From<siltstone_vfs::Result<T>> for Found<T> {
    fn from(result: siltstone_vfs::Result<T>) -> Self {
        match result {
            Ok(body) => Found {
                body: Some(body),
                error: None,
            },
            Err(error) => Found {
                body: None,
                error: Some(error),
            },
        }
    }
}

/// The body of a record: in JSON its fields, in text what it writes.
pub(crate) trait Record: Serialize {
    fn write_text(&self, source: &Source, out: &mut dyn Write) -> io::Result<()>;
}

/// A record in JSON, and a line that tells an error.
#[derive(Serialize)]
struct Line<'a, T> {
    file: String,
    #[serde(flatten)]
    body: Option<&'a T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
}

/// Standard output and standard error. Methods fail where standard output does.
pub(crate) struct Output<'a> {
    out: BufWriter<Box<dyn Write + 'a>>,
    format: Format,
    records: u64,
    damaged: bool,
    unusable: bool,
}

impl<'a> Output<'a> {
    pub(crate) fn new(out: impl Write + 'a, format: Format) -> Self {
        Self {
            out: BufWriter::with_capacity(64 << 10, Box::new(out)),
            format,
            records: 0,
            damaged: false,
            unusable: false,
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Standard output itself.
    pub(crate) fn out(&mut self) -> &mut dyn Write {
        &mut self.out
    }

    /// Writes what was found out about one table.
    pub(crate) fn record<T: Record>(&mut self, source: &Source, found: &Found<T>) -> io::Result<()> {
        if let Some(error) = &found.error
            && source.fate() == Fate::Gone
        {
            return self.gone(source, error);
        }
        match (self.format, &found.body) {
            (Format::Text, Some(body)) => body.write_text(source, &mut self.out)?,
            (Format::Text, None) => {}
            _ => self.line(source.path(), found.body.as_ref(), found.error.as_ref())?,
        }
        match &found.error {
            Some(error) => self.tell_damage(source, error),
            None => Ok(()),
        }
    }

    /// Says that a table could not be read to its end.
    pub(crate) fn damage(&mut self, source: &Source, error: &Error) -> io::Result<()> {
        if source.fate() == Fate::Gone {
            return self.gone(source, error);
        }
        if self.format != Format::Text {
            self.line(source.path(), None::<&()>, Some(error))?;
        }
        self.tell_damage(source, error)
    }

    /// Says that a path is none that can be worked with.
    pub(crate) fn unusable(&mut self, path: &Path, error: &Error) -> io::Result<()> {
        self.unusable = true;
        if self.format != Format::Text {
            self.line(path, None::<&()>, Some(error))?;
        }
        self.tell(format_args!("{error}"))
    }

    /// Says something about a path that changes no verdict.
    pub(crate) fn remark(&mut self, path: &Path, text: &str) -> io::Result<()> {
        self.tell(format_args!("{}: {text}", path.display()))
    }

    fn gone(&mut self, source: &Source, error: &Error) -> io::Result<()> {
        let text = format!("skipped: it has been removed while it was read, which failed thus: {error}");
        self.remark(source.path(), &text)
    }

    fn tell_damage(&mut self, source: &Source, error: &Error) -> io::Result<()> {
        self.damaged = true;
        let condition = condition(error);
        match source.fate() {
            Fate::Changed(len) => self.tell(format_args!(
                "{condition}: {error}; the file's length went from {} to {len} meanwhile: a database may be building or \
                 retiring it, check it again",
                source.len()
            )),
            Fate::Gone | Fate::Settled => self.tell(format_args!("{condition}: {error}")),
        }
    }

    /// A line on standard error, behind everything that was written before it.
    fn tell(&mut self, line: fmt::Arguments<'_>) -> io::Result<()> {
        self.out.flush()?;
        // Where standard error is closed there is nobody to tell; the exit code still speaks.
        let _ = writeln!(io::stderr(), "sst-dump: {line}");
        Ok(())
    }

    /// An object of the document, or a line.
    fn line<T: Serialize>(&mut self, file: &Path, body: Option<&T>, error: Option<&Error>) -> io::Result<()> {
        let line = Line {
            file: file.display().to_string(),
            body,
            error: error.map(Problem::from),
        };
        self.json(&line)
    }

    /// One more object, as the format wants it. The document is written as it goes: it may hold millions of blocks.
    pub(crate) fn json(&mut self, object: &impl Serialize) -> io::Result<()> {
        if self.format == Format::JsonDocument {
            let before: &[u8] = if self.records == 0 {
                b"{\"tables\": [\n"
            } else {
                b",\n"
            };
            self.out.write_all(before)?;
        }
        self.records += 1;
        serde_json::to_writer(&mut self.out, object)?;
        if self.format == Format::JsonLines {
            self.out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Ends the document.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        if self.format == Format::JsonDocument {
            let end: &[u8] = if self.records == 0 {
                b"{\"tables\": []}\n"
            } else {
                b"\n]}\n"
            };
            self.out.write_all(end)?;
        }
        self.out.flush()
    }

    /// The exit code after all this; `answer` is what writing came to.
    pub(crate) fn exit_code(self, answer: io::Result<()>) -> ExitCode {
        // What is still in the buffer has been flushed, or cannot be: dropping the writer would try once more.
        let _ = self.out.into_parts();
        let lost = match answer {
            // The reader has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => false,
            Err(error) => {
                let error = Error::new(ErrorKind::Io, "could not write the output").with_source(error);
                let _ = writeln!(io::stderr(), "sst-dump: {error}");
                true
            }
            Ok(()) => false,
        };
        match (self.damaged, self.unusable || lost) {
            (true, _) => ExitCode::from(1),
            (false, true) => ExitCode::from(2),
            (false, false) => ExitCode::SUCCESS,
        }
    }
}

/// A number of bytes, exact and for the eye.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0;
        write!(f, "{count} bytes")?;
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.into_iter().find(|(shift, _)| count >> shift > 0) {
            Some((shift, unit)) => {
                // In tenths, rounded down: 1023.99 KiB must not read as 1024.0.
                let tenths = (u128::from(count) * 10) >> shift;
                write!(f, " ({}.{} {unit})", tenths / 10, tenths % 10)
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_exact_and_in_the_largest_unit_that_fits() {
        let shown = [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1024 bytes (1.0 KiB)"),
            (1536, "1536 bytes (1.5 KiB)"),
            ((1 << 20) - 1, "1048575 bytes (1023.9 KiB)"),
            (1 << 20, "1048576 bytes (1.0 MiB)"),
            (u64::MAX, "18446744073709551615 bytes (16777215.9 TiB)"),
        ];
        for (count, expected) in shown {
            assert_eq!(Bytes(count).to_string(), expected);
        }
    }

    /// What a running database may do between a table's opening and the end of its reading.
    #[test]
    fn a_table_that_was_retired_meanwhile_is_not_called_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000001.sst");
        for format in [Format::Text, Format::JsonDocument, Format::JsonLines] {
            std::fs::write(&path, "a table").unwrap();
            let source = Source::open(&path).unwrap();
            let mut written = Vec::new();
            let mut output = Output::new(&mut written, format);
            std::fs::remove_file(&path).unwrap();
            output.record(&source, &crate::check::check(&source)).unwrap();
            let error = Error::corruption(&path, 0, "it ends too early");
            output.damage(&source, &error).unwrap();
            assert!(!output.damaged);

            std::fs::write(&path, "cut").unwrap();
            output.damage(&source, &error).unwrap();
            assert!(output.damaged);
            output.finish().unwrap();
            assert_eq!(output.exit_code(Ok(())), ExitCode::from(1));
            let lines = String::from_utf8(written)
                .unwrap()
                .matches("it ends too early")
                .count();
            assert_eq!(lines, usize::from(format != Format::Text));
        }
    }
}
