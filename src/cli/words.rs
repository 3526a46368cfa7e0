//! Words for people: durations, times, shares, colours, tables. Pure, so that tests read what people read.

use std::time::{Duration, UNIX_EPOCH};

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};

/// What a piece of text means; colour follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
    Dim,
}

/// With or without colour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    colour: bool,
}

impl Paint {
    pub(super) fn new(colour: bool) -> Self {
        Self { colour }
    }

    pub(super) fn text(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            _ if !self.colour => return text.to_owned(),
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Dim => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    pub(super) fn heading(self, text: &str) -> String {
        match self.colour {
            true => format!("\x1b[1m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    /// A table without borders; rows are indented by two.
    pub(super) fn table(self, header: &[&str], rows: Vec<Vec<(Tone, String)>>) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        match self.colour {
            true => table
                .enforce_styling()
                .set_content_arrangement(ContentArrangement::Dynamic),
            false => table.force_no_tty(),
        };
        table.set_header(header.iter().map(|name| self.cell(Tone::Dim, (*name).to_owned())));
        for row in rows {
            table.add_row(row.into_iter().map(|(tone, text)| self.cell(tone, text)));
        }
        let lines = table.trim_fmt();
        let lines = lines
            .lines()
            .map(|line| format!(" {line}\n").trim_end().to_owned() + "\n");
        lines.collect()
    }

    fn cell(self, tone: Tone, text: String) -> Cell {
        let cell = Cell::new(text);
        match tone {
            Tone::Good => cell.fg(Color::DarkGreen),
            Tone::Warn => cell.fg(Color::DarkYellow),
            Tone::Bad => cell.fg(Color::DarkRed),
            Tone::Dim => cell.add_attribute(comfy_table::Attribute::Dim),
            Tone::Plain => cell,
        }
    }
}

/// One indented line of a section.
pub(super) fn line(text: &mut String, sentence: &str) {
    for part in ["  ", sentence, "\n"] {
        text.push_str(part);
    }
}

/// `0.4 ms`, `1.2 s`, `3m 4s`, `2h 3m`, `4d 1h`.
pub(super) fn span(seconds: f64) -> String {
    if seconds < 0.0 {
        return format!("-{}", span(-seconds));
    }
    if seconds < 0.9995 {
        return format!("{:.1} ms", seconds * 1e3);
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = Duration::try_from_secs_f64(seconds.round())
        .unwrap_or(Duration::MAX)
        .as_secs();
    let (minutes, hours, days) = (whole / 60, whole / 3_600, whole / 86_400);
    match (days, hours) {
        (0, 0) => format!("{minutes}m {}s", whole % 60),
        (0, _) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// `-` for what is not known.
pub(super) fn maybe(seconds: Option<f64>) -> String {
    seconds.map_or("-".into(), span)
}

/// A Unix time in UTC, to the second.
pub(super) fn time(unix: f64) -> String {
    match Duration::try_from_secs_f64(unix) {
        // Beyond the year 9999 the formatter panics.
        Ok(since) if since.as_secs() < 253_402_300_800 => {
            humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
        }
        _ => "-".into(),
    }
}

/// A share from 0 to 1 in percent.
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0 %".into(),
        p if p < 0.1 => "< 0.1 %".into(),
        p => format!("{p:.1} %"),
    }
}

/// `1 host`, `3 hosts`.
pub(super) fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Bytes in MiB or GiB.
pub(super) fn bytes(n: u64) -> String {
    let mib = u32::try_from(n >> 20).map_or(f64::INFINITY, f64::from);
    match mib {
        mib if mib >= 1_024.0 => format!("{:.1} GiB", mib / 1_024.0),
        mib => format!("{mib} MiB"),
    }
}

/// A duration from the command line; a mistake says how one looks.
pub(super) fn a_duration(text: &str) -> Result<std::time::Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; give a duration such as 30s or 2m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_people_say_them() {
        for (seconds, text) in [
            (0.000_42, "0.4 ms"),
            (0.9999, "1.0 s"),
            (1.25, "1.2 s"),
            (59.97, "1m 0s"),
            (184.0, "3m 4s"),
            (7_380.0, "2h 3m"),
            (349_200.0, "4d 1h"),
            (-0.002, "-2.0 ms"),
        ] {
            assert_eq!(span(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn no_number_from_an_agent_can_break_a_line() {
        for odd in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            let _ = (span(odd), time(odd), percent(odd));
        }
        assert_eq!(time(1e300), "-");
    }

    #[test]
    fn without_colour_there_is_no_escape() {
        let plain = Paint::new(false);
        let table = plain.table(&["a"], vec![vec![(Tone::Bad, "x".into())]]);
        assert!(!table.contains('\x1b'), "{table:?}");
        assert!(Paint::new(true).text(Tone::Bad, "x").contains('\x1b'));
    }
}
