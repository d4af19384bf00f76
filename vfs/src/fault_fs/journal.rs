//! The trace: one line an operation, bounded.

use std::collections::VecDeque;
use std::path::Path;

use super::Detail;
use super::fault::{OpKind, Outcome};

const LINES_MAX: usize = 1 << 16;

/// The last lines of the trace.
pub(super) struct Journal {
    enabled: bool,
    lines: VecDeque<String>,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            enabled: true,
            lines: VecDeque::new(),
        }
    }
}

impl Journal {
    pub(super) fn record(&mut self, kind: OpKind, path: &Path, detail: Detail<'_>, outcome: Outcome) {
        if !self.enabled {
            return;
        }
        let mut line = format!("{} {}", kind.word(), path.display());
        match detail {
            Detail::None => {}
            Detail::Bytes(bytes) => line.push_str(&format!(" {bytes}")),
            Detail::Range(offset, bytes) => line.push_str(&format!(" {offset}+{bytes}")),
            Detail::To(to) => line.push_str(&format!(" -> {}", to.display())),
        }
        if let Outcome::Fail(effect) = outcome {
            line.push_str(" !");
            line.push_str(effect.name());
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }

    pub(super) fn clear(&mut self) {
        self.lines.clear();
    }

    pub(super) fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }
}
