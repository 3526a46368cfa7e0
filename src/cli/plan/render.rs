//! A plan as tables and sentences, or as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::Answer;
use super::chart::{self, Glyphs};
use crate::cli::words::{Paint, Tone, span};
use crate::core::rollout::advice::{bytes, number};
use crate::core::rollout::cost::Cost;
use crate::core::sys::model::{Load, Volume};

/// Columns of the chart.
const COLUMNS: usize = 60;
/// Restarts that the chart shows.
const SHOWN: u32 = 3;

pub(super) fn text(answer: &Answer, paint: Paint, glyphs: Glyphs) -> String {
    let cost = &answer.cost;
    let mut text = paint.heading("Fleet") + "\n";
    text += &format!("  {}\n", fleet(answer));
    for note in &answer.notes {
        text += &format!("  {note}\n");
    }
    text += &format!("\n{}\n", paint.heading("System traffic, payload bytes"));
    text += &traffic(cost, paint);
    text += &format!("\n{}\n", paint.heading("Rolling restart"));
    text += &roll(cost, paint);
    let (curve, width) = curve(cost);
    text += &format!(
        "\n{}\n{}",
        paint.heading(&format!(
            "Into each server during the first restarts, means over {}",
            humantime::format_duration(width)
        )),
        chart::chart(&curve, cost.ceiling, width, glyphs)
    );
    if !answer.advice.is_empty() {
        text += &format!("\n{}\n", paint.heading("Advice"));
        for advice in &answer.advice {
            text += &wrapped(&advice.text, 100);
        }
    }
    text
}

fn fleet(answer: &Answer) -> String {
    let s = &answer.cost.question.shape;
    let plural = |n: u32, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let pool = match (s.version.pools_routes(), s.pool_size) {
        (false, _) => "one route connection per peer".to_owned(),
        (true, pool) if pool < 0 => "no route pool".to_owned(),
        (true, pool) => format!("route pool of {pool}, {} pinned", s.pinned),
    };
    let from = if answer.live { "as its agents tell" } else { "as given" };
    format!(
        "{} in {}, nats-server {}, {pool}, {} each ({from})",
        plural(s.servers, "server"),
        plural(s.clusters, "cluster"),
        s.version,
        plural(s.clients_per_server, "client"),
    )
}

fn traffic(cost: &Cost, paint: Paint) -> String {
    let rate = |load: Load| [number(load.msgs_per_second) + "/s", bytes(load.bytes_per_second) + "/s"];
    let amount = |volume: Volume| [number(volume.msgs), bytes(volume.bytes)];
    let one = Volume {
        msgs: 1.0,
        bytes: cost.statsz_bytes,
    };
    let rows = [
        ("One STATSZ", amount(one)),
        ("At rest, into each server", rate(cost.quiet.received)),
        ("One restart, into each other server", amount(cost.restart.into_each)),
        (
            "One restart, into the restarted one",
            amount(cost.restart.into_restarted),
        ),
        ("One restart, all deliveries", amount(cost.restart.total)),
        ("Its worst second, into each", rate(cost.peak)),
        ("Most that is legal, into each", rate(cost.worst)),
    ];
    let rows = rows.into_iter().map(|(name, [messages, size])| {
        vec![
            (Tone::Plain, name.to_owned()),
            (Tone::Plain, messages),
            (Tone::Plain, size),
        ]
    });
    paint.table(&["", "messages", "bytes"], rows.collect())
}

fn roll(cost: &Cost, paint: Paint) -> String {
    let q = &cost.question;
    let least = match &cost.least {
        Ok(least) => humantime::format_duration(*least).to_string(),
        Err(_) => "none: the traffic at rest is above it".to_owned(),
    };
    let mark = match (cost.keeps_ceiling(), q.stagger) {
        (true, _) => (Tone::Good, "keeps the ceiling"),
        (false, _) => (Tone::Bad, "too short for the ceiling"),
    };
    let rows = [
        ("Ceiling of the mean into each", format!("{}/s", bytes(cost.ceiling))),
        ("Least stagger under it", least),
        (
            "Stagger",
            format!(
                "{}, {}",
                humantime::format_duration(cost.stagger),
                paint.text(mark.0, mark.1)
            ),
        ),
        (
            "Mean into each meanwhile",
            format!("{}/s", bytes(cost.mean.bytes_per_second)),
        ),
        (
            "Whole roll",
            format!(
                "{} for {} servers, {} at a time, {} per restart and proof",
                span(cost.duration.as_secs_f64()),
                q.hosts,
                q.at_once,
                humantime::format_duration(q.per_restart)
            ),
        ),
        (
            "It adds, all deliveries",
            format!("{} messages, {}", number(cost.total.msgs), bytes(cost.total.bytes)),
        ),
    ];
    let rows = rows.map(|(name, value)| vec![(Tone::Plain, name.to_owned()), (Tone::Plain, value)]);
    let table = paint.table(&["", ""], rows.to_vec());
    table.lines().skip(1).map(|line| format!("{line}\n")).collect()
}

/// The curve over the first restarts, in columns of whole seconds.
fn curve(cost: &Cost) -> (Vec<f64>, Duration) {
    let cycle = cost.question.per_restart.saturating_add(cost.stagger);
    let shown = SHOWN.min(cost.question.hosts.max(1));
    let all = cycle.saturating_mul(shown).as_secs_f64();
    let width = Duration::from_secs_f64((all / COLUMNS as f64).ceil().max(1.0));
    (cost.curve(COLUMNS, width), width)
}

/// Lines of at most `width`, with a dash before the first.
fn wrapped(text: &str, width: usize) -> String {
    let mut lines = vec![String::from("  -")];
    for word in text.split_whitespace() {
        let full = lines
            .last()
            .is_some_and(|l| l.chars().count() + 1 + word.chars().count() > width);
        if full {
            lines.push("   ".to_owned());
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n") + "\n"
}

pub(super) fn json(answer: &Answer) -> Value {
    let cost = &answer.cost;
    let (q, s) = (&cost.question, &cost.question.shape);
    let rate =
        |load: Load| json!({"messages_per_second": load.msgs_per_second, "bytes_per_second": load.bytes_per_second});
    let amount = |v: Volume| json!({"messages": v.msgs, "bytes": v.bytes});
    json!({
        "fleet": {
            "live": answer.live, "servers": s.servers, "clusters": s.clusters, "server_version": s.version.to_string(),
            "pool_size": s.pool_size, "pinned": s.pinned, "accounts": s.accounts,
            "clients_per_server": s.clients_per_server, "lame_duck": s.lame_duck,
        },
        "notes": answer.notes,
        "statsz_bytes": cost.statsz_bytes,
        "quiet": {"received": rate(cost.quiet.received), "sent": rate(cost.quiet.sent)},
        "restart": {
            "into_each": amount(cost.restart.into_each),
            "into_restarted": amount(cost.restart.into_restarted),
            "total": amount(cost.restart.total),
            "lasts_seconds": cost.restart.lasts.as_secs_f64(),
        },
        "worst_legal": rate(cost.worst),
        "roll": {
            "hosts": q.hosts,
            "max_unavailable": q.at_once,
            "per_restart_seconds": q.per_restart.as_secs_f64(),
            "ceiling_bytes_per_second": cost.ceiling,
            "least_stagger_seconds": cost.least.as_ref().ok().map(Duration::as_secs_f64),
            "stagger_seconds": cost.stagger.as_secs_f64(),
            "keeps_ceiling": cost.keeps_ceiling(),
            "duration_seconds": cost.duration.as_secs_f64(),
            "peak": rate(cost.peak),
            "mean": rate(cost.mean),
            "total": amount(cost.total),
        },
        "advice": answer.advice.iter().map(|a| json!({"about": a.about, "text": a.text})).collect::<Vec<_>>(),
    })
}
