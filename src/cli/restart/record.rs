//! The rollout's record at the hosts, and in the permit store where there is one: opened before anything is restarted,
//! kept up to date, closed at the end. Whoever can ask the hosts, or read the store, can go on with it.
//!
//! The store is always written first: what a host was told must be there when the host looks.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::Client;
use futures_util::{StreamExt, stream};

use super::drive::Orders;
use super::store::Store;
use crate::adapters::nats::control::{ask, read};
use crate::core::control::roll::{OpenRollout, Record};
use crate::core::control::{Answer, Args, Verb};
use crate::core::ids::HostName;
use crate::core::rollout::Inventory;

/// How long a host may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Hosts told at a time.
const AT_ONCE: usize = 64;
/// A host whose server is just being restarted takes nothing for a while.
const TRIES: usize = 3;

/// Why a host did not take what it was told.
struct Why {
    /// It answered; else it may have taken it all the same.
    said_no: bool,
    text: String,
}

/// Tells hosts of a rollout.
#[derive(Clone)]
pub(super) struct Board {
    client: Client,
    orders: Orders,
    store: Option<Store>,
    hosts: Vec<HostName>,
    /// Rollouts that hosts still have and that are over by the store.
    over: Vec<String>,
}

impl Board {
    pub(super) fn new(client: &Client, orders: &Orders, store: Option<Store>, inventory: &Inventory) -> Self {
        let answering = inventory.iter().filter(|(_, found)| found.status.is_some());
        let over = match store {
            Some(_) => open_ones(inventory).into_keys().collect(),
            None => Vec::new(),
        };
        Self {
            client: client.clone(),
            orders: orders.clone(),
            store,
            hosts: answering.map(|(host, _)| host.clone()).collect(),
            over,
        }
    }

    /// Opens it everywhere, or nowhere.
    ///
    /// # Errors
    /// Who did not take it, and why.
    pub(super) async fn open(&self, record: &Record) -> Result<(), String> {
        if let Some(store) = &self.store {
            store.open(record).await?;
            for id in self.over.iter().filter(|id| **id != record.id) {
                self.tell(&self.hosts, &Verb::Close, id).await;
            }
        }
        let opened = self.open_at_hosts(record).await;
        if opened.is_err()
            && record.term == 0
            && let Some(store) = &self.store
            && let Err(e) = store.end(record).await
        {
            return opened.map_err(|text| format!("{text}; and it stays open in the permit store: {e}"));
        }
        opened
    }

    async fn open_at_hosts(&self, record: &Record) -> Result<(), String> {
        let refused = self.tell(&self.hosts, &open(record), &record.id).await;
        match refused.iter().next() {
            None => Ok(()),
            Some((host, why)) => {
                let others = match refused.len() - 1 {
                    0 => String::new(),
                    n => format!(" (and {n} more)"),
                };
                let text = format!("the rollout could not be opened at {host}{others}: {}", why.text);
                if record.term > 0 {
                    // It was open before, and stays so.
                    return Err(text);
                }
                // Those that did not answer may have taken it.
                let may_have: Vec<HostName> = self
                    .hosts
                    .iter()
                    .filter(|h| refused.get(*h).is_none_or(|why| !why.said_no))
                    .cloned()
                    .collect();
                self.tell(&may_have, &Verb::Close, &record.id).await;
                Err(text)
            }
        }
    }

    /// Tells how far it is; what a host does not hear it hears with the next.
    ///
    /// # Errors
    /// What the store says against it; hosts are told all the same, for who goes on later.
    pub(super) async fn update(&self, record: &Record) -> Result<(), String> {
        let stored = match &self.store {
            Some(store) => store.update(record).await,
            None => Ok(()),
        };
        self.tell(&self.hosts, &open(record), &record.id).await;
        stored
    }

    /// It is over.
    ///
    /// # Errors
    /// Where it could not be closed.
    pub(super) async fn close(&self, record: &Record) -> Result<(), String> {
        let stored = match &self.store {
            Some(store) => store.end(record).await,
            None => Ok(()),
        };
        let left = self.close_at_hosts(&record.id).await;
        match (stored, self.store.is_some()) {
            (Err(text), _) => Err(format!("in the permit store ({text})")),
            // They read in the store that it is over.
            (Ok(()), true) => Ok(()),
            (Ok(()), false) if left.is_empty() => Ok(()),
            (Ok(()), false) => {
                let names: Vec<&str> = left.iter().map(HostName::as_str).collect();
                Err(format!("at {}", names.join(", ")))
            }
        }
    }

    /// Closes it at the hosts; who did not take that.
    pub(super) async fn close_at_hosts(&self, id: &str) -> Vec<HostName> {
        let mut left = self.hosts.clone();
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            left = self.tell(&left, &Verb::Close, id).await.into_keys().collect();
            if left.is_empty() {
                break;
            }
        }
        left
    }

    /// Who did not take it, and why.
    async fn tell(&self, hosts: &[HostName], verb: &Verb, rollout: &str) -> BTreeMap<HostName, Why> {
        stream::iter(hosts.iter().cloned())
            .map(|host| async move {
                let command = self
                    .orders
                    .command(host.clone(), verb.clone(), Args::default(), rollout);
                let envelope = self.orders.operator.sign(&command);
                let (said_no, text) = match ask(&self.client, &self.orders.prefix, &host, &envelope, ANSWER).await {
                    Ok(Answer::Accepted { .. }) => return None,
                    Ok(Answer::Refused { text, .. }) => (true, text),
                    Ok(other) => (true, format!("it answered something else: {other:?}")),
                    Err(e) => (false, e.to_string()),
                };
                Some((host, Why { said_no, text }))
            })
            .buffer_unordered(AT_ONCE)
            .filter_map(|refused| async { refused })
            .collect()
            .await
    }
}

fn open(record: &Record) -> Verb {
    Verb::Open {
        record: Box::new(record.clone()),
    }
}

/// The rollouts that hosts say are open, and who says so.
pub(super) fn open_ones(inventory: &Inventory) -> BTreeMap<String, (OpenRollout, Vec<HostName>)> {
    let mut open: BTreeMap<String, (OpenRollout, Vec<HostName>)> = BTreeMap::new();
    for (host, found) in inventory {
        let Some(rollout) = found.status.as_ref().and_then(|s| s.restart.rollout.as_ref()) else {
            continue;
        };
        let (newest, hosts) = open
            .entry(rollout.id.clone())
            .or_insert_with(|| (rollout.clone(), Vec::new()));
        if (rollout.term, rollout.seq) > (newest.term, newest.seq) {
            *newest = rollout.clone();
        }
        hosts.push(host.clone());
    }
    open
}

/// The newest record of rollout `id` that a host has.
pub(super) async fn newest(client: &Client, prefix: &str, inventory: &Inventory, id: &str) -> Option<Record> {
    let mut holders: Vec<(&HostName, (u64, u64))> = inventory
        .iter()
        .filter_map(|(host, found)| {
            let rollout = found.status.as_ref()?.restart.rollout.as_ref()?;
            (rollout.id == id).then_some((host, (rollout.term, rollout.seq)))
        })
        .collect();
    holders.sort_by_key(|(_, age)| std::cmp::Reverse(*age));
    for (host, _) in holders.into_iter().take(8) {
        if let Ok(Answer::Rollout(Some(record))) = read(client, prefix, host, Verb::Rollout, ANSWER).await
            && record.id == id
        {
            return Some(*record);
        }
    }
    None
}
