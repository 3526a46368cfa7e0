//! Log lines: to standard error, filtered by `WATCHDOG_LOG` or `RUST_LOG`, as text or JSON.
//!
//! Under the systemd journal, text lines carry a priority (`<3>` to `<7>`, see sd-daemon(3)) instead of a time, since
//! the journal keeps its own time and `journalctl -p warning` should work.

use std::fmt;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// What is logged when no variable says otherwise: the NATS client repeats every reconnect attempt at info.
pub const DEFAULT_FILTER: &str = "info,async_nats=warn";

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = LoggingError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LoggingError::Format(text.to_owned())),
        }
    }
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// Neither text nor json.
    #[error("log format {0:?} is not known; use text or json")]
    Format(String),
    /// A variable does not parse.
    #[error(
        "cannot read {variable}={value:?} as a log filter: {source}; write a level or target=level, as in info,nats_watchdog=debug"
    )]
    Filter {
        /// Which variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is wrong.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A second call.
    #[error("cannot set up logging twice in one process: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// The form that was set up; text before.
#[must_use]
pub fn format() -> LogFormat {
    FORMAT.get().copied().unwrap_or_default()
}

/// Sets up logging for the whole process. Call once.
///
/// # Errors
/// A filter variable that does not parse, or logging that is set up already.
pub fn init(format: LogFormat) -> Result<(), LoggingError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let filter = filter(|name| std::env::var(name).ok())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init()?,
        LogFormat::Text if under_journal() => builder.event_format(Journal::default()).finish().try_init()?,
        LogFormat::Text => {
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colour).finish().try_init()?;
        }
    }
    let _ = FORMAT.set(format);
    Ok(())
}

fn filter(variable: impl Fn(&str) -> Option<String>) -> Result<EnvFilter, LoggingError> {
    for name in ["WATCHDOG_LOG", "RUST_LOG"] {
        if let Some(value) = variable(name).filter(|value| !value.trim().is_empty()) {
            return EnvFilter::try_new(&value).map_err(|source| LoggingError::Filter {
                variable: name,
                value,
                source,
            });
        }
    }
    Ok(EnvFilter::new(DEFAULT_FILTER))
}

/// `JOURNAL_STREAM` names the journal's socket; it is inherited, so it only counts if standard error still is that one.
fn under_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|stderr| is_stream(&stream, stderr.dev(), stderr.ino()))
}

fn is_stream(stream: &str, device: u64, inode: u64) -> bool {
    stream
        .split_once(':')
        .is_some_and(|(d, i)| d.parse() == Ok(device) && i.parse() == Ok(inode))
}

struct Journal(Format<Full, ()>);

impl Default for Journal {
    fn default() -> Self {
        Self(Format::default().without_time().with_level(false).with_ansi(false))
    }
}

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn the_own_variable_wins_over_the_general_one() {
        let both = |name: &str| Some(if name == "WATCHDOG_LOG" { "debug" } else { "error" }.to_owned());
        assert_eq!(filter(both).unwrap().to_string(), "debug");
        let general = |name: &str| (name == "RUST_LOG").then(|| "error".to_owned());
        assert_eq!(filter(general).unwrap().to_string(), "error");
        let empty = |_: &str| Some(String::new());
        assert!(filter(empty).unwrap().to_string().contains("info"));
    }

    #[test]
    fn a_bad_filter_is_named_with_its_variable() {
        let error = filter(|name| (name == "RUST_LOG").then(|| "a=b=c".to_owned()))
            .unwrap_err()
            .to_string();
        assert!(error.contains("RUST_LOG=\"a=b=c\""), "{error}");
    }

    #[test]
    fn a_format_that_is_not_known_says_which_are() {
        assert_eq!("json".parse::<LogFormat>().unwrap(), LogFormat::Json);
        assert!(
            "yaml"
                .parse::<LogFormat>()
                .unwrap_err()
                .to_string()
                .contains("text or json")
        );
    }

    #[test]
    fn an_inherited_journal_stream_that_is_not_ours_does_not_count() {
        assert!(is_stream("8:77", 8, 77));
        assert!(!is_stream("8:77", 8, 78));
        assert!(!is_stream("", 0, 0));
    }

    #[test]
    fn a_journal_line_starts_with_its_priority_and_has_no_time() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(Journal::default())
            .with_writer(move || Sink(sink.clone()))
            .finish();
        tracing::subscriber::with_default(subscriber, || tracing::warn!(unit = "nats", "cannot restart"));
        let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("<4>nats_watchdog::telemetry"), "{text}");
        assert!(text.contains("cannot restart unit=\"nats\""), "{text}");
    }

    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
