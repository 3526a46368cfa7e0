//! A report as Nagios output, JSON, Prometheus text, or tables.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::report::{Bound, Figure, Report, State};
use crate::cli::words::{Paint, Tone};

/// `CRITICAL iad-1: … | perfdata`, then a line for each finding. What goes on the first line must hold neither a bar
/// nor a line end: the one begins performance data, the other ends the text.
pub(super) fn nagios(report: &Report) -> String {
    let state = report.state();
    let worst = match state {
        State::Ok => report.texts(State::Ok).join(", "),
        _ => [State::Critical, State::Warning, State::Unknown]
            .into_iter()
            .flat_map(|s| report.texts(s))
            .collect::<Vec<_>>()
            .join("; "),
    };
    let mut text = format!("{} {}: {}", state.name(), plain(&report.name), plain(&worst));
    if !report.figures.is_empty() {
        let data: Vec<String> = report.figures.iter().map(perfdata).collect();
        let _ = write!(text, " | {}", data.join(" "));
    }
    text.push('\n');
    for f in &report.findings {
        let _ = writeln!(text, "{} {}: {}", f.state.name(), f.check, plain(&f.text));
    }
    text
}

fn plain(text: &str) -> String {
    text.replace('|', "/").replace(['\n', '\r'], " ")
}

/// `label=value[UOM];[warn];[crit]`, thresholds as ranges.
fn perfdata(f: &Figure) -> String {
    let range = |bound: Option<Bound>| match bound {
        None => String::new(),
        Some(Bound::Above(limit)) => number(limit),
        Some(Bound::Below(limit)) => format!("{}:", number(limit)),
    };
    let text = format!(
        "{}={}{};{};{}",
        f.name,
        number(f.value),
        f.unit,
        range(f.warn),
        range(f.critical)
    );
    text.trim_end_matches(';').to_owned()
}

/// Six digits after the point at most: performance data takes `[-0-9.]` only.
fn number(value: f64) -> String {
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    match text {
        "-0" | "" => "0".to_owned(),
        text => text.to_owned(),
    }
}

/// The fields of the nats CLI's checks, and `checks` beside them.
pub(super) fn json(report: &Report) -> anyhow::Result<String> {
    let state = report.state();
    let figures: Vec<Value> = report
        .figures
        .iter()
        .map(|f| {
            json!({"name": f.name, "value": f.value, "unit": f.unit, "help": f.help,
                "warning": f.warn.map(Bound::limit), "critical": f.critical.map(Bound::limit)})
        })
        .collect();
    let value = json!({
        "status": state,
        "code": state.code(),
        "check_suite": "watchdog",
        "check_name": report.name,
        "critical": report.texts(State::Critical),
        "warning": report.texts(State::Warning),
        "unknown": report.texts(State::Unknown),
        "ok": report.texts(State::Ok),
        "checks": report.findings,
        "perf_data": figures,
    });
    Ok(serde_json::to_string_pretty(&value)?)
}

/// Two families: states by check, and figures by name.
pub(super) fn prometheus(report: &Report) -> String {
    let mut text = String::from(
        "# HELP watchdog_check_status State of a check as Nagios numbers it: 0 ok, 1 warning, 2 critical, 3 unknown.\n\
         # TYPE watchdog_check_status gauge\n",
    );
    let item = label(&report.name);
    let all = [("all", report.state())];
    let each = report.findings.iter().map(|f| (f.check, f.state));
    for (check, state) in all.into_iter().chain(each) {
        let _ = writeln!(
            text,
            "watchdog_check_status{{item=\"{item}\",check=\"{check}\"}} {}",
            state.code()
        );
    }
    for f in &report.figures {
        let name = format!("watchdog_check_{}{}", f.name, suffix(f.unit));
        let kind = if f.unit == "c" { "counter" } else { "gauge" };
        let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", f.help);
        let _ = writeln!(text, "{name}{{item=\"{item}\"}} {}", f.value);
    }
    text
}

fn suffix(unit: &str) -> &'static str {
    match unit {
        "s" => "_seconds",
        "B" => "_bytes",
        "%" => "_percent",
        "c" => "_total",
        _ => "",
    }
}

fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// For people.
pub(super) fn text(report: &Report, paint: Paint) -> String {
    let state = report.state();
    let mut text = format!(
        "{}: {}\n\n",
        paint.heading(&report.name),
        paint.text(tone(state), state.name())
    );
    let rows = report.findings.iter().map(|f| {
        vec![
            (Tone::Plain, f.check.to_owned()),
            (tone(f.state), f.state.name().to_owned()),
            (Tone::Plain, f.text.clone()),
        ]
    });
    text += &paint.table(&["check", "state", "found"], rows.collect());
    if report.figures.is_empty() {
        return text;
    }
    text.push('\n');
    let bound = |bound: Option<Bound>, unit: &str| match bound {
        None => "-".to_owned(),
        Some(Bound::Above(limit)) => format!("> {}{unit}", number(limit)),
        Some(Bound::Below(limit)) => format!("< {}{unit}", number(limit)),
    };
    let rows = report.figures.iter().map(|f| {
        let unit = if f.unit == "c" { "" } else { f.unit };
        vec![
            (Tone::Plain, f.name.to_owned()),
            (tone(f.state()), format!("{}{unit}", number(f.value))),
            (Tone::Dim, bound(f.warn, unit)),
            (Tone::Dim, bound(f.critical, unit)),
            (Tone::Dim, f.help.trim_end_matches('.').to_owned()),
        ]
    });
    text + &paint.table(&["figure", "value", "warning", "critical", ""], rows.collect())
}

fn tone(state: State) -> Tone {
    match state {
        State::Ok => Tone::Good,
        State::Warning => Tone::Warn,
        State::Critical => Tone::Bad,
        State::Unknown => Tone::Dim,
    }
}
