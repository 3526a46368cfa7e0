use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zbus::{OwnedObjectPath, OwnedVariant};

type Properties = HashMap<String, OwnedVariant>;

/// What systemd tells about a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitState {
    /// Whether there is such a unit.
    pub load_state: LoadState,
    /// Whether it runs.
    pub active_state: ActiveState,
    /// Finer than `active_state`: `running`, `dead`, `auto-restart`…
    pub sub_state: String,
    /// `enabled`, `disabled`, `masked`…; empty where there is no unit file.
    pub unit_file_state: String,
    /// The job that is queued or under way: somebody is starting, stopping or restarting it.
    pub job: Option<u32>,
    /// The main process of a service, 0 without one.
    pub main_pid: u32,
    /// Last time it left `inactive`, so the time it is up since; systemd's own wall clock.
    pub inactive_exit: Option<SystemTime>,
    /// How often systemd restarted it by itself (`Restart=`).
    pub n_restarts: u32,
    /// How the service last ended: `success`, `exit-code`, `signal`, `oom-kill`, `watchdog`…; empty for other units.
    pub result: String,
}

/// `LoadState` of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadState {
    /// Read and ready.
    Loaded,
    /// There is no such unit.
    NotFound,
    /// An operator forbids it to start.
    Masked,
    /// `error`, `bad-setting`…
    Other(String),
}

/// `ActiveState` of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActiveState {
    /// It runs.
    Active,
    /// It runs and reads its configuration anew.
    Reloading,
    /// It does not run.
    Inactive,
    /// It ended badly.
    Failed,
    /// It starts.
    Activating,
    /// It stops.
    Deactivating,
    /// One that this version does not know.
    Other(String),
}

/// How a job of systemd ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobResult {
    /// As wished.
    Done,
    /// The unit failed.
    Failed,
    /// Another job took its place, or an operator cancelled it.
    Canceled,
    /// The job's own time ran out.
    Timeout,
    /// Something it needs failed.
    Dependency,
    /// There was nothing to do.
    Skipped,
    /// `assert`, `unsupported`, `collected`…
    Other(String),
}

impl fmt::Display for LoadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loaded => "loaded",
            Self::NotFound => "not-found",
            Self::Masked => "masked",
            Self::Other(other) => other,
        })
    }
}

impl fmt::Display for ActiveState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Reloading => "reloading",
            Self::Inactive => "inactive",
            Self::Failed => "failed",
            Self::Activating => "activating",
            Self::Deactivating => "deactivating",
            Self::Other(other) => other,
        })
    }
}

impl fmt::Display for JobResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Timeout => "timeout",
            Self::Dependency => "dependency",
            Self::Skipped => "skipped",
            Self::Other(other) => other,
        })
    }
}

impl From<&str> for LoadState {
    fn from(text: &str) -> Self {
        match text {
            "loaded" => Self::Loaded,
            "not-found" => Self::NotFound,
            "masked" => Self::Masked,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl From<&str> for ActiveState {
    fn from(text: &str) -> Self {
        match text {
            "active" => Self::Active,
            "reloading" => Self::Reloading,
            "inactive" => Self::Inactive,
            "failed" => Self::Failed,
            "activating" => Self::Activating,
            "deactivating" => Self::Deactivating,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl From<&str> for JobResult {
    fn from(text: &str) -> Self {
        match text {
            "done" => Self::Done,
            "failed" => Self::Failed,
            "canceled" => Self::Canceled,
            "timeout" => Self::Timeout,
            "dependency" => Self::Dependency,
            "skipped" => Self::Skipped,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl UnitState {
    /// A missing property of the unit is an error: unknown is not the same as stopped.
    pub(super) fn read(unit: &Properties, service: &Properties) -> zbus::Result<Self> {
        let exit: u64 = required(unit, "InactiveExitTimestamp")?;
        let (job, _): (u32, OwnedObjectPath) = required(unit, "Job")?;
        Ok(Self {
            load_state: required::<String>(unit, "LoadState")?.as_str().into(),
            active_state: required::<String>(unit, "ActiveState")?.as_str().into(),
            sub_state: required(unit, "SubState")?,
            unit_file_state: required(unit, "UnitFileState")?,
            job: (job != 0).then_some(job),
            main_pid: optional(service, "MainPID")?.unwrap_or_default(),
            inactive_exit: (exit != 0).then(|| UNIX_EPOCH + Duration::from_micros(exit)),
            n_restarts: optional(service, "NRestarts")?.unwrap_or_default(),
            result: optional(service, "Result")?.unwrap_or_default(),
        })
    }
}

fn optional<T: TryFrom<OwnedVariant>>(all: &Properties, name: &str) -> zbus::Result<Option<T>> {
    let Some(value) = all.get(name) else {
        return Ok(None);
    };
    let value = value.try_clone().ok().and_then(|value| T::try_from(value).ok());
    let odd = || zbus::Error::Failure(format!("property {name} has another type than expected"));
    value.ok_or_else(odd).map(Some)
}

fn required<T: TryFrom<OwnedVariant>>(all: &Properties, name: &str) -> zbus::Result<T> {
    let missing = || zbus::Error::Failure(format!("property {name} is missing"));
    optional(all, name)?.ok_or_else(missing)
}
