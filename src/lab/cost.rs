//! What one agent costs: a real agent beside a real server that carries the beacons of many simulated sources.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, Instant},
};

use super::{AgentSpec, Lab, LabError, LabSpec, Load, Result, get_json, load, monitor::get};

/// Regions of the simulated sources.
const REGIONS: usize = 10;
/// Until all sources are judged and start-up is over.
const WARM_UP: Duration = Duration::from_secs(15);
/// Reads of `/metrics`.
const READS: usize = 50;
/// The kernel's unit of CPU time in `/proc`, fixed for programs: USER_HZ.
pub(super) const TICKS_PER_SECOND: f64 = 100.0;

/// One row to measure, as in `200@1s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Simulated sources.
    pub sources: usize,
    /// Time between beacons of one.
    pub interval: Duration,
}

impl FromStr for Row {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let bad = || format!("{text:?} is no row; write sources@interval, as in 200@1s");
        let (sources, interval) = text.split_once('@').ok_or_else(bad)?;
        Ok(Self {
            sources: sources.parse().map_err(|_| bad())?,
            interval: humantime::parse_duration(interval).map_err(|_| bad())?,
        })
    }
}

/// What was measured of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    /// The row.
    pub row: Row,
    /// Beacons that the agent took in, per second.
    pub beacons_per_second: f64,
    /// CPU time by time, in percent of one core.
    pub cpu_percent: f64,
    /// Resident memory at the end, KiB.
    pub resident: u64,
    /// Most resident memory ever, KiB.
    pub peak: u64,
    /// Median time of a read of `/metrics`.
    pub metrics: Duration,
    /// Series in `/metrics`.
    pub series: usize,
    /// Size of `/metrics`.
    pub bytes: usize,
    /// Sources with verdict ok, and faults: what was measured is an agent that works.
    pub ok: u64,
    /// Faults the agent saw; none is expected.
    pub faults: usize,
}

/// Head of the Markdown table whose rows [`Cost`] displays.
pub const HEAD: &str = "\
| sources | interval | beacons/s | CPU, % of a core | RSS | peak RSS | GET /metrics, median of 50 | series | ok, faults |
|---|---|---|---|---|---|---|---|---|";

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |kib: u64| f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0;
        write!(
            f,
            "| {} | {:?} | {:.0} | {:.2} | {:.1} MiB | {:.1} MiB | {:.2} ms, {} KiB | {} | {}, {} |",
            self.row.sources,
            self.row.interval,
            self.beacons_per_second,
            self.cpu_percent,
            mib(self.resident),
            mib(self.peak),
            self.metrics.as_secs_f64() * 1e3,
            self.bytes / 1024,
            self.series,
            self.ok,
            self.faults
        )
    }
}

/// Measures one row over `span`, with a new server and a new agent.
///
/// # Errors
/// Where server or agent do not start, or the agent does not hear all sources.
pub async fn measure(row: Row, span: Duration, server: PathBuf, agent_bin: Option<PathBuf>) -> Result<Cost> {
    let mut agents = AgentSpec::new("observe");
    agents.bin = agent_bin.unwrap_or(agents.bin);
    let lab = Lab::start(LabSpec {
        regions: vec!["iad".to_owned()],
        per_region: 1,
        agents: Some(agents),
        ..LabSpec::new(server)
    })
    .await?;
    let host = lab.hosts()[0].clone();
    let pid = lab.agent_pid(&host.name).ok_or_else(|| LabError::Process {
        what: "the agent has no process".to_owned(),
    })?;
    let load = Load {
        sources: row.sources,
        regions: REGIONS,
        interval: row.interval,
    };
    let speak = load::run(load, &host.client_url, "watchdog", "watchdog");
    let look = look(row, span, pid, format!("http://{}", host.agent_http));
    tokio::select! {
        ended = speak => Err(ended.err().unwrap_or_else(|| LabError::Process { what: "the load has ended".to_owned() })),
        cost = look => cost,
    }
}

async fn look(row: Row, span: Duration, pid: u32, base: String) -> Result<Cost> {
    tokio::time::sleep(WARM_UP + row.interval * 2).await;
    let (begun, cpu, before) = (Instant::now(), cpu_ticks(pid)?, received(&base).await?);
    tokio::time::sleep(span).await;
    let (took, used) = (begun.elapsed().as_secs_f64(), cpu_ticks(pid)? - cpu);
    let beacons = received(&base).await? - before;
    let mut times = Vec::with_capacity(READS);
    let mut text = String::new();
    let url = format!("{base}/metrics");
    for _ in 0..READS {
        let asked = Instant::now();
        let body = get(&url).await.map_err(|e| LabError::Http {
            url: url.clone(),
            why: e.to_string(),
        })?;
        times.push(asked.elapsed());
        text = String::from_utf8_lossy(&body).into_owned();
    }
    times.sort();
    let status = get_json(&format!("{base}/api/v1/status")).await?;
    let regions = status["regions"].as_array().cloned().unwrap_or_default();
    Ok(Cost {
        row,
        beacons_per_second: beacons / took,
        cpu_percent: used / TICKS_PER_SECOND / took * 100.0,
        resident: kib(pid, "VmRSS:")?,
        peak: kib(pid, "VmHWM:")?,
        metrics: times[READS / 2],
        series: text.lines().filter(|l| !l.starts_with('#')).count(),
        bytes: text.len(),
        ok: regions.iter().filter_map(|r| r["paths"]["ok"].as_u64()).sum(),
        faults: status["faults"].as_array().map_or(0, Vec::len),
    })
}

async fn received(base: &str) -> Result<f64> {
    let status = get_json(&format!("{base}/api/v1/status")).await?;
    let regions = status["regions"].as_array().cloned().unwrap_or_default();
    Ok(regions.iter().filter_map(|r| r["received"].as_f64()).sum())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(LabError::file("read", path))
}

/// User and system time of the whole process.
pub(super) fn cpu_ticks(pid: u32) -> Result<f64> {
    let stat = read(&PathBuf::from(format!("/proc/{pid}/stat")))?;
    // The name may hold spaces; it ends with the last bracket.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).unwrap_or_default();
    Ok(field(11) + field(12))
}

pub(super) fn kib(pid: u32, name: &str) -> Result<u64> {
    let status = read(&PathBuf::from(format!("/proc/{pid}/status")))?;
    let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse().unwrap_or_default())
}
