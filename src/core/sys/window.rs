//! Flows of the last seconds, and the volume within them.
//!
//! A flow is what came between two readings. One that is longer than the window counts with the share that its span
//! gives it: when within the span it came is not known, and a mean is the least that is true.

use std::collections::VecDeque;
use std::time::Duration;

use crate::core::ids::Mono;

/// Messages and bytes as amounts or rates.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Amount {
    /// Messages.
    pub msgs: f64,
    /// Bytes.
    pub bytes: f64,
}

impl Amount {
    /// Both times `by`.
    #[must_use]
    pub fn times(self, by: f64) -> Self {
        Self {
            msgs: self.msgs * by,
            bytes: self.bytes * by,
        }
    }

    /// Sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            msgs: self.msgs + other.msgs,
            bytes: self.bytes + other.bytes,
        }
    }

    /// The greater of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            msgs: self.msgs.max(other.msgs),
            bytes: self.bytes.max(other.bytes),
        }
    }

    /// What is no finite amount becomes nothing.
    #[must_use]
    pub fn sane(self) -> Self {
        let sane = |x: f64| if x.is_finite() { x.max(0.0) } else { 0.0 };
        Self {
            msgs: sane(self.msgs),
            bytes: sane(self.bytes),
        }
    }
}

/// What came between two readings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flow {
    /// The later reading.
    pub at: Mono,
    /// Since the one before.
    pub over: Duration,
    /// What came.
    pub amount: Amount,
}

/// Flows of the last `span`.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    span: Duration,
    flows: VecDeque<Flow>,
}

impl Window {
    /// An empty one.
    #[must_use]
    pub fn new(span: Duration) -> Self {
        Self {
            span,
            flows: VecDeque::new(),
        }
    }

    /// Takes in a flow.
    pub fn push(&mut self, flow: Flow) {
        self.flows.push_back(flow);
        self.drop_old(flow.at);
    }

    fn drop_old(&mut self, now: Mono) {
        while self.flows.front().is_some_and(|f| now.since(f.at) >= self.span) {
            self.flows.pop_front();
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.flows.clear();
    }

    /// What came within the last `span` before `now`, and how much of that time was measured.
    #[must_use]
    pub fn volume(&self, now: Mono) -> (Amount, Duration) {
        let mut sum = Amount::default();
        let mut measured = Duration::ZERO;
        for f in &self.flows {
            let age = now.since(f.at);
            if age >= self.span {
                continue;
            }
            let within = f.over.min(self.span - age);
            let share = if f.over.is_zero() {
                1.0
            } else {
                within.as_secs_f64() / f.over.as_secs_f64()
            };
            sum = sum.plus(f.amount.times(share));
            measured += within;
        }
        (sum, measured.min(self.span))
    }

    /// Mean rate over the measured part of the window; `None` = nothing was measured.
    #[must_use]
    pub fn rate(&self, now: Mono) -> Option<Amount> {
        let (sum, measured) = self.volume(now);
        let secs = measured.as_secs_f64();
        (secs > 0.0).then(|| sum.times(1.0 / secs))
    }

    /// When the last flow ended.
    #[must_use]
    pub fn last(&self) -> Option<Mono> {
        self.flows.back().map(|f| f.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(at: u64, over: u64, msgs: f64) -> Flow {
        Flow {
            at: Mono(Duration::from_secs(at)),
            over: Duration::from_secs(over),
            amount: Amount { msgs, bytes: 0.0 },
        }
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut w = Window::new(Duration::from_secs(10));
        for t in 1..=30 {
            w.push(flow(t, 1, 2.0));
        }
        let (sum, measured) = w.volume(Mono(Duration::from_secs(30)));
        assert!((sum.msgs - 20.0).abs() < 1e-9);
        assert_eq!(measured, Duration::from_secs(10));
    }

    #[test]
    fn a_flow_over_a_long_gap_counts_with_its_share_only() {
        let mut w = Window::new(Duration::from_secs(10));
        w.push(flow(100, 100, 1000.0));
        let (sum, _) = w.volume(Mono(Duration::from_secs(100)));
        assert!((sum.msgs - 100.0).abs() < 1e-9);
        assert!(
            w.rate(Mono(Duration::from_secs(100)))
                .is_some_and(|r| (r.msgs - 10.0).abs() < 1e-9)
        );
    }
}
