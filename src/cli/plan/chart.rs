//! A small chart: a rate over time as columns, with a line for a ceiling. Blocks on a terminal that is UTF-8, else ASCII.

use std::io::IsTerminal as _;
use std::time::Duration;

use crate::core::rollout::advice::bytes;

/// Height in lines.
const LINES: usize = 7;

/// What columns are drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Glyphs {
    Ascii,
    Blocks,
}

impl Glyphs {
    /// Blocks where a person looks at a terminal that can show them.
    pub(super) fn of_stdout() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let utf8 = ["LC_ALL", "LC_CTYPE", "LANG"]
            .iter()
            .find_map(|name| set(name))
            .is_some_and(|locale| {
                let locale = locale.to_ascii_lowercase();
                locale.contains("utf-8") || locale.contains("utf8")
            });
        let plain = set("NO_COLOR").is_some() || set("TERM").is_some_and(|term| term == "dumb");
        match std::io::stdout().is_terminal() && utf8 && !plain {
            true => Self::Blocks,
            false => Self::Ascii,
        }
    }

    fn column(self, eighths: usize) -> char {
        let blocks = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        match self {
            Self::Blocks => blocks[eighths.min(8)],
            Self::Ascii if eighths >= 4 => '#',
            Self::Ascii if eighths > 0 => '_',
            Self::Ascii => ' ',
        }
    }

    fn line(self) -> char {
        match self {
            Self::Blocks => '┄',
            Self::Ascii => '-',
        }
    }
}

/// `values` per second, each over `width`.
pub(super) fn chart(values: &[f64], ceiling: f64, width: Duration, glyphs: Glyphs) -> String {
    let highest = values.iter().copied().fold(0.0_f64, f64::max);
    // A ceiling far above all columns would press them to the ground.
    let shown = ceiling <= highest * 3.0;
    let top = if shown { highest.max(ceiling) } else { highest };
    if !(top.is_finite() && top > 0.0) {
        return String::new();
    }
    let eighths = |value: f64| {
        (value / top * (LINES * 8) as f64)
            .round()
            .clamp(0.0, (LINES * 8) as f64) as usize
    };
    let limit = shown.then(|| (eighths(ceiling).saturating_sub(1)) / 8);
    let mut text = String::new();
    for line in (0..LINES).rev() {
        let label = match line {
            l if l == LINES - 1 => format!("{}/s", bytes(top)),
            l if Some(l) == limit => "ceiling".to_owned(),
            _ => String::new(),
        };
        let columns: String = values
            .iter()
            .map(|value| {
                let height = eighths(*value).saturating_sub(line * 8);
                match (height, Some(line) == limit) {
                    (0, true) => glyphs.line(),
                    (height, _) => glyphs.column(height),
                }
            })
            .collect();
        text += format!("  {label:>11} |{}", columns.trim_end()).trim_end();
        text.push('\n');
    }
    let span = |n: usize| {
        let seconds = width.as_secs_f64() * n as f64;
        match seconds {
            s if s < 120.0 => format!("{s:.0}s"),
            s => format!("{:.0}m", s / 60.0),
        }
    };
    let axis = match glyphs {
        Glyphs::Blocks => "─",
        Glyphs::Ascii => "-",
    };
    text += &format!("  {:>11} +{}\n", "", axis.repeat(values.len()));
    let (middle, end) = (span(values.len() / 2), span(values.len()));
    let half = values.len() / 2;
    text += &format!(
        "  {:>11}  {:<half$}{middle:<rest$}{end}\n",
        "",
        "0s",
        rest = half.saturating_sub(end.len())
    );
    text
}
