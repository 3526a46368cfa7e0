//! What a check found: a state and a sentence for each thing looked at, and the figures behind it.

use serde::Serialize;

/// A state as Nagios knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum State {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl State {
    /// The exit code.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// Codes are not in order of badness: what is not known is better than what is known to be bad.
    pub(super) fn badness(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Unknown => 1,
            Self::Warning => 2,
            Self::Critical => 3,
        }
    }

    /// The worse of two.
    pub(super) fn worse(self, other: Self) -> Self {
        if other.badness() > self.badness() { other } else { self }
    }
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    #[serde(rename = "status")]
    pub(super) state: State,
    pub(super) text: String,
}

/// The values at which a figure is bad: outside the range from `from` to `to`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    Above(f64),
    Below(f64),
}

impl Bound {
    pub(super) fn broken(self, value: f64) -> bool {
        match self {
            Self::Above(limit) => value > limit,
            Self::Below(limit) => value < limit,
        }
    }

    pub(super) fn limit(self) -> f64 {
        match self {
            Self::Above(limit) | Self::Below(limit) => limit,
        }
    }
}

/// A figure with its thresholds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) value: f64,
    /// A unit of performance data: nothing, `s`, `B`, `%`, `c`.
    pub(super) unit: &'static str,
    pub(super) warn: Option<Bound>,
    pub(super) critical: Option<Bound>,
    pub(super) help: &'static str,
}

impl Figure {
    pub(super) fn new(name: &'static str, value: f64, unit: &'static str, help: &'static str) -> Self {
        Self {
            name,
            value,
            unit,
            warn: None,
            critical: None,
            help,
        }
    }

    pub(super) fn limits(mut self, warn: Bound, critical: Bound) -> Self {
        (self.warn, self.critical) = (Some(warn), Some(critical));
        self
    }

    /// What its thresholds say.
    pub(super) fn state(&self) -> State {
        let broken = |bound: Option<Bound>| bound.is_some_and(|b| b.broken(self.value));
        match (broken(self.critical), broken(self.warn)) {
            (true, _) => State::Critical,
            (false, true) => State::Warning,
            (false, false) => State::Ok,
        }
    }
}

/// Everything.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Report {
    /// Host, or the address where none was found.
    pub(super) name: String,
    pub(super) findings: Vec<Finding>,
    pub(super) figures: Vec<Figure>,
}

impl Report {
    pub(super) fn single(name: &str, state: State, text: &str) -> Self {
        let mut report = Self {
            name: name.to_owned(),
            findings: Vec::new(),
            figures: Vec::new(),
        };
        report.found("agent", state, text);
        report
    }

    pub(super) fn found(&mut self, check: &'static str, state: State, text: impl Into<String>) {
        self.findings.push(Finding {
            check,
            state,
            text: text.into(),
        });
    }

    /// The worst of all.
    pub(super) fn state(&self) -> State {
        self.findings.iter().fold(State::Ok, |worst, f| worst.worse(f.state))
    }

    /// Texts of the findings in `state`.
    pub(super) fn texts(&self, state: State) -> Vec<&str> {
        let of = self.findings.iter().filter(|f| f.state == state);
        of.map(|f| f.text.as_str()).collect()
    }
}
