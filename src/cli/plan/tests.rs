//! What people read, and what scripts rely on.

use std::time::Duration;

use clap::Parser;

use super::chart::Glyphs;
use super::{Answer, Fleet, render};
use crate::cli::words::Paint;
use crate::core::rollout::advice::{Advice, advice};
use crate::core::rollout::cost::{CEILING, Cost, PER_RESTART, Question};
use crate::core::sys::model::{Load, Quiet, RestartCost, Volume};
use crate::core::sys::roll::Unkeepable;

#[derive(Debug, Parser)]
struct Flags {
    #[command(flatten)]
    fleet: Fleet,
}

fn answer(flags: &str) -> Answer {
    let argv = ["plan"].into_iter().chain(flags.split(' '));
    let known = Flags::parse_from(argv).fleet.known().unwrap().unwrap();
    let cost = Cost::of(Question {
        hosts: known.shape.servers,
        shape: known.shape,
        at_once: 1,
        stagger: None,
        ceiling: CEILING,
        per_restart: PER_RESTART,
    })
    .unwrap();
    Answer {
        advice: advice(&cost, None),
        cost,
        notes: known.notes,
        live: false,
    }
}

/// Round figures, whatever the model says today: these tests are about words.
fn round(flags: &str) -> Answer {
    let mut answer = answer(flags);
    let load = |msgs_per_second, bytes_per_second| Load {
        msgs_per_second,
        bytes_per_second,
    };
    let volume = |msgs, bytes| Volume { msgs, bytes };
    answer.advice = vec![Advice {
        about: "pool_size",
        text: "With cluster.pool_size: -1 a STATSZ has 13 kB instead of 50 kB, and this sentence is long enough to be \
               wrapped onto a second line."
            .to_owned(),
    }];
    answer.cost = Cost {
        statsz_bytes: 50_000.0,
        quiet: Quiet {
            received: load(90.0, 4.5e6),
            sent: load(90.0, 4.5e6),
        },
        restart: RestartCost {
            total: volume(990_000.0, 40.7e9),
            into_each: volume(1_100.0, 45.2e6),
            into_restarted: volume(900.0, 45e6),
            lasts: Duration::from_millis(15_750),
            peak: load(1_100.0, 45.2e6),
        },
        worst: load(899.0, 45e6),
        ceiling: 9e6,
        least: Ok(Duration::from_secs(16)),
        stagger: Duration::from_secs(16),
        duration: Duration::from_secs(900 * 10 + 899 * 16),
        peak: load(1_190.0, 49.7e6),
        mean: load(132.0, 6.2e6),
        total: volume(893e6, 36.6e12),
        ..answer.cost
    };
    answer
}

const LARGE: &str = "--servers 900 --clusters 9 --server-version 2.10.26 --pool-size 3 --clients-per-server 200";

#[test]
fn a_plan_as_people_read_it() {
    let text = render::text(&round(LARGE), Paint::new(false), Glyphs::Ascii);
    assert!(text.is_ascii(), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn a_stagger_that_is_too_short_and_a_ceiling_that_none_keeps_are_said_so() {
    let mut answer = round(LARGE);
    answer.cost.stagger = Duration::from_secs(2);
    let text = render::text(&answer, Paint::new(false), Glyphs::Blocks);
    assert!(text.contains("2s, too short for the ceiling"), "{text}");
    let quiet = answer.cost.quiet.received.bytes_per_second;
    answer.cost.least = Err(Unkeepable { ceiling: 1.0, quiet });
    let text = render::text(&answer, Paint::new(false), Glyphs::Blocks);
    assert!(text.contains("none: the traffic at rest is above it"), "{text}");
    insta::assert_snapshot!(text.split("means over").nth(1).unwrap().split("Advice").next().unwrap());
}

#[test]
fn machines_get_every_figure() {
    let value = render::json(&answer("--servers 40 --server-version 2.10.26"));
    for pointer in [
        "/fleet/servers",
        "/quiet/received/bytes_per_second",
        "/restart/into_each/messages",
        "/restart/total/bytes",
        "/roll/least_stagger_seconds",
        "/roll/duration_seconds",
        "/roll/peak/bytes_per_second",
    ] {
        assert!(
            value.pointer(pointer).is_some_and(serde_json::Value::is_number),
            "{pointer}: {value:#}"
        );
    }
    assert_eq!(value["roll"]["keeps_ceiling"], true);
}

#[test]
fn half_a_fleet_is_a_usage_error() {
    for wrong in [
        "--servers 9",
        "--server-version 2.10.26",
        "--clusters 3",
        "--servers 0 --server-version 2.10.26",
        "--servers 9 --server-version newest",
    ] {
        let argv = ["plan"].into_iter().chain(wrong.split(' '));
        assert_eq!(Flags::try_parse_from(argv).unwrap_err().exit_code(), 2, "{wrong}");
    }
    let argv = "plan --servers 3 --clusters 9 --server-version 2.10.26".split(' ');
    let text = Flags::parse_from(argv).fleet.known().unwrap_err();
    assert!(text.contains("a cluster has a server at least"), "{text}");
}
