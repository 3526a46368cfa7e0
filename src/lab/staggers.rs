//! The same restart of a whole fleet at different paces: what each does to the system traffic, and how long it takes.

use std::{
    fmt,
    path::Path,
    process::Stdio,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use serde_json::Value;
use tokio::process::Command;

use super::{
    Lab, LabError, Result, agents,
    storm::{self, Second, Sent},
};

/// The peak is the highest mean over so long.
const PEAK: Duration = Duration::from_secs(5);
/// A roll of forty servers at a minute each, and a quarter of one for each proof, takes less.
const LIMIT: Duration = Duration::from_secs(90 * 60);
/// How long the traffic is watched after the last restart.
const AFTER: Duration = Duration::from_secs(30);
/// The word for no pace at all.
pub const AT_ONCE: &str = "at-once";

/// An operator whom the agents of a lab obey, with a key on disk for as long as this lives.
#[derive(Debug)]
pub struct Operator {
    file: tempfile::NamedTempFile,
    public: String,
}

impl Operator {
    /// Makes a key.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn new() -> Result<Self> {
        let key = nkeys::KeyPair::new_user();
        let seed = key.seed().map_err(|error| LabError::Run {
            command: "make a key".to_owned(),
            why: error.to_string(),
        })?;
        let written = |source| LabError::File {
            what: "write",
            path: "operator.nk".into(),
            source,
        };
        let file = tempfile::NamedTempFile::with_suffix(".nk").map_err(written)?;
        std::fs::write(file.path(), seed).map_err(written)?;
        Ok(Self {
            file,
            public: key.public_key(),
        })
    }

    /// Where the seed is.
    #[must_use]
    pub fn key(&self) -> &Path {
        self.file.path()
    }

    /// What agents need to obey it.
    #[must_use]
    pub fn toml(&self) -> String {
        format!("\n[control]\noperators = [\"{}\"]\n", self.public)
    }
}

/// How one pace went.
#[derive(Debug, Clone, PartialEq)]
pub struct Pace {
    /// `at-once`, or what `watchdog restart` was given for `--stagger`.
    pub pace: String,
    /// The stagger that the plan came to, in seconds.
    pub stagger: Option<f64>,
    /// From the start to the last server's proof; at once: to the last server that answers.
    pub took: Duration,
    /// Servers that were restarted, and proved where a command did it.
    pub restarted: usize,
    /// Per second and server, before.
    pub quiet: Sent,
    /// The highest mean over five seconds, per second and server.
    pub peak: Sent,
    /// Agents whose host saw a brownout.
    pub brownouts: usize,
    /// Servers.
    pub of: usize,
    /// The exit code of the command; `None` = there is none.
    pub code: Option<i32>,
}

/// Head of the table that [`Pace`] prints rows of.
pub const HEAD: &str = "| pace | stagger | restarted | took | peak messages/s per server | peak bytes/s per server | times quiet (bytes) | agents that saw a brownout |\n|---|---|---|---|---|---|---|---|";

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stagger = self.stagger.map_or("-".to_owned(), |s| format!("{s:.1} s"));
        let failed = match self.code {
            None | Some(0) => String::new(),
            Some(code) => format!(" (exit code {code})"),
        };
        write!(
            f,
            "| {} | {stagger} | {} of {}{failed} | {:.0} s | {:.0} | {:.0} | {:.1} | {} of {} |",
            self.pace,
            self.restarted,
            self.of,
            self.took.as_secs_f64(),
            self.peak.msgs,
            self.peak.bytes,
            self.peak.bytes / self.quiet.bytes.max(1.0),
            self.brownouts,
            self.of,
        )
    }
}

/// Restarts every server of `lab`, or of one region of it, at `pace`, as an operator would whose key is in `operator`.
///
/// # Errors
/// Where a server or an agent does not answer before or after, or the command cannot be run.
pub async fn restart_all(
    lab: &Lab,
    watchdog: &Path,
    operator: &Path,
    region: Option<&str>,
    pace: &str,
) -> Result<Pace> {
    let quiet = storm::quiet(lab, Duration::from_secs(20)).await?;
    let begun = Instant::now();
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ended = std::cell::Cell::new(None::<Instant>);
    let work = async {
        let done = match pace {
            AT_ONCE => at_once(lab, region).await,
            stagger => roll(lab, watchdog, operator, region, stagger).await,
        };
        ended.set(Some(Instant::now()));
        done
    };
    let done = || ended.get().is_some_and(|at| at.elapsed() >= AFTER);
    let (work, seconds) = tokio::join!(work, storm::watch(lab, begun, &done));
    let (restarted, stagger, code) = work?;
    let mut brownouts = 0;
    for host in lab.hosts() {
        let records = agents::history(host).await?;
        brownouts += usize::from(
            records
                .iter()
                .any(|r| r.event == "brownout" && r.subject == "host" && storm::since(r.at, began).is_some()),
        );
    }
    Ok(Pace {
        pace: pace.to_owned(),
        stagger,
        took: ended.get().map_or_else(Duration::default, |at| at - begun),
        restarted,
        quiet,
        peak: peak(&seconds),
        brownouts,
        of: lab.hosts().len(),
        code,
    })
}

async fn at_once(lab: &Lab, region: Option<&str>) -> Result<(usize, Option<f64>, Option<i32>)> {
    let chosen = lab.hosts().iter().filter(|h| region.is_none_or(|r| h.region == r));
    let all = join_all(chosen.map(|h| lab.restart_server(&h.name))).await;
    let n = all.into_iter().collect::<Result<Vec<()>>>()?.len();
    Ok((n, None, None))
}

async fn roll(
    lab: &Lab,
    watchdog: &Path,
    operator: &Path,
    region: Option<&str>,
    stagger: &str,
) -> Result<(usize, Option<f64>, Option<i32>)> {
    let urls: Vec<&str> = lab.hosts().iter().map(|h| h.client_url.as_str()).collect();
    let failed = |source| LabError::Spawn {
        program: watchdog.display().to_string(),
        source,
    };
    let run = Command::new(watchdog)
        .args(["restart", "--yes", "--output", "json", "--stagger", stagger])
        .args(region.map_or_else(|| vec!["--all"], |r| vec!["--region", r]))
        .args([
            "--server",
            &urls.join(","),
            "--user",
            "watchdog",
            "--password",
            "watchdog",
        ])
        .arg("--operator")
        .arg(operator)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let Ok(output) = tokio::time::timeout(LIMIT, run).await else {
        return Ok((0, None, Some(-1)));
    };
    let output = output.map_err(failed)?;
    let events: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let named = |name: &'static str| events.iter().filter(move |e| e["event"] == name);
    if !output.status.success() {
        for event in named("halted") {
            eprintln!("{event}");
        }
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let stagger = named("plan").find_map(|e| e["stagger_seconds"].as_f64());
    Ok((named("proved").count(), stagger, output.status.code()))
}

/// The highest mean over five seconds, of messages and of bytes each.
fn peak(seconds: &[Second]) -> Sent {
    let mut peak = Sent::default();
    for from in seconds {
        let window: Vec<&Second> = seconds
            .iter()
            .filter(|s| s.at >= from.at && s.at < from.at + PEAK)
            .collect();
        // Looks are not evenly spaced where servers are slow to answer: each counts for the time since the one before.
        let mut sum = Sent::default();
        let mut span = 0.0;
        for pair in window.windows(2) {
            let gap = (pair[1].at - pair[0].at).as_secs_f64();
            sum.msgs += pair[1].rate.msgs * gap;
            sum.bytes += pair[1].rate.bytes * gap;
            span += gap;
        }
        if span >= PEAK.as_secs_f64() / 2.0 {
            peak.msgs = peak.msgs.max(sum.msgs / span);
            peak.bytes = peak.bytes.max(sum.bytes / span);
        }
    }
    peak
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_the_highest_mean_over_five_seconds_whatever_the_looks_spacing() {
        let second = |at: f64, msgs: f64| Second {
            at: Duration::from_secs_f64(at),
            rate: Sent {
                msgs,
                bytes: msgs * 10.0,
            },
        };
        let look: Vec<Second> = [
            (0.0, 0.0),
            (1.0, 10.0),
            (2.0, 100.0),
            (4.0, 10.0),
            (5.0, 0.0),
            (9.0, 0.0),
        ]
        .map(|(at, msgs)| second(at, msgs))
        .to_vec();
        // From 1.0 to 5.0: 100 for one second, 10 for two, 0 for one.
        let peak = peak(&look);
        assert!((peak.msgs - 32.5).abs() < 1.0, "{peak:?}");
        assert!((peak.bytes - 325.0).abs() < 10.0, "{peak:?}");
    }
}
