//! What to change so that restarts cost less: the model asked again with one thing changed. A change that saves little is
//! not worth a sentence.

use crate::core::rollout::cost::Cost;
use crate::core::sys::model::{self, ServerVersion, Shape};

/// A share of what is there that is worth a sentence.
const WORTH: f64 = 0.25;
/// Bytes a second at rest into each server from which sizes are worth one.
const BYTES_WORTH: f64 = 10_000.0;
/// First version of the limit that is compared with.
const LIMITED: ServerVersion = ServerVersion::new(2, 10, 26);

/// Advice on one matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// `version`, `pool_size`, `clients`, `connect_retries`, `at_once`.
    pub about: &'static str,
    /// A sentence or two.
    pub text: String,
}

/// What follows for `cost`; `gossiped`: some routes are not configured (`None` = not known).
#[must_use]
pub fn advice(cost: &Cost, gossiped: Option<bool>) -> Vec<Advice> {
    let shape = &cost.question.shape;
    [
        version(cost, shape),
        pool(cost, shape),
        clients(cost, shape),
        at_once(cost),
        routes(shape, gossiped),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn version(cost: &Cost, shape: &Shape) -> Option<Advice> {
    let version = shape.version;
    if version.limits_statsz() || shape.servers < 3 {
        return None;
    }
    let newer = Shape {
        version: LIMITED,
        ..shape.clone()
    };
    let unpooled = Shape {
        pool_size: -1,
        ..newer.clone()
    };
    let (now, then) = (cost.restart.total.msgs, model::restart(&newer).total.msgs);
    let (small, large) = (cost.statsz_bytes, model::statsz_bytes(&newer));
    let mut text = format!(
        "{version} has no limit on STATSZ broadcasts (2.10.17 and 2.11 have: one a second): a restart makes {} messages, and \
         would make {} on {LIMITED}.",
        number(now),
        number(then)
    );
    if large > small * (1.0 + WORTH) {
        text += &format!(
            " Set cluster.pool_size: -1 with the upgrade: with the default pool of 3 a STATSZ grows from {} to {}, without it \
             to {}.",
            bytes(small),
            bytes(large),
            bytes(model::statsz_bytes(&unpooled))
        );
    }
    Some(Advice { about: "version", text })
}

fn pool(cost: &Cost, shape: &Shape) -> Option<Advice> {
    if !shape.version.pools_routes() || shape.pool_size < 0 || cost.quiet.received.bytes_per_second < BYTES_WORTH {
        return None;
    }
    let without = Shape {
        pool_size: -1,
        ..shape.clone()
    };
    let saved = saved(cost.statsz_bytes, model::statsz_bytes(&without))?;
    let (quiet, restart) = (model::quiet(&without), model::restart(&without));
    Some(Advice {
        about: "pool_size",
        text: format!(
            "With cluster.pool_size: -1 a STATSZ has {} instead of {} ({saved} less): {}/s at rest into each server instead of \
             {}/s, {} per restart instead of {}. All accounts then share one connection per peer.",
            bytes(model::statsz_bytes(&without)),
            bytes(cost.statsz_bytes),
            bytes(quiet.received.bytes_per_second),
            bytes(cost.quiet.received.bytes_per_second),
            bytes(restart.into_each.bytes),
            bytes(cost.restart.into_each.bytes),
        ),
    })
}

fn clients(cost: &Cost, shape: &Shape) -> Option<Advice> {
    let without = Shape {
        clients_per_server: 0,
        ..shape.clone()
    };
    let share = saved(cost.restart.total.msgs, model::restart(&without).total.msgs)?;
    Some(Advice {
        about: "clients",
        text: format!(
            "{share} of a restart's messages are CONNS events of its {} clients, which no version limits: move clients away \
             first, or restart when fewest are connected.",
            shape.clients_per_server
        ),
    })
}

fn at_once(cost: &Cost) -> Option<Advice> {
    let n = cost.question.at_once;
    (n > 1).then(|| Advice {
        about: "at_once",
        text: format!(
            "{n} at once put {}/s into each server in the second in which they are back; one at a time puts {}/s.",
            bytes(cost.peak.bytes_per_second),
            bytes(cost.quiet.received.bytes_per_second + cost.restart.peak.bytes_per_second)
        ),
    })
}

fn routes(shape: &Shape, gossiped: Option<bool>) -> Option<Advice> {
    // Two servers of a cluster that do not list each other learn of each other by a third.
    if shape.servers / shape.clusters.max(1) < 3 || gossiped == Some(false) {
        return None;
    }
    let which = match gossiped {
        Some(_) => "Some routes are",
        None => "If not every server lists all its peers, some routes are",
    };
    Some(Advice {
        about: "connect_retries",
        text: format!(
            "{which} learned by gossip and redialled once only: a cut during the roll leaves a hole in the mesh. List all \
             peers in cluster.routes, or set cluster.connect_retries: 100000."
        ),
    })
}

/// The share saved, in words, where it is worth it.
fn saved(now: f64, then: f64) -> Option<String> {
    let share = 1.0 - then / now;
    (share.is_finite() && share >= WORTH).then(|| format!("{:.0} %", share * 100.0))
}

/// `950 B`, `10.8 kB`, `46 MB`, decimal.
#[must_use]
pub fn bytes(n: f64) -> String {
    let (value, unit) = scaled(n);
    let unit = match unit {
        "" => " B".to_owned(),
        unit => format!(" {unit}B"),
    };
    format!("{value}{unit}")
}

/// `950`, `10.8 k`, `46 M`.
#[must_use]
pub fn number(n: f64) -> String {
    match scaled(n) {
        (value, "") => value,
        (value, unit) => format!("{value} {unit}"),
    }
}

/// Three digits and a unit.
fn scaled(n: f64) -> (String, &'static str) {
    let units = ["", "k", "M", "G", "T", "P"];
    let mut value = n;
    let mut unit = 0;
    while value.abs() >= 999.5 && unit + 1 < units.len() {
        value /= 1_000.0;
        unit += 1;
    }
    let digits = match value.abs() {
        v if v < 9.995 && (unit > 0 || v.fract() > 0.0) => 2,
        v if v < 99.95 && (unit > 0 || v.fract() > 0.0) => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    (text, units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::rollout::cost::{CEILING, PER_RESTART, Question};

    fn cost(shape: Shape) -> Cost {
        Cost::of(Question {
            hosts: shape.servers,
            shape,
            at_once: 1,
            stagger: None,
            ceiling: CEILING,
            per_restart: PER_RESTART,
        })
        .unwrap()
    }

    fn about(shape: Shape, gossiped: Option<bool>) -> Vec<&'static str> {
        advice(&cost(shape), gossiped).iter().map(|a| a.about).collect()
    }

    #[test]
    fn an_old_version_is_told_of_the_limit_and_of_what_pools_would_cost_with_it() {
        let old = Shape::new(40, 1, ServerVersion::new(2, 9, 10));
        let all = advice(&cost(old.clone()), Some(false));
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(all[0].text.contains("2.9.10 has no limit"), "{}", all[0].text);
        assert!(all[0].text.contains("pool_size: -1"), "{}", all[0].text);
        assert_eq!(about(Shape::new(40, 1, LIMITED), Some(false)), ["pool_size"]);
    }

    #[test]
    fn nothing_is_advised_that_is_done_or_would_save_nothing() {
        let unpooled = Shape {
            pool_size: -1,
            ..Shape::new(40, 1, LIMITED)
        };
        assert!(about(unpooled, Some(false)).is_empty());
        assert!(about(Shape::new(2, 1, LIMITED), None).is_empty());
    }

    #[test]
    fn clients_are_told_of_where_they_dominate() {
        let busy = Shape {
            pool_size: -1,
            clients_per_server: 200,
            accounts: 1,
            ..Shape::new(40, 1, LIMITED)
        };
        assert_eq!(about(busy, Some(false)), ["clients"]);
    }

    #[test]
    fn gossip_is_a_certainty_or_a_condition() {
        let shape = Shape {
            pool_size: -1,
            ..Shape::new(9, 1, LIMITED)
        };
        let text = |gossiped| advice(&cost(shape.clone()), gossiped)[0].text.clone();
        assert!(text(Some(true)).starts_with("Some routes are learned by gossip"));
        assert!(text(None).starts_with("If not every server"));
    }

    #[test]
    fn figures_have_three_digits() {
        for (n, text) in [
            (0.0, "0 B"),
            (950.0, "950 B"),
            (999.7, "1 kB"),
            (10_840.0, "10.8 kB"),
            (4_590_000.0, "4.59 MB"),
            (46_000_000.0, "46 MB"),
            (1.7e12, "1.7 TB"),
        ] {
            assert_eq!(bytes(n), text);
        }
        assert_eq!((number(2.6), number(150_000.0)), ("2.6".to_owned(), "150 k".to_owned()));
        let _ = (number(f64::NAN), number(f64::INFINITY), bytes(-5.0));
    }
}
