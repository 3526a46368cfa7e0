//! Whether system traffic is counted by a subscription: only where the server's counters do not tell what it receives of events
//! (before 2.10 there are none, and with JetStream they count its replication too), and only with credentials of the
//! system account.

use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::Driver;
use crate::adapters::nats::system;
use crate::core::agent::event::Event;
use crate::core::server::Sample;
use crate::core::sys::version::ServerVersion;

/// The counting that is under way, if any.
#[derive(Default)]
pub(super) struct Counting(Option<JoinHandle<()>>);

impl Drop for Counting {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Driver {
    /// Starts or ends counting when the server's version is seen.
    pub(super) fn count_system(&mut self, event: &Event) {
        let (
            Some(connect),
            Event::Server {
                result: Ok(Sample::Varz(varz)),
                ..
            },
        ) = (&self.settings.system, event)
        else {
            return;
        };
        // A version that cannot be read is none that is known to need it.
        let old = varz.version.parse::<ServerVersion>().is_ok_and(|v| !v.pools_routes());
        let wanted = old || varz.jetstream;
        let under_way = self.system.0.as_ref().is_some_and(|task| !task.is_finished());
        if wanted && !under_way {
            let why = if old {
                "has no counters of system traffic received"
            } else {
                "runs JetStream, whose replication shares the counters of system traffic"
            };
            info!("server {} {why}: events are counted", varz.version);
            let count = system::count(connect.clone(), self.settings.host.clone(), self.inputs.clone());
            self.system = Counting(Some(tokio::spawn(async move {
                if let Err(error) = count.await {
                    warn!("system traffic cannot be counted: {error}");
                }
            })));
        } else if !wanted && under_way {
            self.system = Counting::default();
        }
    }
}
