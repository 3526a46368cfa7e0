//! Commands: checked, written down, carried out, answered; and records, kept, logged and told.

use std::time::Duration;

use async_nats::Subject;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::Driver;
use crate::adapters::nats::control::{self, Verified};
use crate::adapters::nats::lane::Input;
use crate::core::agent::order::Order;
use crate::core::audit::Told;
use crate::core::control::{Answer, Reply, VERSION, Verb, guard};
use crate::core::view::Record;
use crate::telemetry::logging::{self, LogFormat};

/// For a write to disk.
const WRITE: Duration = Duration::from_secs(5);

impl Driver {
    /// A request from the network. One that acts is carried out once it is on disk that it was taken.
    pub(super) async fn request(&mut self, payload: &[u8], reply: Option<Subject>) {
        let now = self.clock.now();
        let host = &self.settings.host;
        let verified = match control::verify(payload, now.wall, &self.settings.operators, &mut self.nonces, host) {
            Ok(verified) => verified,
            Err(refusal) => {
                let who = guard::claimed(payload);
                let actions = self.core.refuse_command(refusal.gate(), &refusal.to_string(), who, now);
                self.carry_out(actions).await;
                self.answer(reply, Answer::refused(&refusal)).await;
                return;
            }
        };
        let answer = match &verified.command.verb {
            Verb::Status => Answer::Status(Box::new(self.core.host_status(now))),
            Verb::Hears { source } => Answer::Hears(self.core.hearing(source, now)),
            Verb::History { limit, since_ms } => Answer::History(self.core.history_page(*limit, *since_ms)),
            Verb::Rollout => Answer::Rollout(self.core.open_record().cloned().map(Box::new)),
            Verb::Restart | Verb::Open { .. } | Verb::Close | Verb::Resume => {
                self.core.took_command(verified.command.verb.name());
                self.note_taken(verified, reply);
                return;
            }
        };
        self.answer(reply, answer).await;
    }

    fn note_taken(&self, order: Verified, reply: Option<Subject>) {
        let (inputs, keeper, taken) = (self.inputs.clone(), self.keeper.clone(), self.nonces.watermark());
        tokio::spawn(async move {
            let kept = match keeper {
                None => Ok(()),
                Some(keeper) => {
                    let write = tokio::task::spawn_blocking(move || keeper.taken(taken));
                    match timeout(WRITE, write).await {
                        Ok(Ok(result)) => result,
                        Ok(Err(e)) => Err(e.to_string()),
                        Err(_) => Err("the disk does not answer".to_owned()),
                    }
                }
            };
            let order = Box::new(order);
            let _ = inputs.send(Input::Taken { order, kept, reply }).await;
        });
    }

    /// A command that was taken, now to be carried out.
    pub(super) async fn order(&mut self, verified: Verified, kept: Result<(), String>, reply: Option<Subject>) {
        let now = self.clock.now();
        if let Err(e) = kept {
            // The operator decides even so: on a full disk a restart may be what is needed.
            warn!(
                "that a command was taken could not be written down, so after a restart of this agent only the clock tells: {e}"
            );
        }
        let order = Order::new(&verified.command, &verified.key);
        let result = match verified.command.verb {
            Verb::Open { record } => self.core.open_rollout(*record, now),
            Verb::Close => Ok(self.core.close_rollout(&order.rollout, &order.who.name, now)),
            Verb::Resume => Ok(self.core.resume(&order, now)),
            _ => self.core.order_restart(&order, now),
        };
        let answer = match result {
            Ok(actions) => {
                self.carry_out(actions).await;
                Answer::Accepted { rollout: order.rollout }
            }
            Err(blocked) => {
                let actions = self.core.refuse_order(&order, &blocked, now);
                self.carry_out(actions).await;
                Answer::Refused {
                    gate: blocked.gate().to_owned(),
                    text: blocked.to_string(),
                }
            }
        };
        self.answer(reply, answer).await;
    }

    async fn answer(&self, reply: Option<Subject>, answer: Answer) {
        if let Some(reply) = reply
            && let Some(lane) = self.lanes.get(&self.settings.lanes[0].name)
        {
            let text = Reply {
                v: VERSION,
                host: self.settings.host.clone(),
                answer,
            };
            lane.publish(reply.to_string(), text.encode()).await;
        }
    }

    /// As an event, on the first lane.
    pub(super) async fn tell(&mut self, told: &Told) {
        let subject = Told::subject(&self.settings.prefix, &told.region, &told.host);
        let sent = match self.lanes.get(&self.settings.lanes[0].name) {
            Some(lane) => lane.publish(subject, told.encode()).await,
            None => false,
        };
        if !sent {
            debug!("an event could not be sent");
            self.core.untold();
        }
    }

    /// To the log and to disk.
    pub(super) fn record(&mut self, record: Record) {
        self.news = true;
        log(&record);
        if let Some(keeper) = &self.keeper
            && !keeper.append(record)
        {
            self.core.record_lost();
        }
    }
}

/// All fields for machines; for people those that the sentence does not say already.
fn log(record: &Record) {
    let all = logging::format() == LogFormat::Json;
    let text = record.text.as_str();
    let field = |value: &'_ str| (!value.is_empty() && (all || !text.contains(value))).then(|| value.to_owned());
    let (event, subject) = (record.event.as_str(), record.subject.as_str());
    let who = record.who.as_ref().filter(|w| all || !w.key.is_empty());
    let (name, key) = (who.map(|w| w.name.as_str()), who.map(|w| w.key.as_str()));
    let (why, evidence, outcome) = (
        field(&record.why),
        field(&record.evidence).filter(|_| all || event == "refused"),
        field(&record.outcome).filter(|_| all),
    );
    let (why, evidence, outcome) = (why.as_deref(), evidence.as_deref(), outcome.as_deref());
    let (act, rollout) = (field(&record.act), field(&record.rollout));
    let (act, rollout) = (act.as_deref(), rollout.as_deref());
    let kind = who.filter(|_| all).map(|w| w.kind.name());
    macro_rules! say {
        ($level:ident) => {
            $level!(
                event,
                subject,
                kind,
                who = name,
                key,
                why,
                evidence,
                outcome,
                act,
                rollout,
                "{text}"
            )
        };
    }
    match event {
        "fault" | "would" | "refused" | "act" | "outcome" | "command" => say!(warn),
        "gave_up" => say!(error),
        _ => say!(info),
    }
}
