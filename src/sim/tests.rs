//! What the simulator promises, and what the agents must do in it.

use std::path::Path;
use std::time::Duration;

use super::*;

fn scenario(text: &str) -> Scenario {
    let head = "name = \"t\"\nabout = \"t\"\n";
    Scenario::parse(Path::new("t.toml"), &format!("{head}{text}")).unwrap()
}

fn whole(s: &Scenario, seed: u64) -> Outcome {
    let options = Options {
        whole_trace: true,
        ..Options::default()
    };
    run(s, seed, options)
}

fn text(outcome: &Outcome) -> String {
    outcome.trace.iter().map(|l| format!("{l}\n")).collect()
}

#[test]
fn a_fleet_in_which_nothing_goes_wrong_does_nothing() {
    let o = whole(&scenario("duration = \"10m\"\n"), 1);
    assert_eq!(o.violation, None);
    assert_eq!((o.figures.restarts, o.figures.resets), (0, 0));
    assert!(!text(&o).contains("fault"), "{}", text(&o));
}

#[test]
fn a_stalled_route_is_reset_and_healed() {
    let s = scenario(
        "duration = \"5m\"\n[[fault]]\nat = \"60s\"\nkind = \"route_stall\"\nhost = \"iad-4\"\npeer = \"iad-5\"\n",
    );
    let o = whole(&s, 1);
    assert_eq!(o.violation, None, "{}", text(&o));
    assert_eq!((o.figures.restarts, o.figures.resets), (0, 1), "{}", text(&o));
    let healed = o.figures.healed_after.unwrap();
    assert!(healed < Duration::from_secs(10), "{healed:?}\n{}", text(&o));
}
