//! Scenario files: what fleet, how its agents are set, what goes wrong when. TOML; mistakes are told with file, line and
//! what was expected.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::fault::{Fault, HostNo, KINDS, Kind, Needs, RegionNo};
use crate::core::policy::Mode;

/// The largest fleet.
const MAX_HOSTS: usize = 2000;
/// The longest run.
const MAX_DURATION: Duration = Duration::from_secs(31 * 24 * 3600);

/// A scenario, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// One word.
    pub name: String,
    /// One sentence.
    pub about: String,
    /// Simulated time.
    pub duration: Duration,
    /// The servers.
    pub fleet: Fleet,
    /// The agents.
    pub agents: Agents,
    /// What goes wrong by plan.
    pub faults: Vec<Fault>,
    /// What goes wrong by chance.
    pub mix: Option<Mix>,
    /// What must come out.
    pub expect: Expect,
}

/// `[fleet]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// Regions, each one cluster.
    pub regions: Vec<String>,
    /// Hosts in each.
    pub hosts: usize,
    /// The servers are of a version before route pools and gateways that redial.
    pub old: bool,
    /// Servers of each cluster that stand in the configuration of all.
    pub seeds: usize,
    /// JetStream is on.
    pub jetstream: bool,
}

impl Fleet {
    /// All hosts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.regions.len() * self.hosts
    }

    /// No hosts; a checked scenario never is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where a host is.
    #[must_use]
    pub fn region_of(&self, host: HostNo) -> RegionNo {
        host / self.hosts.max(1)
    }

    /// All host names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        (0..self.len())
            .map(|h| format!("{}-{}", self.regions[self.region_of(h)], h % self.hosts + 1))
            .collect()
    }
}

/// `[agents]`
#[derive(Debug, Clone, PartialEq)]
pub struct Agents {
    /// How far they may go.
    pub mode: Mode,
    /// Beacon interval.
    pub interval: Duration,
    /// The kernel lets them reset sockets.
    pub can_reset: bool,
    /// A store of permits is configured.
    pub permits: bool,
    /// `remediation.restarts_per_hour`
    pub restarts_per_hour: u32,
    /// `remediation.max_sick_fraction`
    pub max_sick_fraction: f64,
    /// Each n-th host runs a real agent; stand-ins of the others send healthy beacons and answer probes.
    pub real_every: usize,
}

/// `[mix]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix {
    /// Faults per simulated hour, on average.
    pub per_hour: usize,
    /// Which; the file's `kinds`, or all.
    pub kinds: Vec<Kind>,
    /// None begins before.
    pub from: Duration,
    /// Draw fleet, mode and settings too.
    pub vary: bool,
}

/// `[expect]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expect {
    /// Most restarts.
    pub restarts: Option<u32>,
    /// Most resets.
    pub resets: Option<u32>,
    /// All paths whole at the end.
    pub healed: Option<bool>,
    /// No verdict against a host or a path that is fine lasts beyond its confirm time.
    pub no_false_fault: bool,
    /// A remedy of the ladder heals it: its minutes count in the sum of the score.
    pub remedy: bool,
}

/// A mistake in a scenario file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ScenarioError {
    /// File.
    pub file: PathBuf,
    /// What was wrong, by line.
    pub mistakes: Vec<(usize, String)>,
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (line, text)) in self.mistakes.iter().enumerate() {
            let nl = if i == 0 { "" } else { "\n" };
            write!(f, "{nl}{}:{line}: {text}", self.file.display())?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: Spanned<String>,
    about: String,
    #[serde(default)]
    duration: Option<Spanned<String>>,
    #[serde(default)]
    fleet: RawFleet,
    #[serde(default)]
    agents: RawAgents,
    #[serde(default)]
    fault: Vec<Spanned<RawFault>>,
    mix: Option<RawMix>,
    #[serde(default)]
    expect: RawExpect,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawFleet {
    regions: Option<Spanned<Vec<Spanned<String>>>>,
    hosts_per_region: Option<Spanned<i64>>,
    version: Option<Spanned<String>>,
    seeds: Option<Spanned<i64>>,
    #[serde(default)]
    jetstream: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawAgents {
    mode: Option<Spanned<String>>,
    interval: Option<Spanned<String>>,
    can_reset: Option<bool>,
    permits: Option<bool>,
    restarts_per_hour: Option<Spanned<i64>>,
    max_sick_fraction: Option<Spanned<f64>>,
    real_every: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFault {
    at: Spanned<String>,
    kind: Spanned<String>,
    host: Option<Spanned<String>>,
    peer: Option<Spanned<String>>,
    region: Option<Spanned<String>>,
    to: Option<Spanned<String>>,
    #[serde(rename = "for")]
    lasts: Option<Spanned<String>>,
    percent: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMix {
    faults_per_hour: Spanned<i64>,
    kinds: Option<Vec<Spanned<String>>>,
    from: Option<Spanned<String>>,
    #[serde(default)]
    vary: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawExpect {
    restarts_at_most: Option<Spanned<i64>>,
    resets_at_most: Option<Spanned<i64>>,
    healed: Option<bool>,
    #[serde(default)]
    no_false_fault: bool,
    #[serde(default)]
    remedy: bool,
}

impl Scenario {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// All mistakes with their lines; of mistakes of form the first.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ScenarioError> {
        let line = |at: usize| text.get(..at).map_or(1, |t| t.matches('\n').count() + 1);
        let raw: Raw = toml::from_str(text).map_err(|e| ScenarioError {
            file: file.into(),
            mistakes: vec![(line(e.span().map_or(0, |s| s.start)), e.message().replace('\n', " "))],
        })?;
        let mut check = Check {
            line: &line,
            mistakes: Vec::new(),
        };
        let scenario = check.scenario(raw);
        let mut mistakes = check.mistakes;
        mistakes.sort();
        if mistakes.is_empty() {
            Ok(scenario)
        } else {
            let file = file.into();
            Err(ScenarioError { file, mistakes })
        }
    }
}

struct Check<'a> {
    line: &'a dyn Fn(usize) -> usize,
    mistakes: Vec<(usize, String)>,
}

impl Check<'_> {
    fn wrong<T>(&mut self, at: &Spanned<T>, text: String) {
        self.mistakes.push(((self.line)(at.span().start), text));
    }

    fn duration(&mut self, key: &str, raw: Option<&Spanned<String>>, default: Duration, most: Duration) -> Duration {
        let Some(raw) = raw else { return default };
        match humantime::parse_duration(raw.get_ref()) {
            Ok(d) if d <= most => d,
            Ok(_) => {
                let most = humantime::format_duration(most);
                self.wrong(raw, format!("{key} = {:?}: expected at most {most}", raw.get_ref()));
                default
            }
            Err(e) => {
                self.wrong(
                    raw,
                    format!(
                        "{key} = {:?}: expected a duration like \"90s\" or \"1h\" ({e})",
                        raw.get_ref()
                    ),
                );
                default
            }
        }
    }

    fn number(&mut self, key: &str, raw: Option<&Spanned<i64>>, default: usize, range: (usize, usize)) -> usize {
        let Some(raw) = raw else { return default };
        match usize::try_from(*raw.get_ref()) {
            Ok(n) if (range.0..=range.1).contains(&n) => n,
            _ => {
                self.wrong(
                    raw,
                    format!(
                        "{key} = {}: expected a whole number from {} to {}",
                        raw.get_ref(),
                        range.0,
                        range.1
                    ),
                );
                default
            }
        }
    }

    fn scenario(&mut self, raw: Raw) -> Scenario {
        let hour = Duration::from_secs(3600);
        let duration = self.duration("duration", raw.duration.as_ref(), hour, MAX_DURATION);
        let name = raw.name.get_ref().clone();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            self.wrong(&raw.name, format!("name = {name:?}: expected letters, digits and '-'"));
        }
        let fleet = self.fleet(raw.fleet);
        let agents = self.agents(raw.agents);
        let faults = raw
            .fault
            .iter()
            .filter_map(|f| {
                let fault = self.fault(f, &fleet, duration)?;
                self.real_host(f, &fault, &agents);
                Some(fault)
            })
            .collect();
        let mix = raw.mix.map(|m| self.mix(&m, duration));
        let count = |c: &mut Self, key, raw: Option<Spanned<i64>>| {
            let n = c.number(key, raw.as_ref(), 0, (0, 1_000_000));
            raw.map(|_| u32::try_from(n).unwrap_or(u32::MAX))
        };
        let expect = Expect {
            restarts: count(self, "restarts_at_most", raw.expect.restarts_at_most),
            resets: count(self, "resets_at_most", raw.expect.resets_at_most),
            healed: raw.expect.healed,
            no_false_fault: raw.expect.no_false_fault,
            remedy: raw.expect.remedy,
        };
        Scenario {
            name,
            about: raw.about,
            duration,
            fleet,
            agents,
            faults,
            mix,
            expect,
        }
    }

    fn fleet(&mut self, raw: RawFleet) -> Fleet {
        let mut regions: Vec<String> = ["iad", "fra", "sin"].map(str::to_owned).to_vec();
        if let Some(named) = &raw.regions {
            regions = Vec::new();
            for name in named.get_ref() {
                if let Err(e) = crate::core::ids::Region::new(name.get_ref()) {
                    self.wrong(name, format!("regions: {e}"));
                } else if regions.contains(name.get_ref()) {
                    self.wrong(name, format!("regions: {:?} stands there twice", name.get_ref()));
                }
                regions.push(name.get_ref().clone());
            }
            if regions.is_empty() {
                self.wrong(named, "regions: expected at least one name".to_owned());
                regions.push("iad".to_owned());
            }
        }
        let most = MAX_HOSTS / regions.len().max(1);
        let hosts = self.number("hosts_per_region", raw.hosts_per_region.as_ref(), 10, (1, most));
        let seeds = self.number("seeds", raw.seeds.as_ref(), 2.min(hosts), (1, hosts));
        let old = match raw.version.as_ref().map(Spanned::get_ref).map(String::as_str) {
            Some("2.9") => true,
            Some("2.10") | None => false,
            Some(other) => {
                let text = format!("version = {other:?}: expected \"2.9\" or \"2.10\"");
                if let Some(at) = &raw.version {
                    self.wrong(at, text);
                }
                false
            }
        };
        Fleet {
            regions,
            hosts,
            old,
            seeds,
            jetstream: raw.jetstream,
        }
    }

    fn agents(&mut self, raw: RawAgents) -> Agents {
        let mode = match &raw.mode {
            None => Mode::Restart,
            Some(name) => match Mode::ALL.into_iter().find(|m| m.name() == name.get_ref()) {
                Some(mode) => mode,
                None => {
                    self.wrong(
                        name,
                        format!(
                            "mode = {:?}: expected \"observe\", \"reset\" or \"restart\"",
                            name.get_ref()
                        ),
                    );
                    Mode::Observe
                }
            },
        };
        let second = Duration::from_secs(1);
        let interval = self.duration("interval", raw.interval.as_ref(), second, second * 60);
        if let Some(at) = raw.interval.as_ref().filter(|_| interval < Duration::from_millis(200)) {
            self.wrong(at, "interval: expected at least 200ms".to_owned());
        }
        let max_sick_fraction = raw.max_sick_fraction.as_ref().map_or(0.1, |f| *f.get_ref());
        if let Some(at) = raw
            .max_sick_fraction
            .as_ref()
            .filter(|_| !(0.0..=1.0).contains(&max_sick_fraction))
        {
            self.wrong(at, "max_sick_fraction: expected a number from 0 to 1".to_owned());
        }
        let real_every = self.number("real_every", raw.real_every.as_ref(), 1, (1, 100_000));
        let per_hour = self.number("restarts_per_hour", raw.restarts_per_hour.as_ref(), 2, (0, 60));
        Agents {
            mode,
            interval,
            can_reset: raw.can_reset.unwrap_or(true),
            permits: raw.permits.unwrap_or(true),
            restarts_per_hour: u32::try_from(per_hour).unwrap_or(2),
            max_sick_fraction,
            real_every,
        }
    }

    fn mix(&mut self, raw: &RawMix, duration: Duration) -> Mix {
        let mut kinds = Vec::new();
        for name in raw.kinds.iter().flatten() {
            match Kind::by_name(name.get_ref()) {
                Some(kind) => kinds.push(kind),
                None => self.unknown_kind(name),
            }
        }
        if raw.kinds.is_none() {
            kinds = KINDS.iter().map(|k| k.1).collect();
        }
        Mix {
            per_hour: self.number("faults_per_hour", Some(&raw.faults_per_hour), 0, (0, 10_000)),
            kinds,
            from: self.duration("from", raw.from.as_ref(), Duration::from_secs(60), duration),
            vary: raw.vary,
        }
    }

    fn unknown_kind(&mut self, name: &Spanned<String>) {
        let names: Vec<&str> = KINDS.iter().map(|k| k.0).collect();
        self.wrong(
            name,
            format!("kind = {:?}: expected one of {}", name.get_ref(), names.join(", ")),
        );
    }

    fn fault(&mut self, raw: &Spanned<RawFault>, fleet: &Fleet, duration: Duration) -> Option<Fault> {
        let f = raw.get_ref();
        let Some(kind) = Kind::by_name(f.kind.get_ref()) else {
            self.unknown_kind(&f.kind);
            return None;
        };
        let needs = kind.needs();
        let name = kind.name();
        let at = self.duration("at", Some(&f.at), Duration::ZERO, duration);
        let lasts = self.duration("for", f.lasts.as_ref(), default_length(kind), MAX_DURATION);
        let takes_host = !matches!(needs, Needs::Region | Needs::TwoRegions | Needs::Nothing);
        let takes_peer = matches!(needs, Needs::Peers | Needs::Pair);
        let takes_to = matches!(needs, Needs::HostAndCluster | Needs::TwoRegions);
        let takes_region = matches!(needs, Needs::Region | Needs::TwoRegions);
        let hosts = fleet.names();
        let host = self.place("host", f.host.as_ref(), takes_host, true, &hosts, raw, name);
        let peer = self.place("peer", f.peer.as_ref(), takes_peer, true, &hosts, raw, name);
        let region = self.place(
            "region",
            f.region.as_ref(),
            takes_region,
            false,
            &fleet.regions,
            raw,
            name,
        );
        let to = self.place(
            "to",
            f.to.as_ref(),
            takes_to,
            needs == Needs::HostAndCluster,
            &fleet.regions,
            raw,
            name,
        );
        if let (true, Some(h), Some(p)) = (takes_peer, host, peer) {
            if h == p {
                self.wrong(raw, format!("{name}: host and peer must be two hosts"));
            } else if needs == Needs::Peers && fleet.region_of(h) != fleet.region_of(p) {
                self.wrong(
                    raw,
                    format!("{name}: host and peer must be in one region, which is one cluster"),
                );
            }
        }
        if let (Needs::HostAndCluster, Some(h), Some(t)) = (needs, host, to)
            && fleet.region_of(h) == t
        {
            self.wrong(
                raw,
                format!("{name}: expected another region than that of the host in \"to\""),
            );
        }
        Some(Fault {
            kind,
            at,
            lasts,
            host: host.unwrap_or(0),
            peer: peer.unwrap_or(0),
            region,
            to,
            percent: self.number("percent", f.percent.as_ref(), 20, (1, 100)),
        })
    }

    /// A stand-in may be slow, and knows of nothing else that happens to its host.
    fn real_host(&mut self, raw: &Spanned<RawFault>, fault: &Fault, agents: &Agents) {
        let (f, every) = (raw.get_ref(), agents.real_every);
        for (named, host) in [(&f.host, fault.host), (&f.peer, fault.peer)] {
            if let Some(name) = named
                .as_ref()
                .filter(|_| !host.is_multiple_of(every) && fault.kind != Kind::SlowAgent)
            {
                let text = format!(
                    "{:?} has no real agent: expected each {every}th host, the first of all among them",
                    name.get_ref()
                );
                self.wrong(name, text);
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one place, five uses")]
    fn place(
        &mut self,
        key: &str,
        raw: Option<&Spanned<String>>,
        takes: bool,
        must: bool,
        names: &[String],
        fault: &Spanned<RawFault>,
        kind: &str,
    ) -> Option<usize> {
        match raw {
            Some(at) if !takes => {
                self.wrong(at, format!("{key}: a fault of kind {kind} has none"));
                None
            }
            Some(name) => {
                let found = names.iter().position(|n| n == name.get_ref());
                if found.is_none() {
                    let last = names.last().map_or("", String::as_str);
                    let first = names.first().map_or("", String::as_str);
                    self.wrong(
                        name,
                        format!("{key} = {:?}: expected one of {first} … {last}", name.get_ref()),
                    );
                }
                found
            }
            None => {
                if takes && must {
                    self.wrong(fault, format!("a fault of kind {kind} needs {key}"));
                }
                None
            }
        }
    }
}

/// How long a fault lasts that does not say.
pub(super) fn default_length(kind: Kind) -> Duration {
    Duration::from_secs(match kind {
        Kind::Freeze => 40,
        Kind::Partition | Kind::HostCut | Kind::PairCut | Kind::OneWayCut => 120,
        Kind::Loss => 30,
        Kind::SlowAgent | Kind::LaneCut | Kind::DiskFails | Kind::DiskHangs | Kind::AgentStop => 120,
        Kind::HostDown
        | Kind::RegionDown
        | Kind::StoreDown
        | Kind::StoreLosesAnswers
        | Kind::OperatorStops
        | Kind::OperatorMasks
        | Kind::Pause => 300,
        Kind::BadUpgrade | Kind::Leak => 1800,
        Kind::ClockAhead | Kind::ClockBack => 3600,
        Kind::ClientStorm => 120,
        Kind::LameDuck => 20,
        _ => 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        match Scenario::parse(Path::new("x.toml"), text) {
            Ok(_) => vec![],
            Err(e) => e.to_string().lines().map(str::to_owned).collect(),
        }
    }

    const HEAD: &str = "name = \"x\"\nabout = \"y\"\n";

    #[test]
    fn mistakes_of_form_have_file_line_and_what_was_expected() {
        let found = mistakes(&format!("{HEAD}[fleet]\nhost = 3\n"));
        assert!(
            found[0].starts_with("x.toml:4: unknown field `host`, expected one of"),
            "{found:?}"
        );
        let found = mistakes("about = \"y\"\n");
        assert!(found[0].starts_with("x.toml:1: missing field `name`"), "{found:?}");
        let found = mistakes(&format!("{HEAD}duration = 3\n"));
        assert!(found[0].starts_with("x.toml:3: invalid type"), "{found:?}");
        let found = mistakes("name =\nabout = \"y\"\n");
        assert!(found[0].starts_with("x.toml:1: "), "{found:?}");
    }

    #[test]
    fn mistakes_of_sense_are_told_all_at_once_by_line() {
        let text = format!(
            "{HEAD}duration = \"soon\"\n[fleet]\nseeds = 11\n[agents]\nmode = \"reboot\"\n[[fault]]\nat = \"2h\"\nkind = \"hole\"\n\
             host = \"iad-1\"\npeer = \"fra-1\"\n[[fault]]\nat = \"1s\"\nkind = \"gateway_waits\"\nhost = \"nyc-1\"\n[[fault]]\nat = \"1s\"\n\
             kind = \"meteor\"\n[[fault]]\nat = \"1s\"\nkind = \"pause\"\nhost = \"iad-1\"\n"
        );
        let found = mistakes(&text);
        let wanted = [
            "x.toml:3: duration = \"soon\": expected a duration",
            "x.toml:5: seeds = 11: expected a whole number from 1 to 10",
            "x.toml:7: mode = \"reboot\": expected \"observe\"",
            "x.toml:8: hole: host and peer must be in one region",
            "x.toml:9: at = \"2h\": expected at most 1h",
            "x.toml:13: a fault of kind gateway_waits needs to",
            "x.toml:16: host = \"nyc-1\": expected one of iad-1 … sin-10",
            "x.toml:19: kind = \"meteor\": expected one of route_stall,",
            "x.toml:23: host: a fault of kind pause has none",
        ];
        assert_eq!(found.len(), wanted.len(), "{found:#?}");
        for (found, wanted) in found.iter().zip(wanted) {
            assert!(found.starts_with(wanted), "{found} / {wanted}");
        }
    }

    #[test]
    fn nothing_happens_to_a_host_with_a_stand_in() {
        let text = format!(
            "{HEAD}[agents]\nreal_every = 7\n[[fault]]\nat = \"1s\"\nkind = \"hole\"\nhost = \"iad-8\"\npeer = \"iad-3\"\n"
        );
        let wanted = "x.toml:9: \"iad-3\" has no real agent: expected each 7th host, the first of all among them";
        assert_eq!(mistakes(&text), [wanted]);
    }

    #[test]
    fn what_is_not_said_has_defaults() {
        let s = Scenario::parse(Path::new("x.toml"), HEAD).unwrap();
        assert_eq!((s.fleet.len(), s.duration), (30, Duration::from_secs(3600)));
        assert_eq!(s.fleet.names()[10], "fra-1");
        assert_eq!(s.agents.mode, Mode::Restart);
    }
}
