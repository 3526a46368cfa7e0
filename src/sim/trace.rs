//! The trace: what happened in a run, in order, and one digest of all of it.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Lines kept to explain a failure; all go into the digest.
const KEPT: usize = 400;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// When.
    pub at: Duration,
    /// Host, or empty for the world.
    pub host: String,
    /// What.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, ms) = (self.at.as_secs(), self.at.subsec_millis());
        write!(f, "{:>4}:{:02}.{ms:03} {:<8} {}", s / 60, s % 60, self.host, self.text)
    }
}

/// The lines of a run.
#[derive(Debug, Clone)]
pub(super) struct Trace {
    lines: VecDeque<Line>,
    keep: usize,
    digest: u64,
}

impl Trace {
    /// Keeps the last few lines, or all.
    #[must_use]
    pub(super) fn new(all: bool) -> Self {
        Self {
            lines: VecDeque::new(),
            keep: if all { usize::MAX } else { KEPT },
            digest: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// Adds a line.
    pub(super) fn say(&mut self, at: Duration, host: &str, text: String) {
        let millis = u64::try_from(at.as_micros()).unwrap_or(u64::MAX).to_le_bytes();
        for byte in millis.iter().chain(host.as_bytes()).chain(text.as_bytes()) {
            // FNV-1a, 64 bits.
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.lines.len() >= self.keep {
            self.lines.pop_front();
        }
        let host = host.to_owned();
        self.lines.push_back(Line { at, host, text });
    }

    /// Equal traces have equal digests.
    #[must_use]
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// The last `n` lines, oldest first.
    #[must_use]
    pub(super) fn tail(&self, n: usize) -> Vec<Line> {
        let skip = self.lines.len().saturating_sub(n);
        self.lines.iter().skip(skip).cloned().collect()
    }
}
