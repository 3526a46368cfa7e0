//! Registers of permits: a cell that is read, and compared and swapped. Nothing here knows what stands in it.

use std::future::Future;
use std::time::Duration;

use super::etcd::Etcd;
use super::file::FileRegister;
use super::nats_kv::NatsKv;
use crate::config::permits::{PermitSettings, PermitStore};
use crate::core::permit::{Revision, StoreError, Stored};

/// A register. After an error of a swap that is no [`StoreError::Conflict`] the swap may have been done, or may still be.
pub trait Register: Send + Sync {
    /// What stands there; `None` = nothing yet.
    fn get(&self) -> impl Future<Output = Result<Option<Stored>, StoreError>> + Send;

    /// Puts `bytes` there if the register still is at `expect`; `None` = still has nothing. The new revision.
    fn compare_and_swap(
        &self,
        bytes: Vec<u8>,
        expect: Option<Revision>,
    ) -> impl Future<Output = Result<Revision, StoreError>> + Send;
}

/// The register of the configuration.
#[derive(Debug)]
pub enum Configured {
    /// A file.
    File(FileRegister),
    /// JetStream KV.
    NatsKv(NatsKv),
    /// etcd.
    Etcd(Etcd),
}

/// A configured register with a limit for each request.
#[derive(Debug)]
pub struct Permits {
    register: Configured,
    timeout: Duration,
}

/// The register of `settings`; `None` = time slots, which need none. `client` is the connection's name. Does not wait for
/// the store to be there.
///
/// # Errors
/// Credentials or URLs that cannot be used.
pub async fn open(settings: &PermitSettings, client: &str) -> Result<Option<Permits>, String> {
    let register = match &settings.store {
        PermitStore::Slots => return Ok(None),
        PermitStore::File(path) => Configured::File(FileRegister::new(path)),
        PermitStore::NatsKv { connect, bucket } => {
            let kv = NatsKv::open(connect, bucket, &settings.scope, client).await;
            Configured::NatsKv(kv.map_err(|e| e.to_string())?)
        }
        PermitStore::Etcd { endpoints, user } => Configured::Etcd(Etcd::new(
            endpoints.clone(),
            user.clone(),
            &settings.scope,
            settings.timeout,
        )),
    };
    Ok(Some(Permits {
        register,
        timeout: settings.timeout,
    }))
}

impl Register for Permits {
    async fn get(&self) -> Result<Option<Stored>, StoreError> {
        let read = async {
            match &self.register {
                Configured::File(r) => r.get().await,
                Configured::NatsKv(r) => r.get().await,
                Configured::Etcd(r) => r.get().await,
            }
        };
        in_time(self.timeout, read).await
    }

    async fn compare_and_swap(&self, bytes: Vec<u8>, expect: Option<Revision>) -> Result<Revision, StoreError> {
        let write = async {
            match &self.register {
                Configured::File(r) => r.compare_and_swap(bytes, expect).await,
                Configured::NatsKv(r) => r.compare_and_swap(bytes, expect).await,
                Configured::Etcd(r) => r.compare_and_swap(bytes, expect).await,
            }
        };
        in_time(self.timeout, write).await
    }
}

async fn in_time<T>(limit: Duration, ask: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, ask).await {
        Ok(result) => result,
        Err(_) => {
            let limit = humantime::format_duration(limit);
            Err(StoreError::Unreachable(format!("no answer within {limit}")))
        }
    }
}
