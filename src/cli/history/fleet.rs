//! History over NATS: every agent asked at once within one deadline, merged by time; and events as they come.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use async_nats::{Client, Subscriber};
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::signal::unix::{SignalKind, signal};

use super::{Filter, History, sentence, tone};
use crate::adapters::nats::control;
use crate::cli::output::{self, Format};
use crate::cli::restart::inventory;
use crate::cli::words::{Tone, time};
use crate::core::audit::{Told, harmless};
use crate::core::control::{Answer, Verb};
use crate::core::ids::HostName;

/// Questions under way at a time.
const AT_ONCE: usize = 128;

/// What came back.
pub(super) struct Asked {
    /// All records, by time.
    pub(super) told: Vec<Told>,
    /// Who did not answer, or only in part, and why.
    pub(super) silent: BTreeMap<HostName, String>,
}

pub(super) async fn subscribe(client: &Client, prefix: &str) -> anyhow::Result<Subscriber> {
    let subject = format!("{prefix}.event.>");
    let what = || format!("cannot subscribe to {subject}");
    let events = client.subscribe(subject.clone()).await.with_context(what)?;
    client.flush().await.with_context(what)?;
    Ok(events)
}

pub(super) async fn ask_all(client: &Client, flags: &History) -> anyhow::Result<Asked> {
    let hosts: BTreeSet<HostName> = if flags.fleet {
        inventory::hosts(client, &flags.prefix).await?
    } else {
        flags.host.iter().cloned().collect()
    };
    if hosts.is_empty() {
        anyhow::bail!(
            "no agent was heard on {}.canary.>: are agents running, in this account, and with this --prefix?",
            flags.prefix
        );
    }
    let filter = flags.filter();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time after 1970"
    )]
    let verb = Verb::History {
        // What is filtered here must not use up the number there.
        limit: flags.event.is_empty().then_some(flags.last),
        since_ms: (filter.since > 0.0).then_some((filter.since * 1000.0) as u64),
    };
    let answers = stream::iter(hosts)
        .map(|host| {
            let verb = verb.clone();
            async move {
                let answer = control::read(client, &flags.prefix, &host, verb, flags.within).await;
                (host, answer)
            }
        })
        .buffer_unordered(AT_ONCE);
    let mut answers = std::pin::pin!(answers);
    let mut asked = Asked {
        told: Vec::new(),
        silent: BTreeMap::new(),
    };
    while let Some((host, answer)) = answers.next().await {
        match answer {
            Ok(Answer::History(page)) => {
                if page.left_out > 0 {
                    let text = format!("{} older records did not fit into its answer", page.left_out);
                    asked.silent.insert(host.clone(), text);
                }
                let region = page.region;
                let mut records = page.records;
                records.retain(|r| filter.passes(r));
                records.drain(..records.len().saturating_sub(flags.last));
                let told = records
                    .into_iter()
                    .map(|record| Told::new(host.clone(), region.clone(), record));
                asked.told.extend(told);
            }
            Ok(Answer::Refused { text, .. }) => {
                let text = format!("its agent refused, is it of an older version? {}", harmless(&text));
                asked.silent.insert(host, text);
            }
            Ok(other) => {
                asked
                    .silent
                    .insert(host, format!("it answered something else: {other:?}"));
            }
            Err(e) => {
                asked.silent.insert(host, e.to_string());
            }
        }
    }
    asked.told.sort_by(|a, b| a.record.at.total_cmp(&b.record.at));
    Ok(asked)
}

/// Prints events until Ctrl-C.
pub(super) async fn follow(
    mut events: Subscriber,
    prefix: &str,
    hosts: &[HostName],
    filter: &Filter,
    format: Format,
) -> anyhow::Result<()> {
    let mut stop = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut term = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    loop {
        let message = tokio::select! {
            _ = stop.recv() => return Ok(()),
            _ = term.recv() => return Ok(()),
            message = events.next() => message,
        };
        let Some(message) = message else {
            anyhow::bail!("the connection to NATS is closed");
        };
        match Told::decode(prefix, &message.subject, &message.payload) {
            Ok(told) if hosts.is_empty() || hosts.contains(&told.host) => {
                if told.missed > 0 {
                    let text = format!(
                        "{} records before this one were not sent; `watchdog history --host {}` has them",
                        told.missed, told.host
                    );
                    output::warn(&text);
                }
                if filter.passes(&told.record) {
                    print(&told, format)?;
                }
            }
            Ok(_) => {}
            Err(e) => output::warn(&format!("an event is not believed: {}", harmless(&e.to_string()))),
        }
    }
}

pub(super) fn print(told: &Told, format: Format) -> anyhow::Result<()> {
    let record = &told.record;
    match format {
        Format::Json => output::print(&serde_json::to_string(told)?),
        Format::Text => {
            let paint = output::paint();
            let event = harmless(&record.event);
            let line = format!(
                "{} {:<12} {} {} {}",
                paint.text(Tone::Dim, &time(record.at)),
                told.host,
                paint.text(tone(&event), &format!("{event:<8}")),
                harmless(&record.subject),
                harmless(&sentence(record)),
            );
            output::print(&line)
        }
    }
}
