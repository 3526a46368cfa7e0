//! Everything that can happen to an agent, and everything it can want.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::agent::run::{ServerStep, StepError};
use crate::core::audit::Told;
use crate::core::canary::beacon::{Beacon, Source};
use crate::core::canary::probes::ProbeFailure;
use crate::core::control::roll::Record as Rollout;
use crate::core::ids::{HostName, LaneName, Region, Wall};
use crate::core::permit::{Revision, StoreError, Stored};
use crate::core::remedy::ledger::Ledger;
use crate::core::server::{Endpoint, ReadError, Sample};
use crate::core::sys::memory::MemoryLimit;
use crate::core::sys::reading::Tally;
use crate::core::view::Record;

/// Who answered a network check, by its INFO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// `server_id`
    pub server_id: String,
    /// Name of its cluster, if it has one.
    pub cluster: Option<String>,
}

/// INFO was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// How long TCP took to connect.
    pub connect: Duration,
    /// Who said it; `None` where it speaks TLS, and cannot be known without a certificate.
    pub who: Option<Answered>,
}

/// Something happened. The driver adds the time.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Time passed; comes every [`TICK`](crate::core::agent::TICK).
    Tick,
    /// A lane's connection came up or went down.
    Connection {
        /// Lane.
        lane: LaneName,
        /// `Err` = down, with the client's words.
        state: Result<(), String>,
    },
    /// A good beacon, the own one included.
    Beacon {
        /// Lane.
        lane: LaneName,
        /// By the subject.
        source: Source,
        /// What it says.
        beacon: Arc<Beacon>,
    },
    /// A message was dropped.
    Dropped {
        /// A short constant.
        reason: &'static str,
        /// From whom, in words.
        detail: String,
    },
    /// A probe was answered.
    ProbeAnswered {
        /// Its id.
        id: u64,
        /// How long the responder held it.
        hold: Duration,
    },
    /// A probe failed at once.
    ProbeFailed {
        /// Its id.
        id: u64,
        /// Why.
        why: ProbeFailure,
    },
    /// The local server was read.
    Server {
        /// What was read.
        endpoint: Endpoint,
        /// What came.
        result: Result<Sample, ReadError>,
    },
    /// System traffic that the local server received, counted where its own counters do not tell (before 2.10, and with JetStream).
    SysCounted {
        /// Number of the subscription; the counts began with it.
        subscription: u64,
        /// By `server_id` of the sender, the local server among them; see [`CONNS`](crate::core::sys::reading::CONNS).
        peers: BTreeMap<String, Tally>,
        /// Bytes that the local server has queued for routes, by its last STATSZ.
        pending: Option<u64>,
    },
    /// What memory the server may use was read; `None` = it could not be.
    MemoryLimit(Option<MemoryLimit>),
    /// The server said that it is a lame duck.
    LameDuck,
    /// The unit's state was read.
    Unit(Result<UnitReport, String>),
    /// A network check ended.
    Checked {
        /// Its id.
        check: u64,
        /// INFO was read; or what happened instead.
        result: Result<Passed, String>,
    },
    /// The ledger was written, or not.
    LedgerSaved {
        /// For which act.
        act: u64,
        /// `Err` = the act must not be done.
        result: Result<(), String>,
    },
    /// An act ended.
    ActDone {
        /// Which.
        act: u64,
        /// What was done, or why not.
        result: Result<String, String>,
    },
    /// A step of an ordered restart ended.
    StepDone {
        /// Of which restart.
        act: u64,
        /// What was done, or why not.
        result: Result<String, StepError>,
    },
    /// The permit document was read; `None` = there is none yet.
    PermitsRead {
        /// Which read.
        ask: u64,
        /// What came.
        result: Result<Option<Stored>, StoreError>,
    },
    /// The permit document was written, or not.
    PermitsWritten {
        /// Which write.
        ask: u64,
        /// Its new revision.
        result: Result<Revision, StoreError>,
    },
    /// State on disk cannot be kept (`Some`), or can again.
    StateKept(Option<String>),
    /// The agent is to leave.
    Shutdown,
}

/// What systemd says of the server's unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitReport {
    /// `loaded`, `masked`, `not-found`…
    pub load: String,
    /// `active`, `inactive`, `activating`…
    pub active: String,
    /// `running`, `dead`…
    pub sub: String,
}

/// Which sockets to destroy; only those of the local server ever match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetTarget {
    /// Remote `host:port`, as the server shows or configures them.
    pub remotes: Vec<String>,
    /// For the log: `the route connection 17 to fra-2`.
    pub what: String,
    /// Nothing more can be closed for that fault, and what is dialled anew leads where it led.
    pub whole: bool,
}

/// What the agent wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Publish a beacon.
    Publish {
        /// Lane.
        lane: LaneName,
        /// What to say.
        beacon: Arc<Beacon>,
    },
    /// Send a request with a fresh reply subject.
    Probe {
        /// To be given back.
        id: u64,
        /// Lane.
        lane: LaneName,
        /// Whom to ask.
        target: HostName,
    },
    /// Connect by TCP to one after the other and read INFO; the first that gives it is enough.
    CheckNetwork {
        /// To be given back.
        check: u64,
        /// `host:port` list.
        addresses: Vec<String>,
    },
    /// Write the ledger, durably, then say [`Event::LedgerSaved`].
    SaveLedger {
        /// To be given back.
        act: u64,
        /// What to write.
        ledger: Box<Ledger>,
    },
    /// Write the roster.
    SaveRoster(Vec<RosterEntry>),
    /// Destroy sockets.
    Reset {
        /// To be given back.
        act: u64,
        /// Which.
        target: ResetTarget,
    },
    /// Restart the local server.
    Restart {
        /// To be given back.
        act: u64,
    },
    /// Do one step of an ordered restart, then say [`Event::StepDone`].
    Step {
        /// To be given back.
        act: u64,
        /// Which; never [`ServerStep::Restart`], which is [`Action::Restart`].
        step: ServerStep,
    },
    /// Keep the record of the open rollout, or that there is none.
    SaveRollout(Option<Box<Rollout>>),
    /// Read the permit document, then say [`Event::PermitsRead`].
    ReadPermits {
        /// To be given back.
        ask: u64,
    },
    /// Compare and swap: write only if the register still is at `expect` (`None` = still has nothing), then say
    /// [`Event::PermitsWritten`].
    WritePermits {
        /// To be given back.
        ask: u64,
        /// The document.
        bytes: Vec<u8>,
        /// Revision that it was made from.
        expect: Option<Revision>,
    },
    /// Read `/routez` and `/gatewayz` now.
    ReadRoutes,
    /// Log and keep a record.
    Record(Record),
    /// Publish a record as an event; dropped where the connection does not take it.
    Tell(Box<Told>),
    /// All goodbyes are said: the process may end.
    Leave,
}

/// A member of the roster, as kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterEntry {
    /// Host.
    pub host: HostName,
    /// Its region.
    pub region: Region,
    /// Lanes it was heard on.
    pub lanes: Vec<LaneName>,
    /// Its server's name.
    pub server: String,
    /// Its cluster.
    pub cluster: String,
    /// Where its server takes routes.
    pub route: String,
    /// Where its server takes gateways.
    pub gateway: String,
    /// Last heard.
    pub heard: Wall,
    /// Left in order.
    pub departed: bool,
}
