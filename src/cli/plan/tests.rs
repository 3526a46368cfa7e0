//! What people read, and what scripts rely on.

use clap::Parser;

use super::chart::Glyphs;
use super::{Answer, Fleet, render};
use crate::cli::words::Paint;
use crate::core::rollout::advice::advice;
use crate::core::rollout::cost::{CEILING, Cost, PER_RESTART, Question};

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

#[test]
fn a_large_fleet_of_2_10() {
    let answer = answer("--servers 900 --clusters 9 --server-version 2.10.26 --pool-size 3 --clients-per-server 200");
    insta::assert_snapshot!(render::text(&answer, Paint::new(false), Glyphs::Ascii));
}

#[test]
fn forty_servers_of_2_9() {
    let answer = answer("--servers 40 --server-version 2.9.10");
    insta::assert_snapshot!(render::text(&answer, Paint::new(false), Glyphs::Blocks));
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
fn ascii_is_ascii() {
    let text = render::text(
        &answer("--servers 40 --server-version 2.15.1"),
        Paint::new(false),
        Glyphs::Ascii,
    );
    assert!(text.is_ascii(), "{text}");
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
