//! What a rolling restart tells an agent, and what an agent tells of restarts: how one is to be done, what was there
//! before it, and the record of the rollout that is open.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Arg, Args, Stage};
use crate::core::ids::HostName;

/// Version of [`Record`] written by this build.
pub const RECORD_VERSION: u32 = 1;

/// Whether clients are drained first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LameDuck {
    /// Where the server has clients beside the agent and the agent knows a way.
    #[default]
    Auto,
    /// Never.
    Never,
    /// Always: an agent that knows no way refuses.
    Always,
}

impl LameDuck {
    /// All, as they are written on the command line.
    pub const NAMES: [(&'static str, LameDuck); 3] =
        [("auto", Self::Auto), ("never", Self::Never), ("always", Self::Always)];

    /// As written on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, l)| *l == self)
            .map_or("auto", |(name, _)| name)
    }

    /// Reads [`LameDuck::name`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, l)| *l)
    }
}

/// How a restart is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartOrder {
    /// Drain clients first?
    #[serde(skip_serializing_if = "is_auto")]
    pub lame_duck: LameDuck,
    /// Name of a hook in the agent's own configuration, run between stop and start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
    /// See [`Record::term`].
    #[serde(skip_serializing_if = "is_zero")]
    pub term: u64,
}

impl RestartOrder {
    /// As it travels: what is not said is as by default, so that a plain restart has no arguments.
    #[must_use]
    pub fn args(&self) -> Args {
        let mut args = Args::default();
        if self.lame_duck != LameDuck::Auto {
            args = args.with("lame_duck", Arg::Text(self.lame_duck.name().to_owned()));
        }
        if let Some(hook) = &self.hook {
            args = args.with("hook", Arg::Text(hook.clone()));
        }
        if self.term > 0 {
            args = args.with("term", Arg::Number(self.term));
        }
        args
    }

    /// Reads [`RestartOrder::args`]; they were checked before.
    #[must_use]
    pub fn read(args: &Args) -> Self {
        Self {
            lame_duck: args.text("lame_duck").and_then(LameDuck::parse).unwrap_or_default(),
            hook: args.text("hook").map(str::to_owned),
            term: args.number("term").unwrap_or_default(),
        }
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_auto(l: &LameDuck) -> bool {
    *l == LameDuck::Auto
}

/// JetStream on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JetStream {
    /// Its server leads the meta group.
    pub meta_leader: bool,
    /// Streams that it leads; `None` = not known.
    pub stream_leaders: Option<u64>,
}

/// What a host says that concerns its restart. All of it may be missing in the answer of an older agent, which then can
/// nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartFacts {
    /// Hooks of its configuration, and how long each may take, in milliseconds.
    pub hooks: BTreeMap<String, u64>,
    /// Longest that its lame duck may take, in milliseconds; `None` = it knows no way to drain.
    pub lame_duck_ms: Option<u64>,
    /// As leader of the meta group it can be asked to step down: its agent has credentials of the system account.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub step_down: bool,
    /// Of its clients, the agent's own.
    pub own_clients: u64,
    /// JetStream, where it is on.
    pub jetstream: Option<JetStream>,
    /// The last restart that was ordered, kept over the agent's own restart.
    pub ordered: Option<Ordered>,
    /// The rollout that is open as far as this host was told.
    pub rollout: Option<OpenRollout>,
    /// It takes its permits from a store: a rollout must be open there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub store: bool,
}

/// A restart that was ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// Of which rollout.
    pub rollout: String,
    /// How far.
    pub stage: Stage,
    /// In words.
    #[serde(default)]
    pub detail: String,
    /// When, Unix milliseconds by the host's clock.
    pub at_ms: u64,
    /// How.
    #[serde(default)]
    pub order: RestartOrder,
    /// What was there.
    pub before: Before,
}

/// A host's server as it was before a restart: what must be back after it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Before {
    /// `server_id`
    pub server_id: String,
    /// Version.
    #[serde(default)]
    pub version: String,
    /// Distinct peers; `None` = was not known.
    #[serde(default)]
    pub peers: Option<usize>,
    /// Their names.
    #[serde(default)]
    pub peer_names: Vec<String>,
    /// Clusters with an outbound gateway.
    #[serde(default)]
    pub gateways: Vec<String>,
}

/// One host of a [`Record`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordHost {
    /// Who.
    #[serde(rename = "h")]
    pub host: HostName,
    /// Its wave, from 1.
    #[serde(rename = "w")]
    pub wave: usize,
    /// Version of its server when the plan was made.
    #[serde(rename = "v")]
    pub version: String,
    /// Restarted and proved.
    #[serde(rename = "p", default, skip_serializing_if = "std::ops::Not::not")]
    pub proved: bool,
}

/// A rollout as it is kept at the hosts, and in the permit store where there is one: the plan, and how far it is. Whoever
/// has it can go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`RECORD_VERSION`]
    pub v: u32,
    /// Its name.
    pub id: String,
    /// Grows with each process that drives it: what an earlier one still sends is refused.
    #[serde(default)]
    pub term: u64,
    /// Grows with each change of a term; the highest is the newest.
    pub seq: u64,
    /// Who began it, as `user@machine`.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Begun, Unix milliseconds by the operator's clock.
    pub started_ms: u64,
    /// The order, canary first.
    pub hosts: Vec<RecordHost>,
    /// Gap between a proof and the next start.
    pub stagger_ms: u64,
    /// Share of the gap that chance adds, in percent.
    pub jitter: u32,
    /// Servers that may be down at a time.
    pub max_unavailable: usize,
    /// Limit for one host.
    pub timeout_ms: u64,
    /// How each is restarted.
    #[serde(default)]
    pub order: RestartOrder,
    /// Why it halted, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<String>,
}

impl Record {
    /// What is newer is greater.
    #[must_use]
    pub fn age(&self) -> (u64, u64) {
        (self.term, self.seq)
    }

    /// What a status shows of it.
    #[must_use]
    pub fn summary(&self) -> OpenRollout {
        OpenRollout {
            id: self.id.clone(),
            term: self.term,
            seq: self.seq,
            by: self.by.clone(),
            reason: self.reason.clone(),
            started_ms: self.started_ms,
            hosts: self.hosts.len(),
            proved: self.hosts.iter().filter(|h| h.proved).count(),
            halted: self.halted.clone(),
        }
    }

    /// What is wrong with it, if anything: it came over the network, and is kept.
    ///
    /// # Errors
    /// A sentence.
    pub fn check(&self) -> Result<(), String> {
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let name = |text: &str| !text.is_empty() && text.len() <= 64 && text.chars().all(letter);
        if self.v > RECORD_VERSION {
            return Err(format!(
                "a rollout's record of version {}, this agent reads up to {RECORD_VERSION}; upgrade the agent",
                self.v
            ));
        }
        if !name(&self.id) {
            return Err(format!("{:?} is no name of a rollout", self.id));
        }
        let distinct: std::collections::BTreeSet<&HostName> = self.hosts.iter().map(|h| &h.host).collect();
        if self.hosts.is_empty() || distinct.len() != self.hosts.len() {
            return Err("a rollout's record without hosts, or with one twice".to_owned());
        }
        Ok(())
    }
}

/// A rollout in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRollout {
    /// Its name.
    pub id: String,
    /// See [`Record::term`].
    #[serde(default)]
    pub term: u64,
    /// See [`Record::seq`].
    pub seq: u64,
    /// Who began it.
    pub by: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Begun, Unix milliseconds.
    pub started_ms: u64,
    /// Hosts of its plan.
    pub hosts: usize,
    /// Of these, proved.
    pub proved: usize,
    /// Why it halted, if it did.
    #[serde(default)]
    pub halted: Option<String>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A record of hosts `names`, all in the first wave.
    pub(crate) fn record(id: &str, names: &[&str]) -> Record {
        Record {
            v: RECORD_VERSION,
            id: id.to_owned(),
            term: 0,
            seq: 1,
            by: "ops@desk".to_owned(),
            reason: String::new(),
            started_ms: 1_000,
            hosts: names
                .iter()
                .map(|n| RecordHost {
                    host: HostName::new(n).unwrap(),
                    wave: 1,
                    version: "2.10.26".to_owned(),
                    proved: false,
                })
                .collect(),
            stagger_ms: 30_000,
            jitter: 10,
            max_unavailable: 1,
            timeout_ms: 120_000,
            order: RestartOrder::default(),
            halted: None,
        }
    }

    #[test]
    fn a_record_of_nine_hundred_hosts_fits_into_a_command() {
        let names: Vec<String> = (0..900).map(|i| format!("region-number-nine-rack-{i:04}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let bytes = serde_json::to_string(&record("5f0c2a91", &names)).unwrap();
        // A command is text within JSON: each quote takes two bytes.
        let quotes = bytes.matches('"').count();
        assert!(
            bytes.len() + quotes < super::super::MAX_BYTES,
            "{}",
            bytes.len() + quotes
        );
    }

    #[test]
    fn a_record_that_means_nothing_is_refused() {
        assert_eq!(record("ab12", &["a", "b"]).check(), Ok(()));
        assert!(record("", &["a"]).check().is_err());
        assert!(record("a\nb", &["a"]).check().is_err());
        assert!(record("ab", &[]).check().is_err());
        assert!(record("ab", &["a", "a"]).check().is_err());
        let mut later = record("ab", &["a"]);
        later.v = 2;
        assert!(later.check().unwrap_err().contains("upgrade the agent"));
    }

    #[test]
    fn an_order_reads_back_from_its_arguments_and_a_plain_one_has_none() {
        assert!(RestartOrder::default().args().is_empty());
        let order = RestartOrder {
            lame_duck: LameDuck::Never,
            hook: Some("upgrade".to_owned()),
            term: 3,
        };
        assert_eq!(RestartOrder::read(&order.args()), order);
    }

    #[test]
    fn what_an_older_agent_does_not_say_it_cannot_do() {
        assert_eq!(
            serde_json::from_str::<RestartFacts>("{}").unwrap(),
            RestartFacts::default()
        );
    }
}
