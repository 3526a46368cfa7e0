//! The simulator as it is shipped: every scenario of the catalogue, seeds of mixed faults, mutations, mistakes in files.
//!
//! The runs are made by the optimized binary of profile `sim` without the agent, which the first test that needs it builds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

/// Seeds of mixed faults in CI, the first ones; `make simulate` runs more, what it showed is in docs/simulation.md.
const SEEDS: &str = "300";
/// Trace digest of seed 7, on every machine.
const SEVENTH: &str = "6522365eb879d56f";
/// A mutation must be caught within so many; and by which of them it is known to be.
const MUTANTS: u32 = 1000;
const CAUGHT_BY: [(&str, u32); 4] = [
    ("no-ledger", 37),
    ("no-network-check", 3),
    ("no-sick-limit", 21),
    ("no-permits", 13),
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let target = Path::new(env!("CARGO_BIN_EXE_watchdog"))
            .parent()
            .unwrap()
            .parent()
            .unwrap();
        let built = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--profile",
                "sim",
                "--bin",
                "watchdog",
                "--no-default-features",
                "--target-dir",
            ])
            .arg(target)
            .current_dir(repository())
            .status()
            .unwrap();
        assert!(built.success(), "the simulator does not build");
        target.join("sim/watchdog")
    })
}

fn simulate(args: &[&str]) -> Output {
    Command::new(binary())
        .arg("simulate")
        .args(args)
        .current_dir(repository())
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn seeds_of_mixed_faults_break_no_invariant() {
    let o = simulate(&["tests/scenarios/mixed.toml", "--runs", SEEDS]);
    assert!(o.status.success(), "{}", text(&o));
}

#[test]
fn every_incident_of_the_catalogue_comes_out_as_it_says() {
    let o = simulate(&["tests/scenarios/catalogue"]);
    let said = text(&o);
    let incidents = said.lines().filter(|l| l.contains(": 1 run of ")).count();
    assert!(incidents >= 20, "{said}");
    assert!(o.status.success(), "{said}");
}

#[test]
fn the_same_seed_is_the_same_trace_and_another_seed_another() {
    let digest = |seed: &str| {
        let o = simulate(&["tests/scenarios/mixed.toml", "--seed", seed, "--output", "json"]);
        let value: Value = serde_json::from_slice(&o.stdout).unwrap();
        value[0]["trace_digest"].as_str().unwrap().to_owned()
    };
    let seventh = digest("7");
    assert_ne!(seventh, digest("8"));
    assert_eq!(
        seventh, SEVENTH,
        "where what agents do was changed, this is the new one; where it was not, this machine computes another trace"
    );
}

/// Without the gate, the check or the ledger an invariant breaks soon: the checks see what they are for.
#[test]
fn what_is_taken_away_is_missed() {
    for (what, by) in CAUGHT_BY {
        // The seeds before break nothing without it: that is the test above.
        let (from, runs) = (by.to_string(), (MUTANTS - by).to_string());
        let seeds = ["--seed", &from, "--runs", &runs];
        let scenario = ["tests/scenarios/mixed.toml", "--mutate", what];
        let o = simulate(&[&scenario[..], &seeds].concat());
        let said = text(&o);
        assert_eq!(o.status.code(), Some(1), "{what} is not caught: {said}");
        assert!(said.contains("invariant "), "{said}");
        assert!(
            said.contains(&format!("--mutate {what} --trace")),
            "no command that repeats it: {said}"
        );
    }
}

#[test]
fn a_mistake_in_a_scenario_is_told_with_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wrong.toml");
    std::fs::write(
        &file,
        "name = \"x\"\nabout = \"x\"\n[[fault]]\nat = \"1m\"\nkind = \"meteor\"\n",
    )
    .unwrap();
    let o = simulate(&[file.to_str().unwrap()]);
    assert_eq!(o.status.code(), Some(2));
    let said = text(&o);
    assert!(
        said.contains("wrong.toml:5: kind = \"meteor\": expected one of route_stall,"),
        "{said}"
    );
    let o = simulate(&[dir.path().join("none.toml").to_str().unwrap()]);
    assert_eq!(o.status.code(), Some(2));
    assert!(text(&o).contains("none.toml"), "{}", text(&o));
}
