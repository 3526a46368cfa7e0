//! What a roll over part of a fleet costs in system traffic, and which stagger keeps it under a ceiling: the model's
//! figures (`core::sys::model`) for a given question. Payload bytes throughout.

use std::time::Duration;

use crate::core::sys::model::{self, Load, Quiet, RestartCost, Shape, Volume};
use crate::core::sys::roll::{Ceiling, Unkeepable, least_stagger};

/// A restart with its proof, as a guess before the first one was measured: start, three good reads two seconds apart.
pub const PER_RESTART: Duration = Duration::from_secs(10);
/// The ceiling where none is given: restarts may make as much traffic as there is at rest.
pub const CEILING: Ceiling = Ceiling::TimesQuiet(2.0);
/// No stagger that a human would call one is shorter.
const SHORTEST: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The fleet.
    pub shape: Shape,
    /// Servers to restart, at most all.
    pub hosts: u32,
    /// At a time.
    pub at_once: u32,
    /// From the proof of one (or of so many) to the next; `None` = the least that keeps the ceiling.
    pub stagger: Option<Duration>,
    /// For system traffic into each server.
    pub ceiling: Ceiling,
    /// One restart with its proof.
    pub per_restart: Duration,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    /// The question.
    pub question: Question,
    /// Payload of one STATSZ.
    pub statsz_bytes: f64,
    /// One server at rest.
    pub quiet: Quiet,
    /// One restart.
    pub restart: RestartCost,
    /// Most that healthy servers may send into one.
    pub worst: Load,
    /// The ceiling in bytes per second into each.
    pub ceiling: f64,
    /// The least stagger under the ceiling.
    pub least: Result<Duration, Unkeepable>,
    /// The stagger that the rest of the answer is for.
    pub stagger: Duration,
    /// From the first command to the last proof.
    pub duration: Duration,
    /// The highest second into each server.
    pub peak: Load,
    /// The mean into each server while the roll lasts.
    pub mean: Load,
    /// What the whole roll adds, deliveries at all servers counted.
    pub total: Volume,
}

impl Cost {
    /// Answers `question`.
    ///
    /// # Errors
    /// A stagger is to be found, and no stagger keeps the ceiling.
    pub fn of(question: Question) -> Result<Self, Unkeepable> {
        let shape = &question.shape;
        let (quiet, restart) = (model::quiet(shape), model::restart(shape));
        let ceiling = match question.ceiling {
            Ceiling::BytesPerSecond(bytes) => bytes,
            Ceiling::TimesQuiet(times) => quiet.received.bytes_per_second * times,
        };
        let least = least(&question, ceiling);
        let stagger = match question.stagger {
            Some(stagger) => stagger,
            None => least?,
        };
        let at_once = f64::from(question.at_once.max(1));
        let hosts = question.hosts.min(shape.servers);
        let steps = hosts.div_ceil(question.at_once.max(1));
        let duration = question
            .per_restart
            .saturating_mul(steps)
            .saturating_add(stagger.saturating_mul(steps.saturating_sub(1)));
        let bursts = plus(
            quiet.received,
            Load {
                msgs_per_second: restart.peak.msgs_per_second * at_once,
                bytes_per_second: restart.peak.bytes_per_second * at_once,
            },
        );
        let cycle = question.per_restart.saturating_add(stagger).as_secs_f64().max(1.0);
        let extra = |amount: f64| amount * at_once / cycle;
        Ok(Self {
            statsz_bytes: model::statsz_bytes(shape),
            worst: model::worst_legal(shape),
            mean: plus(
                quiet.received,
                Load {
                    msgs_per_second: extra(restart.into_each.msgs),
                    bytes_per_second: extra(restart.into_each.bytes),
                },
            ),
            total: Volume {
                msgs: restart.total.msgs * f64::from(hosts),
                bytes: restart.total.bytes * f64::from(hosts),
            },
            peak: bursts,
            quiet,
            restart,
            ceiling,
            least,
            stagger,
            duration,
            question,
        })
    }

    /// The stagger given keeps the mean under the ceiling.
    #[must_use]
    pub fn keeps_ceiling(&self) -> bool {
        self.least.as_ref().is_ok_and(|least| self.stagger >= *least)
    }

    /// Bytes per second into each server in `columns` equal spans of `width`, from just before the first restart: a
    /// restart's burst falls into the span in which the server is back.
    #[must_use]
    pub fn curve(&self, columns: usize, width: Duration) -> Vec<f64> {
        let width = width.as_secs_f64().max(1.0);
        let q = &self.question;
        let cycle = q.per_restart.saturating_add(self.stagger).as_secs_f64().max(1.0);
        let steps = q.hosts.min(q.shape.servers).div_ceil(q.at_once.max(1));
        let burst = self.restart.into_each.bytes * f64::from(q.at_once.max(1));
        let mut curve = vec![self.quiet.received.bytes_per_second; columns];
        for step in 0..steps {
            let at = f64::from(step) * cycle + width;
            let Some(rate) = curve.get_mut((at / width).floor() as usize) else {
                break;
            };
            *rate += burst / width;
        }
        curve
    }
}

/// As [`least_stagger`], for several at once, in whole seconds, and no shorter than [`SHORTEST`].
fn least(question: &Question, ceiling: f64) -> Result<Duration, Unkeepable> {
    // So many at once fill the room so many times faster: the same as one under a ceiling whose room is that much less.
    let quiet = model::quiet(&question.shape).received.bytes_per_second;
    let room = (ceiling - quiet) / f64::from(question.at_once.max(1));
    let least = least_stagger(&question.shape, Ceiling::BytesPerSecond(quiet + room))
        .map_err(|e| Unkeepable { ceiling, ..e })?;
    let whole = if least.subsec_nanos() > 0 { 1 } else { 0 };
    Ok(Duration::from_secs(least.as_secs().saturating_add(whole)).max(SHORTEST))
}

fn plus(a: Load, b: Load) -> Load {
    Load {
        msgs_per_second: a.msgs_per_second + b.msgs_per_second,
        bytes_per_second: a.bytes_per_second + b.bytes_per_second,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::sys::model::ServerVersion;

    fn question(servers: u32, version: ServerVersion) -> Question {
        Question {
            shape: Shape::new(servers, 1, version),
            hosts: servers,
            at_once: 1,
            stagger: None,
            ceiling: CEILING,
            per_restart: PER_RESTART,
        }
    }

    #[test]
    fn the_stagger_found_keeps_the_ceiling_and_a_shorter_one_does_not() {
        let auto = Cost::of(question(40, ServerVersion::new(2, 10, 26))).unwrap();
        assert!(auto.keeps_ceiling());
        let shorter = Question {
            stagger: Some(auto.stagger - Duration::from_secs(1)),
            ..auto.question.clone()
        };
        assert!(!Cost::of(shorter).unwrap().keeps_ceiling());
    }

    #[test]
    fn a_ceiling_below_the_quiet_traffic_is_refused_with_the_figures() {
        let low = Question {
            ceiling: Ceiling::TimesQuiet(0.5),
            ..question(40, ServerVersion::new(2, 10, 26))
        };
        let e = Cost::of(low.clone()).unwrap_err();
        assert!(e.ceiling < e.quiet, "{e}");
        // A stagger that somebody gave is still answered for.
        let given = Question {
            stagger: Some(Duration::from_secs(30)),
            ..low
        };
        assert!(!Cost::of(given).unwrap().keeps_ceiling());
    }

    #[test]
    fn the_roll_lasts_as_long_as_its_restarts_and_the_gaps_between_them() {
        let cost = Cost::of(Question {
            hosts: 10,
            stagger: Some(Duration::from_secs(30)),
            ..question(40, ServerVersion::new(2, 10, 26))
        })
        .unwrap();
        assert_eq!(cost.duration, Duration::from_secs(10 * 10 + 9 * 30));
        let two = Question {
            at_once: 2,
            ..cost.question.clone()
        };
        assert_eq!(Cost::of(two).unwrap().duration, Duration::from_secs(5 * 10 + 4 * 30));
    }

    proptest! {
        #[test]
        fn more_at_once_need_a_longer_stagger_and_no_figure_is_wild(
            servers in 2_u32..1_000, clusters in 1_u32..20, pool in -1_i32..10, clients in 0_u32..500,
            factor in 1.01_f64..20.0, minor in 9_u16..12
        ) {
            let shape = Shape {
                pool_size: pool,
                clients_per_server: clients,
                accounts: u32::from(clients > 0),
                ..Shape::new(servers, clusters, ServerVersion::new(2, minor, 10))
            };
            let ask = |at_once| Question {
                shape: shape.clone(), hosts: servers, at_once, stagger: None,
                ceiling: Ceiling::TimesQuiet(factor), per_restart: PER_RESTART,
            };
            let one = Cost::of(ask(1)).unwrap();
            let three = Cost::of(ask(3)).unwrap();
            prop_assert!(three.stagger >= one.stagger);
            for c in [&one, &three] {
                prop_assert!(c.peak.bytes_per_second >= c.quiet.received.bytes_per_second);
                prop_assert!(c.mean.bytes_per_second <= c.ceiling * 1.000_001, "{c:?}");
                prop_assert!(c.total.bytes.is_finite() && c.total.bytes > 0.0);
                let curve = c.curve(60, Duration::from_secs(2));
                prop_assert!(curve.iter().all(|r| r.is_finite() && *r >= c.quiet.received.bytes_per_second));
            }
        }
    }
}
