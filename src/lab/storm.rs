//! A real storm: many real servers with agents, some restarted at once, and when which agent saw what.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;

use super::{Lab, Result, agents, config::SYSTEM_ACCOUNT, get_json};
use crate::core::view::Snapshot;

/// Between two looks at the servers' counters.
const LOOK: Duration = Duration::from_millis(500);
/// A storm is over when the mean rate over [`WINDOW`] is below this multiple of what was quiet before, or below
/// [`ROUNDS`] of STATSZ: servers that started together still speak together.
const OVER: f64 = 3.0;
/// STATSZ of every server to every other within [`WINDOW`].
const ROUNDS: f64 = 1.5;
/// Servers that started together speak together: a single half second says nothing.
const WINDOW: Duration = Duration::from_secs(5);

/// Messages and bytes that all servers have sent for the system account, since each started.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sent {
    /// Messages.
    pub msgs: f64,
    /// Bytes.
    pub bytes: f64,
}

/// One second of the storm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Second {
    /// Since the restarts began.
    pub at: Duration,
    /// Per second and server.
    pub rate: Sent,
}

/// What one agent recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Its host.
    pub host: String,
    /// From the restarts to its brownout, if it saw one.
    pub on: Option<Duration>,
    /// From the restarts to the end of its brownout.
    pub off: Option<Duration>,
    /// It explained the traffic by a restart instead.
    pub explained: Option<String>,
}

/// What a storm looked like.
#[derive(Debug, Clone, PartialEq)]
pub struct Storm {
    /// Servers restarted at once.
    pub restarted: Vec<String>,
    /// Per server before.
    pub quiet: Sent,
    /// Every half second.
    pub seconds: Vec<Second>,
    /// From the restarts to the last moment that is louder than quiet servers can be.
    pub over: Duration,
    /// Agents of hosts that were not restarted.
    pub seen: Vec<Seen>,
}

/// Waits until the servers' own timers are slow, then restarts `n` servers at once and watches for `span`.
///
/// # Errors
/// Where a server does not come back, or an agent does not answer.
pub async fn storm(lab: &Lab, n: usize, span: Duration, mut say: impl FnMut(String)) -> Result<Storm> {
    let quiet = quiet(lab, Duration::from_secs(20)).await?;
    say(format!(
        "quiet: {:.1} messages and {:.0} bytes a second, sent by each server",
        quiet.msgs, quiet.bytes
    ));
    // Spread over the list: neighbours in it would be of one region.
    let step = (lab.hosts().len() / n).max(1);
    let names: Vec<String> = lab
        .hosts()
        .iter()
        .step_by(step)
        .take(n)
        .map(|h| h.name.clone())
        .collect();
    let begun = Instant::now();
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    say(format!("+  0.0 s  restart of {}", names.join(", ")));
    let restarts = async {
        let all = join_all(names.iter().map(|name| lab.restart_server(name))).await;
        all.into_iter().collect::<Result<Vec<()>>>()
    };
    let done = || begun.elapsed() >= span;
    let (restarted, seconds, explained) = tokio::join!(restarts, watch(lab, begun, &done), explained(lab));
    restarted?;
    let over = end(&seconds, quiet, lab.hosts().len());
    let mut seen = Vec::new();
    for host in lab.hosts().iter().filter(|h| !names.contains(&h.name)) {
        let mut one = Seen {
            host: host.name.clone(),
            on: None,
            off: None,
            explained: None,
        };
        for record in agents::history(host).await? {
            let Some(at) = since(record.at, began) else { continue };
            match record.event.as_str() {
                _ if record.subject != "host" => {}
                "brownout" => {
                    one.on.get_or_insert(at);
                }
                "brownout_over" => one.off = Some(at),
                _ => {}
            }
        }
        one.explained = explained.get(&host.name).cloned();
        seen.push(one);
    }
    Ok(Storm {
        restarted: names,
        quiet,
        seconds,
        over,
        seen,
    })
}

/// The last moment of which the window after it is still loud.
#[allow(clippy::cast_precision_loss, reason = "a count of looks")]
fn end(seconds: &[Second], quiet: Sent, servers: usize) -> Duration {
    let round = (servers as f64 - 1.0).max(0.0) * ROUNDS / WINDOW.as_secs_f64();
    let each = if quiet.msgs > 0.0 {
        quiet.bytes / quiet.msgs
    } else {
        0.0
    };
    let most = Sent {
        msgs: round.max(quiet.msgs * OVER),
        bytes: (round * each).max(quiet.bytes * OVER),
    };
    let loud = |from: &Second| {
        let window = seconds.iter().filter(|s| s.at >= from.at && s.at < from.at + WINDOW);
        let (n, msgs, bytes) = window.fold((0, 0.0, 0.0), |(n, m, b), s| (n + 1, m + s.rate.msgs, b + s.rate.bytes));
        let n = f64::from(n).max(1.0);
        from.rate.msgs > 0.0 && (msgs / n > most.msgs || bytes / n > most.bytes)
    };
    seconds.iter().rev().find(|s| loud(s)).map_or(Duration::ZERO, |s| s.at)
}

/// Every brownout that an agent of this lab has on record.
///
/// # Errors
/// Where an agent does not answer.
pub async fn alarms(lab: &Lab) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for host in lab.hosts() {
        let records = agents::history(host).await?;
        let alarms = records.into_iter().filter(|r| r.event == "brownout");
        all.extend(alarms.map(|r| format!("{} {}: {}", host.name, r.subject, r.text)));
    }
    Ok(all)
}

/// What the agents say, a few seconds after the restarts, of why there is more traffic than usual.
async fn explained(lab: &Lab) -> BTreeMap<String, String> {
    tokio::time::sleep(WINDOW).await;
    let looks = lab.hosts().iter().map(|host| async move {
        let snapshot: Snapshot = agents::read(host, "status").await.ok()?;
        let own = snapshot.brownout.into_iter().find(|b| b.scope == "host")?;
        (!own.explanations.is_empty()).then(|| (host.name.clone(), own.explanations.join("; ")))
    });
    join_all(looks).await.into_iter().flatten().collect()
}

/// Time of a record after the restarts; `None` = before them.
pub(super) fn since(at: f64, began: Duration) -> Option<Duration> {
    Duration::try_from_secs_f64(at).ok()?.checked_sub(began)
}

/// Per second and server, over `span`.
pub(super) async fn quiet(lab: &Lab, span: Duration) -> Result<Sent> {
    let (before, at) = (total(lab).await?, Instant::now());
    tokio::time::sleep(span).await;
    let (after, took) = (total(lab).await?, at.elapsed().as_secs_f64());
    Ok(rate(before, after, took, lab.hosts().len()))
}

/// What all servers send, until `done`.
pub(super) async fn watch(lab: &Lab, begun: Instant, done: &dyn Fn() -> bool) -> Vec<Second> {
    let mut seconds = Vec::new();
    let mut last: Option<(Vec<Option<Sent>>, Instant)> = None;
    while !done() {
        let now = join_all(lab.hosts().iter().map(|h| sent(&h.monitor_url))).await;
        let (now, at): (Vec<Option<Sent>>, _) =
            (now.into_iter().map(std::result::Result::ok).collect(), Instant::now());
        if let Some((before, then)) = &last {
            // A server that is down, or new, has no rate; the others have.
            let both = before
                .iter()
                .zip(&now)
                .filter_map(|(b, n)| Some((b.as_ref()?, n.as_ref()?)));
            let grown: Vec<(Sent, Sent)> = both.filter(|(b, n)| n.msgs >= b.msgs).map(|(b, n)| (*b, *n)).collect();
            let sum = |pick: fn(&(Sent, Sent)) -> f64| grown.iter().map(pick).sum::<f64>();
            let (before, after) = (
                Sent {
                    msgs: sum(|p| p.0.msgs),
                    bytes: sum(|p| p.0.bytes),
                },
                Sent {
                    msgs: sum(|p| p.1.msgs),
                    bytes: sum(|p| p.1.bytes),
                },
            );
            seconds.push(Second {
                at: at - begun,
                rate: rate(before, after, (at - *then).as_secs_f64(), grown.len()),
            });
        }
        last = Some((now, at));
        tokio::time::sleep(LOOK).await;
    }
    seconds
}

#[allow(clippy::cast_precision_loss, reason = "a count of servers")]
fn rate(before: Sent, after: Sent, seconds: f64, servers: usize) -> Sent {
    let per = seconds * servers.max(1) as f64;
    Sent {
        msgs: (after.msgs - before.msgs) / per,
        bytes: (after.bytes - before.bytes) / per,
    }
}

async fn total(lab: &Lab) -> Result<Sent> {
    let all = join_all(lab.hosts().iter().map(|h| sent(&h.monitor_url))).await;
    let mut sum = Sent::default();
    for one in all {
        let one = one?;
        sum.msgs += one.msgs;
        sum.bytes += one.bytes;
    }
    Ok(sum)
}

/// What this server has sent for the system account.
async fn sent(monitor: &str) -> Result<Sent> {
    let accounts = get_json(&format!("{monitor}/accstatz?unused=1")).await?;
    let system = accounts["account_statz"]
        .as_array()
        .and_then(|all| all.iter().find(|a| a["acc"] == SYSTEM_ACCOUNT));
    let of = |key: &str| system.and_then(|s| s["sent"][key].as_f64()).unwrap_or(0.0);
    Ok(Sent {
        msgs: of("msgs"),
        bytes: of("bytes"),
    })
}

impl Storm {
    /// The longest time from the restarts to the brownout, and from the storm's end to the brownout's.
    #[must_use]
    pub fn slowest(&self) -> (Option<Duration>, Option<Duration>) {
        let on = self.seen.iter().filter_map(|s| s.on).max();
        let off = self.seen.iter().filter_map(|s| s.off).max();
        (on, off.map(|off| off.saturating_sub(self.over)))
    }

    /// Agents that saw the brownout within `limit`.
    #[must_use]
    pub fn within(&self, limit: Duration) -> usize {
        self.seen.iter().filter(|s| s.on.is_some_and(|on| on <= limit)).count()
    }
}

impl fmt::Display for Storm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for s in &self.seconds {
            writeln!(
                f,
                "+{:5.1} s  {:8.1} msgs/s {:10.0} bytes/s sent by each server",
                s.at.as_secs_f64(),
                s.rate.msgs,
                s.rate.bytes
            )?;
        }
        let secs = |d: Option<Duration>| d.map_or("never".to_owned(), |d| format!("{:.1} s", d.as_secs_f64()));
        for s in &self.seen {
            writeln!(
                f,
                "{}: brownout {}, over {}, explained: {}",
                s.host,
                secs(s.on),
                secs(s.off),
                s.explained.as_deref().unwrap_or("no")
            )?;
        }
        let (on, off) = self.slowest();
        writeln!(
            f,
            "restarted {}: storm over after {:.1} s; explained by {} of {} agents, brownout seen by {}",
            self.restarted.len(),
            self.over.as_secs_f64(),
            self.seen.iter().filter(|s| s.explained.is_some()).count(),
            self.seen.len(),
            self.seen.iter().filter(|s| s.on.is_some()).count(),
        )?;
        if on.is_some() {
            writeln!(
                f,
                "  {} within 5 s, the slowest after {}; the last left it {} after the storm",
                self.within(Duration::from_secs(5)),
                secs(on),
                secs(off)
            )?;
        }
        Ok(())
    }
}
