//! Units of systemd over the system bus: read one, restart, stop, start or signal one. Nothing else is asked of systemd.
//!
//! A restart counts as done when systemd reports that the job has ended, not when it accepted the request. The end is a
//! signal, so it is listened for before the request goes out.

mod error;
mod state;

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::Mutex;
use zbus::connection::Builder;
use zbus::fdo::PropertiesProxy;
use zbus::names::InterfaceName;
use zbus::{Connection, OwnedObjectPath};

pub use error::SystemdError;
pub use state::{ActiveState, JobResult, LoadState, UnitState};

/// A word from the bus or from systemd takes milliseconds; this is for the day it does not.
const ANSWER: Duration = Duration::from_secs(10);

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn kill_unit(&self, name: &str, whom: &str, signal: i32) -> zbus::Result<()>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
}

#[derive(Debug, Clone, Copy)]
enum Job {
    Restart,
    Stop,
    Start,
}

impl Job {
    fn verb(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Start => "start",
        }
    }
}

/// systemd of this host. Connects when first used, and again when the bus has gone away in between.
#[derive(Debug, Default)]
pub struct Systemd {
    address: Option<String>,
    connection: Mutex<Option<Connection>>,
}

impl Systemd {
    /// Over the system bus.
    pub fn new() -> Self {
        Self::default()
    }

    /// Over the bus at this D-Bus address (`unix:path=…`).
    pub fn at(address: impl Into<String>) -> Self {
        Self {
            address: Some(address.into()),
            ..Self::default()
        }
    }

    /// State of a unit. One that is not loaded is loaded for it; one that does not exist has
    /// [`LoadState::NotFound`].
    pub async fn unit_state(&self, unit: &str) -> Result<UnitState, SystemdError> {
        let failed = |e| SystemdError::of("read the state of", unit, e);
        let (connection, manager) = self.manager(unit).await?;
        let path = manager.load_unit(unit).await.map_err(failed)?;
        let properties = PropertiesProxy::builder(&connection)
            .destination("org.freedesktop.systemd1")
            .path(path)
            .build()
            .await
            .map_err(failed)?;
        let get = |interface: &'static str| {
            let name = InterfaceName::from_static_str_unchecked(interface);
            properties.get_all(name)
        };
        let common = get("org.freedesktop.systemd1.Unit").await;
        let common = common.map_err(|e| failed(e.into()))?;
        // Targets, sockets and the like have no service half; their main pid is 0.
        let service = get("org.freedesktop.systemd1.Service").await.unwrap_or_default();
        UnitState::read(&common, &service).map_err(failed)
    }

    /// Restarts a unit (mode `replace`) and waits until that job has ended, at most `deadline`. The job goes on where
    /// the deadline passes.
    pub async fn restart_unit(&self, unit: &str, deadline: Duration) -> Result<JobResult, SystemdError> {
        self.within(unit, deadline, self.job(Job::Restart, unit)).await
    }

    async fn within(
        &self,
        unit: &str,
        deadline: Duration,
        job: impl Future<Output = Result<JobResult, SystemdError>>,
    ) -> Result<JobResult, SystemdError> {
        tokio::time::timeout(deadline, job).await.unwrap_or_else(|_| {
            Err(SystemdError::Deadline {
                unit: unit.to_owned(),
                deadline,
            })
        })
    }

    async fn job(&self, job: Job, unit: &str) -> Result<JobResult, SystemdError> {
        let failed = |e| SystemdError::of(job.verb(), unit, e);
        let (_connection, manager) = self.manager(unit).await?;
        let mut removed = manager.receive_job_removed().await.map_err(failed)?;
        let job = match job {
            Job::Restart => manager.restart_unit(unit, "replace").await,
            Job::Stop => manager.stop_unit(unit, "replace").await,
            Job::Start => manager.start_unit(unit, "replace").await,
        };
        let job = job.map_err(failed)?;
        while let Some(signal) = removed.next().await {
            let args = signal.args().map_err(failed)?;
            if *args.job() == job {
                return Ok(JobResult::from(args.result().as_str()));
            }
        }
        Err(SystemdError::JobLost { unit: unit.to_owned() })
    }

    /// Stops a unit and waits until that job has ended. One that is stopped is fine.
    pub async fn stop_unit(&self, unit: &str, deadline: Duration) -> Result<JobResult, SystemdError> {
        self.within(unit, deadline, self.job(Job::Stop, unit)).await
    }

    /// Starts a unit and waits until that job has ended. One that runs is fine.
    pub async fn start_unit(&self, unit: &str, deadline: Duration) -> Result<JobResult, SystemdError> {
        self.within(unit, deadline, self.job(Job::Start, unit)).await
    }

    /// Sends a signal to the main process of a unit.
    pub async fn kill_unit(&self, unit: &str, signal: i32) -> Result<(), SystemdError> {
        let failed = |e| SystemdError::of("signal", unit, e);
        let (_connection, manager) = self.manager(unit).await?;
        manager.kill_unit(unit, "main", signal).await.map_err(failed)
    }

    /// A connection that answers. Subscribing proves it (systemd sends job signals to subscribers only), so the request
    /// that follows need never be sent twice.
    async fn manager(&self, unit: &str) -> Result<(Connection, ManagerProxy<'static>), SystemdError> {
        let mut cached = self.connection.lock().await;
        let old = cached.take();
        let reused = old.is_some();
        let mut outcome = self.subscribed(old).await;
        if reused && outcome.is_err() {
            outcome = self.subscribed(None).await;
        }
        let (connection, manager) = outcome.map_err(|e| SystemdError::of("reach", unit, e))?;
        *cached = Some(connection.clone());
        Ok((connection, manager))
    }

    async fn subscribed(&self, connection: Option<Connection>) -> zbus::Result<(Connection, ManagerProxy<'static>)> {
        let connection = match connection {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let manager = ManagerProxy::new(&connection).await?;
        match manager.subscribe().await {
            Err(zbus::Error::MethodError(name, ..))
                if name.as_str() == "org.freedesktop.systemd1.AlreadySubscribed" => {}
            other => other?,
        }
        Ok((connection, manager))
    }

    async fn connect(&self) -> zbus::Result<Connection> {
        let builder = match &self.address {
            Some(address) => Builder::address(address.as_str()),
            None => Builder::system(),
        };
        let connecting = builder.method_timeout(ANSWER).build();
        tokio::time::timeout(ANSWER, connecting).await.unwrap_or_else(|_| {
            let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
            Err(late.into())
        })
    }
}

#[cfg(test)]
mod tests;
