//! `watchdog restart`: how it connects; the rest is [`restart`].

use std::time::Duration;

use clap::Args;

use super::connect_flags::ConnectFlags;
use super::restart::{self, RestartArgs};
use super::{Exit, Failure};
use crate::adapters::nats::connect;

/// A server that does not answer in this time is not there.
const CONNECT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Restart {
    #[command(flatten)]
    args: RestartArgs,
    #[command(flatten)]
    connect: ConnectFlags,
}

impl Restart {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let runtime = super::runtime()?;
        runtime.block_on(async move {
            restart::check(&self.args).map_err(|text| Failure::usage(anyhow::anyhow!(text)))?;
            let to = self.connect.resolve().map_err(Failure::usage)?;
            let client = connect::connect(&to, "watchdog restart", CONNECT)
                .await
                .map_err(anyhow::Error::from)?;
            Ok(restart::run(self.args, client).await?)
        })
    }
}
