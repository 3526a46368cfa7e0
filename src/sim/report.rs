//! The table of the score.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Figures, Outcome, Policy, Scenario};

/// A scenario and what became of it under each policy.
pub type Row = (Scenario, Vec<(Policy, Vec<Outcome>)>);

/// The sums, and a table in Markdown: every scenario under every policy, means over the seeds.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = sums(rows);
    text += "\n| incident | policy | minutes of broken paths | of them mendable | harmful acts | restarts | resets | healed after | pages |\n\
             |---|---|---|---|---|---|---|---|---|\n";
    for (scenario, cells) in rows {
        for (policy, outcomes) in cells {
            let _ = writeln!(text, "| {} | {} | {} |", scenario.name, policy.name(), cell(outcomes));
        }
    }
    text
}

/// What the policies come to in all incidents, and in those that a remedy heals.
fn sums(rows: &[Row]) -> String {
    let of = |policy: Policy, remedy: bool, figure: fn(&Figures) -> u64| -> u64 {
        let rows = rows.iter().filter(|(s, _)| !remedy || s.expect.remedy);
        let cells = rows.flat_map(|(_, cells)| cells.iter().filter(|(p, _)| *p == policy));
        cells
            .flat_map(|(_, outcomes)| outcomes)
            .map(|o| figure(&o.figures))
            .sum()
    };
    let remedy = rows.iter().filter(|(s, _)| s.expect.remedy).count();
    let mut text = format!(
        "| policy | harmful acts, all {} incidents | restarts | mendable minutes of broken paths, the {remedy} incidents that a remedy heals |\n\
         |---|---|---|---|\n",
        rows.len()
    );
    for policy in Policy::ALL {
        let seconds = of(policy, true, |f| f.mendable_path_seconds);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {}.{} |",
            policy.name(),
            of(policy, false, |f| f.harmful.into()),
            of(policy, false, |f| f.restarts.into()),
            seconds / 60,
            seconds / 6 % 10
        );
    }
    text
}

fn cell(outcomes: &[Outcome]) -> String {
    let n = outcomes.len().max(1) as u64;
    let mean = |f: fn(&Figures) -> u64| -> String {
        let tenths = outcomes.iter().map(|o| f(&o.figures)).sum::<u64>() * 10 / n;
        match tenths % 10 {
            0 => format!("{}", tenths / 10),
            rest => format!("{}.{rest}", tenths / 10),
        }
    };
    let minutes = |figure: fn(&Figures) -> u64| {
        let seconds: u64 = outcomes.iter().map(|o| figure(&o.figures)).sum();
        format!("{}.{}", seconds / 60 / n, seconds / 6 / n % 10)
    };
    let (all, mendable) = (minutes(|f| f.broken_path_seconds), minutes(|f| f.mendable_path_seconds));
    let worst = outcomes
        .iter()
        .map(|o| o.figures.healed_after)
        .collect::<Option<Vec<Duration>>>();
    let healed = match worst.and_then(|all| all.into_iter().max()) {
        Some(d) => humantime::format_duration(Duration::from_secs(d.as_secs())).to_string(),
        None => "not".to_owned(),
    };
    format!(
        "{all} | {mendable} | {} | {} | {} | {healed} | {}",
        mean(|f| f.harmful.into()),
        mean(|f| f.restarts.into()),
        mean(|f| f.resets.into()),
        mean(|f| f.pages.into()),
    )
}
