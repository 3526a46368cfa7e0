//! System traffic of real meshes, beside what the model says of them.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{
    LabError, Result,
    plain::{Counted, Plain, PlainSpec},
};
use crate::core::sys::{
    model::{ServerVersion, Shape, quiet, restart},
    reading::Tally,
};

const WHOLE: Duration = Duration::from_secs(120);
/// Both intervals of STATSZ (10 s and 30 s) go into it whole times.
const PERIOD: Duration = Duration::from_secs(30);
/// No server sends for so long: not in the middle of a round.
const STILL: Duration = Duration::from_millis(700);
/// A restart begins longer after a round than the second within which a server sends no other STATSZ: what the limit puts off
/// would move the rounds out of the span.
const AFTER_A_ROUND: Duration = Duration::from_millis(2_500);

/// One row to measure.
#[derive(Debug, Clone)]
pub struct Row {
    /// The nats-server binary.
    pub server: PathBuf,
    /// Its version.
    pub version: ServerVersion,
    /// Servers.
    pub servers: usize,
    /// Clusters.
    pub clusters: usize,
    /// Clients per server.
    pub clients: usize,
    /// Restarts to measure.
    pub restarts: usize,
}

/// A predicted and a measured figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// By the model.
    pub predicted: f64,
    /// By the counters of the servers.
    pub measured: f64,
}

impl Pair {
    /// How far the prediction is off, as a part of what was measured.
    #[must_use]
    pub fn error(self) -> f64 {
        (self.predicted - self.measured) / self.measured
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = usize::from(self.measured < 100.0);
        write!(
            f,
            "{:.digits$} / {:.digits$} ({:+.0} %)",
            self.predicted,
            self.measured,
            self.error() * 100.0
        )
    }
}

/// What was measured of one row.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The row.
    pub row: Row,
    /// Deliveries per second at rest, all servers.
    pub quiet_msgs: Pair,
    /// Kilobytes per second at rest, all servers.
    pub quiet_kb: Pair,
    /// Messages per second that came over the system account's routes into one server; `None` before 2.10.
    pub received: Option<Pair>,
    /// Deliveries that one restart adds; one pair for each.
    pub restart_msgs: Vec<Pair>,
    /// Kilobytes that one restart adds.
    pub restart_kb: Vec<Pair>,
}

/// Head of the Markdown table whose rows [`Measured`] displays.
pub const HEAD: &str = "\
| server | servers | clusters | clients each | quiet, messages/s | quiet, kB/s | received by each, messages/s | one restart, messages | one restart, kB |
|---|---|---|---|---|---|---|---|---|";

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |pairs: &[Pair]| pairs.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        write!(
            f,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            self.row.version,
            self.row.servers,
            self.row.clusters,
            self.row.clients,
            self.quiet_msgs,
            self.quiet_kb,
            self.received.map_or("not counted".to_owned(), |pair| pair.to_string()),
            all(&self.restart_msgs),
            all(&self.restart_kb)
        )
    }
}

impl Measured {
    /// What is off by more than is promised: 15 % at rest, 25 % for a restart (all of a row's restarts together).
    #[must_use]
    pub fn misses(&self) -> Vec<String> {
        let mean = |pairs: &[Pair]| {
            let n = pairs.len().max(1) as f64;
            Pair {
                predicted: pairs.iter().map(|p| p.predicted).sum::<f64>() / n,
                measured: pairs.iter().map(|p| p.measured).sum::<f64>() / n,
            }
        };
        let all = [
            ("quiet messages", self.quiet_msgs, 0.15),
            ("quiet bytes", self.quiet_kb, 0.15),
            ("restart messages", mean(&self.restart_msgs), 0.25),
            ("restart bytes", mean(&self.restart_kb), 0.25),
        ];
        // Not a number is a miss too.
        let missed = all
            .into_iter()
            .filter(|(_, pair, limit)| pair.error().is_nan() || pair.error().abs() > *limit);
        missed.map(|(what, pair, _)| format!("{what}: {pair}")).collect()
    }
}

/// Brings one mesh up and measures it.
///
/// # Errors
/// The mesh does not get whole, or a server stops answering.
pub async fn measure(row: Row) -> Result<Measured> {
    let begun = Instant::now();
    let spec = PlainSpec {
        server: row.server.clone(),
        servers: row.servers,
        clusters: row.clusters,
        clients: row.clients,
    };
    let mesh = Plain::start(spec, WHOLE).await?;
    // The time between two STATSZ doubles up to the interval.
    tokio::time::sleep(row.version.statsz_interval() * 2 + Duration::from_secs(12)).await;
    let (at_rest, by_routes) = over(&mesh, PERIOD * 2, None).await?;
    let rest = |amount: f64| amount / (PERIOD * 2).as_secs_f64();
    let shape = shape(&row, begun.elapsed());
    let (calm, cost) = (quiet(&shape), restart(&shape));
    let n = row.servers as f64;
    let mut measured = Measured {
        quiet_msgs: Pair {
            predicted: calm.sent.msgs_per_second * n,
            measured: rest(at_rest.0),
        },
        quiet_kb: Pair {
            predicted: calm.sent.bytes_per_second * n / 1e3,
            measured: rest(at_rest.1) / 1e3,
        },
        received: row.version.pools_routes().then_some(Pair {
            // What comes from another cluster comes by a gateway to one server of this one, and by routes to the rest.
            predicted: calm.received.msgs_per_second * (n - row.clusters as f64) / (n - 1.0).max(1.0),
            measured: rest(by_routes) / n,
        }),
        restart_msgs: Vec::new(),
        restart_kb: Vec::new(),
        row,
    };
    for i in 0..measured.row.restarts {
        let victim = (i * 7 + 3) % measured.row.servers;
        let (with, _) = over(&mesh, PERIOD, Some(victim)).await?;
        // What it sends last, SHUTDOWN, it does not live to show.
        let seen = cost.total.msgs - (n - 1.0);
        let last = (n - 1.0) * 200.0;
        measured.restart_msgs.push(Pair {
            predicted: seen,
            measured: with.0 - at_rest.0 / 2.0,
        });
        measured.restart_kb.push(Pair {
            predicted: (cost.total.bytes - last) / 1e3,
            measured: (with.1 - at_rest.1 / 2.0) / 1e3,
        });
    }
    Ok(measured)
}

fn shape(row: &Row, age: Duration) -> Shape {
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Shape {
        clients_per_server: small(row.clients),
        accounts: u32::from(row.clients > 0),
        name_bytes: 3,
        // Clients send nothing: the other connections' counters are zeroes.
        route_digits: 1,
        age,
        ..Shape::new(small(row.servers), small(row.clusters), row.version)
    }
}

/// Deliveries and bytes of all servers over a period, and messages received over the system account's routes. A server that
/// is restarted in it counts from 0.
async fn over(mesh: &Plain, period: Duration, restarted: Option<usize>) -> Result<((f64, f64), f64)> {
    let before = still(mesh, if restarted.is_some() { AFTER_A_ROUND } else { STILL }).await?;
    let begun = Instant::now();
    if let Some(server) = restarted {
        mesh.restart(server).await?;
        mesh.wait_until_whole(WHOLE).await?;
    }
    tokio::time::sleep(period.saturating_sub(begun.elapsed())).await;
    let after = mesh.counted().await?;
    let old: BTreeMap<&str, &Counted> = before.iter().map(|c| (c.server_id.as_str(), c)).collect();
    let mut sum = (0.0, 0.0);
    let mut by_routes = 0.0;
    for now in &after {
        let then = old.get(now.server_id.as_str());
        let then_sent = then.map_or(Tally::default(), |c| c.sent);
        sum.0 += now.sent.msgs as f64 - then_sent.msgs as f64;
        sum.1 += now.sent.bytes as f64 - then_sent.bytes as f64;
        by_routes += now.by_routes.msgs as f64 - then.map_or(0, |c| c.by_routes.msgs) as f64;
    }
    Ok((sum, by_routes))
}

/// The counters at a moment when no round of STATSZ is under way: servers that started together send together.
///
/// A pause as long as is wished for may not be there: after restarts servers send at different times. Then a short one does.
async fn still(mesh: &Plain, wished: Duration) -> Result<Vec<Counted>> {
    match paused(mesh, wished, PERIOD).await {
        Err(LabError::Process { .. }) if wished > STILL => paused(mesh, STILL, PERIOD * 2).await,
        result => result,
    }
}

async fn paused(mesh: &Plain, pause: Duration, patience: Duration) -> Result<Vec<Counted>> {
    let deadline = Instant::now() + patience;
    let mut last = mesh.counted().await?;
    loop {
        tokio::time::sleep(pause).await;
        let now = mesh.counted().await?;
        if now == last {
            return Ok(now);
        }
        if Instant::now() > deadline {
            return Err(LabError::Process {
                what: "the servers' system traffic never pauses for a moment".to_owned(),
            });
        }
        last = now;
    }
}
