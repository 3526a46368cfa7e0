//! From cumulative counters to flows: what came between two readings, per source and per peer.
//!
//! A counter belongs to an identity: the account's and a route's to the `server_id` (and `rid`) that counts, the counted
//! ones to the subscription. Another identity, a lower count, a time that did not advance or a growth that no network
//! card can carry are *odd readings*: each is counted by its reason, becomes the base of the next, and never makes a
//! rate. Blind spot: what a server sends between its start and the first reading after it is not measured.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::ids::Mono;
use crate::core::server::Route;
use crate::core::sys::reading::{Accstatz, Tally};
use crate::core::sys::window::{Amount, Flow, Window};

/// No server moves more messages in a second.
const MOST_MSGS: f64 = 50e6;
/// No host moves more bytes in a second: two cards of 400 Gb/s.
const MOST_BYTES: f64 = 100e9;
/// A source without a good reading for so long is not in use.
pub const STALE: Duration = Duration::from_secs(10);
/// Rates are means over this time.
pub const SPAN: Duration = Duration::from_secs(10);
/// Peers that are kept; a forged list must not fill the memory.
const MAX_PEERS: usize = 4096;
/// Readings closer together than this say nothing about a rate.
const LEAST: Duration = Duration::from_millis(20);

/// What is measured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// `/accstatz` of the system account, both directions (2.10 and later).
    Account,
    /// `/routez` entries of the system account (2.10 and later).
    Routes,
    /// Counting what the local server receives (before 2.10, or where JetStream shares the account).
    Counted,
    /// `/accstatz`, what was sent (before 2.10 the only direction that it books right).
    AccountSent,
}

impl Source {
    /// All, best first.
    pub const ALL: [Source; 4] = [Self::Account, Self::Routes, Self::Counted, Self::AccountSent];

    /// The label value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Routes => "routes",
            Self::Counted => "counted",
            Self::AccountSent => "account_sent",
        }
    }

    /// It tells what comes in.
    #[must_use]
    pub fn receives(self) -> bool {
        self != Self::AccountSent
    }
}

/// Why a reading was not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Odd {
    /// The counter started anew, or somebody else counts.
    Reset,
    /// More than can be.
    Garbage,
    /// Time did not advance.
    Backwards,
}

impl Odd {
    /// All.
    pub const ALL: [Odd; 3] = [Self::Reset, Self::Garbage, Self::Backwards];

    /// A short constant.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Garbage => "garbage",
            Self::Backwards => "backwards",
        }
    }
}

/// One cumulative counter of one identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Meter {
    at: Mono,
    last: Tally,
}

impl Meter {
    /// What came since the last reading. The new one is the base of the next, believed or not; only one that comes too
    /// soon is left for later.
    fn read(&mut self, tally: Tally, now: Mono) -> Result<Option<Flow>, Odd> {
        if now < self.at {
            return Err(Odd::Backwards);
        }
        let over = now.since(self.at);
        if over < LEAST {
            return Ok(None);
        }
        let last = std::mem::replace(self, Self { at: now, last: tally }).last;
        let (Some(msgs), Some(bytes)) = (tally.msgs.checked_sub(last.msgs), tally.bytes.checked_sub(last.bytes)) else {
            return Err(Odd::Reset);
        };
        plausible(msgs, bytes, over).map(|amount| Some(Flow { at: now, over, amount }))
    }
}

#[allow(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
fn plausible(msgs: u64, bytes: u64, over: Duration) -> Result<Amount, Odd> {
    let amount = Amount {
        msgs: msgs as f64,
        bytes: bytes as f64,
    };
    let secs = over.as_secs_f64().max(LEAST.as_secs_f64());
    if amount.msgs / secs > MOST_MSGS || amount.bytes / secs > MOST_BYTES {
        return Err(Odd::Garbage);
    }
    Ok(amount)
}

/// What one reading brought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Which source.
    pub source: Source,
    /// Into the server.
    pub received: Option<Flow>,
    /// Out of the server.
    pub sent: Option<Flow>,
}

/// In and out by `rid`.
type ByRoute = BTreeMap<u64, (Tally, Tally)>;

/// All sources of one server.
#[derive(Debug, Clone)]
pub struct Rates {
    account: Option<(String, Meter, Meter)>,
    routes: Option<(String, Mono, ByRoute)>,
    counted: Option<(u64, Mono, BTreeMap<String, Meter>)>,
    good: BTreeMap<Source, Mono>,
    pooled: bool,
    shared: bool,
    in_use: Option<Source>,
    received: Window,
    sent: Window,
    peers: BTreeMap<String, Window>,
    odd: BTreeMap<Odd, u64>,
    received_total: Amount,
    sent_total: Amount,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            account: None,
            routes: None,
            counted: None,
            good: BTreeMap::new(),
            pooled: false,
            shared: false,
            in_use: None,
            received: Window::new(SPAN),
            sent: Window::new(SPAN),
            peers: BTreeMap::new(),
            odd: BTreeMap::new(),
            received_total: Amount::default(),
            sent_total: Amount::default(),
        }
    }
}

impl Rates {
    /// Whether JetStream runs on the local server: its replication (`$NRG.>`) goes through the system account, so the
    /// server's counters tell of it and of events as one. What is counted by subject is then preferred.
    pub fn set_shared(&mut self, jetstream: bool) {
        self.shared = jetstream;
    }

    /// What is measured is JetStream's replication too, so that nothing can be expected of it.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared && self.in_use != Some(Source::Counted)
    }

    /// `/accstatz`. `pooled`: the server is of 2.10 or later, which books both directions right.
    pub fn on_account(&mut self, accstatz: &Accstatz, pooled: bool, now: Mono) -> Option<Step> {
        self.pooled = pooled;
        let system = accstatz.system.as_ref()?;
        let fresh = |tally| Meter { at: now, last: tally };
        let known = self.account.as_mut().filter(|(id, ..)| *id == accstatz.server_id);
        let Some((_, received, sent)) = known else {
            let old = self
                .account
                .replace((accstatz.server_id.clone(), fresh(system.received), fresh(system.sent)));
            if old.is_some() {
                self.odd(Odd::Reset);
            }
            return None;
        };
        let (received, sent) = (received.read(system.received, now), sent.read(system.sent, now));
        let (received, sent) = match (received, sent) {
            (Ok(received), Ok(sent)) => (received?, sent?),
            (Err(odd), _) | (_, Err(odd)) => {
                self.odd(odd);
                return None;
            }
        };
        let source = if pooled { Source::Account } else { Source::AccountSent };
        self.take(source, pooled.then_some(received), Some(sent), now)
    }

    /// `/routez`: the entries of the system account. An entry that is new since the last read has counted all it has
    /// since then.
    pub fn on_routes(&mut self, server_id: &str, system: &str, routes: &[Route], now: Mono) -> Option<Step> {
        let of_system = routes
            .iter()
            .filter(|r| !system.is_empty() && r.account.as_deref() == Some(system));
        let tallies: BTreeMap<u64, (&str, Tally, Tally)> = of_system
            .map(|r| {
                let tally = |msgs, bytes| Tally { msgs, bytes };
                (
                    r.rid,
                    (
                        &*r.remote_id,
                        tally(r.in_msgs, r.in_bytes),
                        tally(r.out_msgs, r.out_bytes),
                    ),
                )
            })
            .collect();
        if tallies.is_empty() {
            self.routes = None;
            return None;
        }
        let base: ByRoute = tallies.iter().map(|(rid, (_, i, o))| (*rid, (*i, *o))).collect();
        let (id, at, last) = self.routes.replace((server_id.to_owned(), now, base))?;
        if id != server_id {
            self.odd(Odd::Reset);
            return None;
        }
        if now < at {
            self.odd(Odd::Backwards);
            return None;
        }
        let over = now.since(at);
        if over < LEAST {
            self.routes = Some((id, at, last));
            return None;
        }
        let (mut received, mut sent) = (Amount::default(), Amount::default());
        for (rid, (peer, i, o)) in tallies {
            let (i0, o0) = last.get(&rid).copied().unwrap_or_default();
            match (growth(i0, i, over), growth(o0, o, over)) {
                (Ok(i), Ok(o)) => {
                    received = received.plus(i);
                    sent = sent.plus(o);
                    self.of_peer(
                        peer,
                        Flow {
                            at: now,
                            over,
                            amount: i,
                        },
                    );
                }
                (Err(odd), _) | (_, Err(odd)) => self.odd(odd),
            }
        }
        let flow = |amount| Some(Flow { at: now, over, amount });
        self.take(Source::Routes, flow(received), flow(sent), now)
    }

    /// Messages that the local server received, by the sender's server id, since a subscription began.
    pub fn on_counted(&mut self, subscription: u64, peers: &BTreeMap<String, Tally>, now: Mono) -> Option<Step> {
        let mut meters = match self.counted.take() {
            Some((n, at, meters)) if n == subscription && now >= at => {
                if now.since(at) < LEAST {
                    self.counted = Some((n, at, meters));
                    return None;
                }
                (at, meters)
            }
            old => {
                if old.is_some() {
                    self.odd(Odd::Reset);
                }
                let meter = |tally: &Tally| Meter { at: now, last: *tally };
                let base = peers
                    .iter()
                    .take(MAX_PEERS)
                    .map(|(p, t)| (p.clone(), meter(t)))
                    .collect();
                self.counted = Some((subscription, now, base));
                return None;
            }
        };
        let over = now.since(meters.0);
        let mut received = Amount::default();
        for (peer, tally) in peers.iter().take(MAX_PEERS) {
            // A peer that was not there has counted all it has since the last report.
            let begun = Meter {
                at: meters.0,
                last: Tally::default(),
            };
            match meters.1.entry(peer.clone()).or_insert(begun).read(*tally, now) {
                Ok(Some(flow)) => {
                    received = received.plus(flow.amount);
                    self.of_peer(peer, flow);
                }
                Ok(None) => {}
                Err(odd) => self.odd(odd),
            }
        }
        meters.1.retain(|peer, _| peers.contains_key(peer));
        self.counted = Some((subscription, now, meters.1));
        let amount = received;
        self.take(Source::Counted, Some(Flow { at: now, over, amount }), None, now)
    }

    fn odd(&mut self, odd: Odd) {
        *self.odd.entry(odd).or_default() += 1;
    }

    fn of_peer(&mut self, peer: &str, flow: Flow) {
        if flow.amount.msgs <= 0.0 {
            return;
        }
        if let Some(w) = self.peers.get_mut(peer) {
            w.push(flow);
        } else if self.peers.len() < MAX_PEERS {
            let mut w = Window::new(SPAN);
            w.push(flow);
            self.peers.insert(peer.to_owned(), w);
        }
    }

    /// Notes a good reading; the step is handed on if its source is the one in use.
    fn take(&mut self, source: Source, received: Option<Flow>, sent: Option<Flow>, now: Mono) -> Option<Step> {
        self.good.insert(source, now);
        let best = self.choose(now);
        if best != self.in_use {
            self.in_use = best;
            self.received.clear();
            self.sent.clear();
        }
        if source == Source::AccountSent && best == Some(Source::Counted) {
            // Each tells one direction; they do not overlap.
            if !self.shared {
                self.note_sent(sent);
            }
            return None;
        }
        if best != Some(source) {
            return None;
        }
        if let Some(flow) = received {
            self.received.push(flow);
            self.received_total = self.received_total.plus(flow.amount);
        }
        self.note_sent(sent);
        Some(Step { source, received, sent })
    }

    fn note_sent(&mut self, sent: Option<Flow>) {
        if let Some(flow) = sent {
            self.sent.push(flow);
            self.sent_total = self.sent_total.plus(flow.amount);
        }
    }

    fn choose(&self, now: Mono) -> Option<Source> {
        let fresh = |s: &Source| self.good.get(s).is_some_and(|t| now.since(*t) < STALE);
        let fits = |s: &Source| match s {
            Source::Account => self.pooled,
            Source::Routes => true,
            Source::Counted => !self.pooled || self.shared,
            Source::AccountSent => !self.pooled,
        };
        if self.shared && fresh(&Source::Counted) {
            return Some(Source::Counted);
        }
        Source::ALL.into_iter().find(|s| fresh(s) && fits(s))
    }

    /// The source in use, if it was read lately.
    #[must_use]
    pub fn source(&self, now: Mono) -> Option<Source> {
        self.in_use
            .filter(|s| self.good.get(s).is_some_and(|t| now.since(*t) < STALE))
    }

    /// Age of the last good reading of the source in use, fresh or not.
    #[must_use]
    pub fn age(&self, now: Mono) -> Option<Duration> {
        let at = self.good.get(&self.in_use?)?;
        Some(now.since(*at))
    }

    /// Mean rate into the server.
    #[must_use]
    pub fn received(&self, now: Mono) -> Option<Amount> {
        self.received.rate(now)
    }

    /// Mean rate out of the server.
    #[must_use]
    pub fn sent(&self, now: Mono) -> Option<Amount> {
        self.sent.rate(now)
    }

    /// What was counted into and out of the server since this process started.
    #[must_use]
    pub fn totals(&self) -> (Amount, Amount) {
        (self.received_total, self.sent_total)
    }

    /// Odd readings by reason.
    #[must_use]
    pub fn odd_readings(&self) -> &BTreeMap<Odd, u64> {
        &self.odd
    }

    /// Server ids of the peers that sent most bytes, with their rates.
    #[must_use]
    pub fn top(&self, most: usize, now: Mono) -> Vec<(&str, Amount)> {
        let mut rates: Vec<(&str, Amount)> = self
            .peers
            .iter()
            .map(|(peer, w)| (peer.as_str(), w.volume(now).0.times(1.0 / SPAN.as_secs_f64())))
            .filter(|(_, a)| a.msgs > 0.0)
            .collect();
        rates.sort_by(|a, b| b.1.bytes.total_cmp(&a.1.bytes));
        rates.truncate(most);
        rates
    }

    /// Drops peers that sent nothing lately.
    pub fn forget(&mut self, now: Mono) {
        self.peers
            .retain(|_, w| w.last().is_some_and(|t| now.since(t) < SPAN * 12));
    }
}

fn growth(from: Tally, to: Tally, over: Duration) -> Result<Amount, Odd> {
    match (to.msgs.checked_sub(from.msgs), to.bytes.checked_sub(from.bytes)) {
        (Some(msgs), Some(bytes)) => plausible(msgs, bytes, over),
        _ => Err(Odd::Reset),
    }
}

#[cfg(test)]
#[path = "rates_tests.rs"]
mod tests;
