//! The table of the score.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Figures, Outcome, Policy, Scenario};

/// A scenario and what became of it under each policy.
pub type Row = (Scenario, Vec<(Policy, Vec<Outcome>)>);

/// Rows of a table in Markdown: every scenario under every policy, means over the seeds.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| incident | policy | minutes of broken paths | harmful acts | restarts | resets | healed after | pages |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (scenario, cells) in rows {
        for (policy, outcomes) in cells {
            let _ = writeln!(text, "| {} | {} | {} |", scenario.name, policy.name(), cell(outcomes));
        }
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
    let seconds: u64 = outcomes.iter().map(|o| o.figures.broken_path_seconds).sum();
    let minutes = format!("{}.{}", seconds / 60 / n, seconds / 6 / n % 10);
    let worst = outcomes
        .iter()
        .map(|o| o.figures.healed_after)
        .collect::<Option<Vec<Duration>>>();
    let healed = match worst.and_then(|all| all.into_iter().max()) {
        Some(d) => humantime::format_duration(Duration::from_secs(d.as_secs())).to_string(),
        None => "not".to_owned(),
    };
    format!(
        "{minutes} | {} | {} | {} | {healed} | {}",
        mean(|f| f.harmful.into()),
        mean(|f| f.restarts.into()),
        mean(|f| f.resets.into()),
        mean(|f| f.pages.into()),
    )
}
