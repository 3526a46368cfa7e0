//! Brownout at one host: a state machine over the flow of system traffic.
//!
//! Three typed reasons. *Far above expected*: the volume of the last ten seconds exceeds quiet traffic by more than is
//! allowed: `factor` times the usual, or one and a half rounds of STATSZ (timers in step are legal), or a floor; plus
//! the volume of one restart for each that is explained ([`crate::core::sys::explain`]). *Ceiling*: bytes of the last five seconds near
//! the configured ceiling; nothing excuses that. *Change*: the baseline's CUSUM
//! ([`crate::core::sys::baseline`]).
//!
//! A volume is judged, not a rate, since a storm of a small fleet is over in seconds and timers run in step. Entry and
//! exit have different levels; the exit must hold for [`CALM`]. Blind spots: a storm of less than the floor (100 messages and
//! 1 MB within ten seconds) is none; a storm that one explained restart's volume covers is not seen; readings further
//! apart than the window see only their mean.

use std::fmt;
use std::time::Duration;

use crate::core::ids::{Mono, Now, Wall};
use crate::core::policy::Brownout;
use crate::core::sys::baseline::{self, Baseline, Usual};
use crate::core::sys::expect::Expected;
use crate::core::sys::window::{Amount, Flow, Window};

/// The window of the volume.
pub const WINDOW: Duration = Duration::from_secs(10);
/// The window of the ceiling.
const SHORT: Duration = Duration::from_secs(5);
/// The exit level must hold so long.
pub const CALM: Duration = Duration::from_secs(10);
/// Less excess within the window is no brownout.
pub const FLOOR: Amount = Amount {
    msgs: 100.0,
    bytes: 1e6,
};
/// The model is within a quarter of the measured cost of a restart.
const SLACK: f64 = 1.5;
/// Rounds of STATSZ that may come at once.
const ROUNDS: f64 = 1.5;
/// While it is on, one round at a time is still calm.
const CALM_ROUNDS: f64 = 1.1;
/// Share of the entry level's excess below which it is calm.
const EXIT: f64 = 0.5;
/// Share of the ceiling where a brownout begins, and where it ends.
const NEAR: (f64, f64) = (0.8, 0.6);
/// Without a ceiling in the configuration, bytes per second.
const CEILING: f64 = 64e6;
/// What may become usual whatever the model says, per second.
const USUAL: Amount = Amount {
    msgs: 200.0,
    bytes: 2e6,
};
/// Without readings for so long, what was on is not known to be on.
const LOST: Duration = Duration::from_secs(300);
/// Traffic that is explained is told of once in this time.
const TOLD: Duration = Duration::from_secs(60);
/// No score is shown above this.
const MOST: f64 = 1000.0;

/// Why it is a brownout.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reason {
    /// Messages or bytes far above what is expected.
    FarAbove {
        /// `messages` or `bytes`.
        what: &'static str,
        /// Measured, per second.
        measured: f64,
        /// Expected, per second.
        expected: f64,
        /// Allowed with all that explains more, per second.
        allowed: f64,
    },
    /// Bytes near the ceiling.
    Ceiling {
        /// Measured, bytes per second.
        measured: f64,
        /// The ceiling.
        ceiling: f64,
    },
    /// A lasting change that nothing explains.
    Change {
        /// `messages` or `bytes`.
        what: &'static str,
        /// Times the usual.
        times: f64,
    },
}

impl Reason {
    /// A short constant.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::FarAbove { .. } => "far_above",
            Self::Ceiling { .. } => "ceiling",
            Self::Change { .. } => "change",
        }
    }

    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::FarAbove { what: a, .. }, Self::FarAbove { what: b, .. })
            | (Self::Change { what: a, .. }, Self::Change { what: b, .. }) => a == b,
            (a, b) => a.kind() == b.kind(),
        }
    }
}

/// `12,345 messages/s`, `3.2 MB/s`.
struct Figure(&'static str, f64);

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(what, x) = *self;
        match what {
            "bytes" if x >= 1e6 => write!(f, "{:.1} MB/s", x / 1e6),
            "bytes" => write!(f, "{:.1} kB/s", x / 1e3),
            _ if x >= 10.0 => write!(f, "{x:.0} messages/s"),
            _ => write!(f, "{x:.1} messages/s"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::FarAbove {
                what,
                measured,
                expected,
                allowed,
            } => write!(
                f,
                "system traffic of {} where {} are expected and at most {} are explained",
                Figure(what, measured),
                Figure(what, expected),
                Figure(what, allowed)
            ),
            Self::Ceiling { measured, ceiling } => write!(
                f,
                "system traffic of {} is near the ceiling of {}",
                Figure("bytes", measured),
                Figure("bytes", ceiling)
            ),
            Self::Change { what, times } => write!(
                f,
                "system traffic in {what} is {times:.1} times the usual since some minutes, and nothing explains it"
            ),
        }
    }
}

/// Where it stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum State {
    /// Nothing.
    #[default]
    Quiet,
    /// Above the entry level, not long enough.
    Suspect {
        /// Since.
        since: Mono,
    },
    /// On.
    Brownout {
        /// Since.
        since: Now,
        /// All reasons that held since then, with their worst figures.
        reasons: Vec<Reason>,
    },
    /// On, and below the exit level.
    Ending {
        /// When it began.
        since: Now,
        /// Why it began.
        reasons: Vec<Reason>,
        /// Below the exit level since.
        calm: Mono,
    },
}

/// What a step changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Above the entry level, not long enough to be believed: read again soon.
    Suspected,
    /// There is as much as in a brownout, and it is explained; told once per `TOLD`.
    Explained,
    /// It is on.
    Began,
    /// It is over.
    Ended {
        /// How long it lasted.
        lasted: Duration,
        /// No readings came any more: over because unknown.
        lost: bool,
    },
}

/// What the detector needs to know beside the flow.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// What is expected; `None` = unknown: only the ceiling is judged.
    pub expected: Option<&'a Expected>,
    /// The flow is what the server receives; else what it sends.
    pub receives: bool,
    /// Restarts that are explained now.
    pub restarts: u32,
    /// The local server has just started: volumes are not judged.
    pub starting: bool,
    /// `[brownout]`
    pub policy: &'a Brownout,
}

/// Levels of the volume within the window.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Levels {
    /// Quiet.
    pub quiet: Amount,
    /// Excess over quiet where a brownout begins, without explanations.
    pub entry: Amount,
    /// What is explained on top.
    pub explained: Amount,
    /// Excess below which it is calm.
    pub exit: Amount,
}

/// The detector of one host.
#[derive(Debug, Clone)]
pub struct Detector {
    state: State,
    window: Window,
    short: Window,
    msgs: Baseline,
    bytes: Baseline,
    levels: Levels,
    ceiling: f64,
    score: f64,
    last: Option<Mono>,
    excused: bool,
    told: Option<Mono>,
}

impl Default for Detector {
    fn default() -> Self {
        Self {
            state: State::Quiet,
            window: Window::new(WINDOW),
            short: Window::new(SHORT),
            msgs: Baseline::new(FLOOR.msgs / WINDOW.as_secs_f64()),
            bytes: Baseline::new(FLOOR.bytes / WINDOW.as_secs_f64()),
            levels: Levels::default(),
            ceiling: CEILING,
            score: 0.0,
            last: None,
            excused: false,
            told: None,
        }
    }
}

impl Detector {
    /// Takes in what came since the last reading.
    pub fn on_flow(&mut self, flow: Flow, context: &Context<'_>, now: Now) -> Option<Change> {
        self.last = Some(now.mono);
        self.window.push(flow);
        self.short.push(flow);
        let quiet = context
            .expected
            .map(|e| if context.receives { e.received } else { e.sent });
        let frozen = self.is_on() || matches!(self.state, State::Suspect { .. });
        if let Some(quiet) = quiet {
            let excused = context.restarts > 0 || context.starting;
            self.msgs.push(flow.amount.msgs, quiet.msgs, &flow, excused, frozen);
            self.bytes.push(flow.amount.bytes, quiet.bytes, &flow, excused, frozen);
        }
        self.levels = context
            .expected
            .zip(quiet)
            .map_or_else(Levels::default, |(e, quiet)| self.levels_of(e, quiet, context));
        let known = context.expected.is_some() && !context.starting;
        self.ceiling = ceiling(context, quiet);
        let (reasons, calm) = self.judge(known, now.mono);
        let change = self.go(reasons, calm, context.policy.minimum, now);
        change.or_else(|| self.tell_of_excuse(now.mono))
    }

    /// A reading was not believed: the one before may have been the wrong one.
    pub fn on_odd(&mut self) {
        self.window.clear();
        self.short.clear();
        if matches!(self.state, State::Suspect { .. }) {
            self.state = State::Quiet;
            self.score = 0.0;
        }
    }

    /// Time passes without readings.
    pub fn on_tick(&mut self, now: Now) -> Option<Change> {
        let silent = self.last.is_none_or(|t| now.mono.since(t) >= LOST);
        match &self.state {
            State::Suspect { since } if now.mono.since(*since) > WINDOW => {
                self.state = State::Quiet;
                self.score = 0.0;
                None
            }
            State::Brownout { since, .. } | State::Ending { since, .. } if silent => {
                let lasted = now.mono.since(since.mono);
                self.state = State::Quiet;
                self.score = 0.0;
                Some(Change::Ended { lasted, lost: true })
            }
            _ => None,
        }
    }

    fn tell_of_excuse(&mut self, now: Mono) -> Option<Change> {
        let due = self.told.is_none_or(|t| now.since(t) >= TOLD);
        if !(self.excused && due && self.state == State::Quiet) {
            return None;
        }
        self.told = Some(now);
        Some(Change::Explained)
    }

    fn levels_of(&self, e: &Expected, quiet: Amount, context: &Context<'_>) -> Levels {
        let secs = WINDOW.as_secs_f64();
        let cap = |q: f64, worst: f64, most: f64| baseline::cap(q, worst, most);
        let usual = Amount {
            msgs: quiet.msgs * self.msgs.usual(cap(quiet.msgs, e.worst.msgs, USUAL.msgs)),
            bytes: quiet.bytes * self.bytes.usual(cap(quiet.bytes, e.worst.bytes, USUAL.bytes)),
        };
        let quiet = usual.times(secs);
        let above = quiet.times((context.policy.factor - 1.0).max(0.1));
        let entry = above.max(e.round.times(ROUNDS)).max(FLOOR);
        Levels {
            quiet,
            entry,
            explained: e.restart.times(SLACK * f64::from(context.restarts)),
            exit: entry.times(EXIT).max(e.round.times(CALM_ROUNDS)),
        }
    }

    /// Reasons that hold now, and whether it is calm.
    fn judge(&mut self, known: bool, now: Mono) -> (Vec<Reason>, bool) {
        let mut reasons = Vec::new();
        let mut calm = true;
        let mut score: f64 = 0.0;
        self.excused = false;
        let (volume, _) = self.window.volume(now);
        let l = self.levels;
        let secs = WINDOW.as_secs_f64();
        // What is a storm already is not excused by an explanation that comes later.
        let stormy = self.reasons().iter().any(|r| matches!(r, Reason::FarAbove { .. }));
        let explained = if stormy { Amount::default() } else { l.explained };
        if known {
            for (what, v, quiet, entry, explained, exit) in [
                (
                    "messages",
                    volume.msgs,
                    l.quiet.msgs,
                    l.entry.msgs,
                    explained.msgs,
                    l.exit.msgs,
                ),
                (
                    "bytes",
                    volume.bytes,
                    l.quiet.bytes,
                    l.entry.bytes,
                    explained.bytes,
                    l.exit.bytes,
                ),
            ] {
                let excess = v - quiet - explained;
                score = score.max(excess / entry);
                self.excused |= excess < entry && v - quiet >= entry;
                calm &= v - quiet < exit;
                if excess >= entry {
                    reasons.push(Reason::FarAbove {
                        what,
                        measured: v / secs,
                        expected: quiet / secs,
                        allowed: (quiet + entry + explained) / secs,
                    });
                }
            }
            for (what, b) in [("messages", &self.msgs), ("bytes", &self.bytes)] {
                if let Usual::Changed { times } = b.says() {
                    score = score.max(times / baseline::CHANGE);
                    calm = false;
                    reasons.push(Reason::Change { what, times });
                }
            }
        }
        let (bytes, measured) = self.short.volume(now);
        let rate = bytes.bytes / measured.as_secs_f64().max(1.0);
        score = score.max(rate / (self.ceiling * NEAR.0));
        calm &= rate < self.ceiling * NEAR.1;
        if rate >= self.ceiling * NEAR.0 {
            reasons.push(Reason::Ceiling {
                measured: rate,
                ceiling: self.ceiling,
            });
        }
        self.score = if score.is_finite() { score.clamp(0.0, MOST) } else { 0.0 };
        (reasons, calm)
    }

    fn go(&mut self, new: Vec<Reason>, calm: bool, minimum: Duration, now: Now) -> Option<Change> {
        let over = !new.is_empty();
        match std::mem::take(&mut self.state) {
            State::Quiet if over => {
                self.state = State::Suspect { since: now.mono };
                Some(Change::Suspected)
            }
            State::Suspect { since } if over => {
                if now.mono.since(since) < minimum {
                    self.state = State::Suspect { since };
                    return Some(Change::Suspected);
                }
                // It began when it was first seen, not when it was believed.
                let ago = now.mono.since(since);
                let since = Now {
                    mono: since,
                    wall: Wall(now.wall.0.saturating_sub(ago)),
                };
                self.state = State::Brownout { since, reasons: new };
                Some(Change::Began)
            }
            State::Quiet | State::Suspect { .. } => None,
            State::Brownout { since, reasons } if calm && !over => {
                let calm = now.mono;
                self.state = State::Ending { since, reasons, calm };
                None
            }
            State::Brownout { since, reasons } => {
                let reasons = worst(reasons, new);
                self.state = State::Brownout { since, reasons };
                None
            }
            State::Ending { since, reasons, .. } if over || !calm => {
                let reasons = worst(reasons, new);
                self.state = State::Brownout { since, reasons };
                None
            }
            State::Ending { since, calm, .. } if now.mono.since(calm) >= CALM => {
                let lasted = now.mono.since(since.mono);
                Some(Change::Ended { lasted, lost: false })
            }
            ending @ State::Ending { .. } => {
                self.state = ending;
                None
            }
        }
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// On or ending.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.since().is_some()
    }

    /// On, and for another reason than the ceiling.
    #[must_use]
    pub fn is_on_by_volume(&self) -> bool {
        self.reasons().iter().any(|r| !matches!(r, Reason::Ceiling { .. }))
    }

    /// When it began, while it is on.
    #[must_use]
    pub fn since(&self) -> Option<Now> {
        match &self.state {
            State::Brownout { since, .. } | State::Ending { since, .. } => Some(*since),
            State::Quiet | State::Suspect { .. } => None,
        }
    }

    /// Why, while it is on.
    #[must_use]
    pub fn reasons(&self) -> &[Reason] {
        match &self.state {
            State::Brownout { reasons, .. } | State::Ending { reasons, .. } => reasons,
            State::Quiet | State::Suspect { .. } => &[],
        }
    }

    /// 1 is where a brownout begins.
    #[must_use]
    pub fn score(&self) -> f64 {
        self.score
    }

    /// Levels in force.
    #[must_use]
    pub fn levels(&self) -> Levels {
        self.levels
    }

    /// What ends it, as a sentence.
    #[must_use]
    pub fn ends_when(&self) -> String {
        let secs = WINDOW.as_secs_f64();
        let below = self.levels.quiet.plus(self.levels.exit).times(1.0 / secs);
        format!(
            "system traffic stays below {} and {} for {}",
            Figure("messages", below.msgs),
            Figure("bytes", below.bytes.min(self.ceiling * NEAR.1)),
            humantime::format_duration(CALM)
        )
    }
}

fn ceiling(context: &Context<'_>, quiet: Option<Amount>) -> f64 {
    match context.policy.ceiling_bytes_per_second {
        Some(ceiling) => ceiling.max(1.0),
        // A large fleet is louder than this in quiet times, and more so where its timers run in step.
        None => quiet.map_or(CEILING, |q| CEILING.max(q.bytes * context.policy.factor * 3.0)),
    }
}

/// The union of reasons, each with the figures that were worst.
fn worst(mut old: Vec<Reason>, new: Vec<Reason>) -> Vec<Reason> {
    let figure = |r: &Reason| match r {
        Reason::FarAbove { measured, .. } | Reason::Ceiling { measured, .. } => *measured,
        Reason::Change { times, .. } => *times,
    };
    for reason in new {
        match old.iter_mut().find(|r| r.same(&reason)) {
            Some(r) if figure(r) < figure(&reason) => *r = reason,
            Some(_) => {}
            None => old.push(reason),
        }
    }
    old
}

#[cfg(test)]
#[path = "detect_tests.rs"]
mod tests;
