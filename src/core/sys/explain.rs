//! What explains traffic above the quiet rate: starts, announced restarts, growth, the heal of a partition.
//!
//! Each explanation is a *credit* of one restart's volume, for a time; what exceeds all credits is a brownout. Decided
//! from what every agent sees by itself: beacons (announcements, changed server ids, new hosts, hosts heard again) and
//! the peers of its own server. One restart that nobody announced explains itself; several at about the same time
//! explain nothing: that is how storms begin, and restarts that were over before do not explain that traffic either.
//! Blind spots: growth beyond a doubling within the life of a credit is
//! taken at its word, and a host that leaves for good and one that joins within ten minutes look like a restart.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::ids::Mono;

/// An announced restart may take so long until its server is back.
const ANNOUNCED: Duration = Duration::from_secs(180);
/// Beyond a restart's own duration, a credit lives as long as its traffic is in the detector's window.
const MARGIN: Duration = Duration::from_secs(12);
/// Unannounced restarts closer together than this are one event.
const TOGETHER: Duration = Duration::from_secs(10);
/// A peer that left is expected back for so long.
const AWAY: Duration = Duration::from_secs(600);
/// After its own start, a server is flooded by all others and its agent judges no volume.
const OWN_START: Duration = Duration::from_secs(30);
/// Entries kept of each kind.
const MOST: usize = 4096;

/// Why there is more traffic than in quiet times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A restart that was announced: by its agent, or by a lame duck.
    Announced,
    /// One restart that nobody announced.
    Unannounced,
    /// A server that was not there before.
    Growth,
    /// A server that was cut off and is back.
    Heal,
}

#[derive(Debug, Clone, PartialEq)]
struct Credit {
    why: Why,
    at: Mono,
    until: Mono,
}

impl Credit {
    /// Announced and not yet back: nothing else lives so long.
    fn pending(&self) -> bool {
        self.until.since(self.at) >= ANNOUNCED
    }
}

/// All explanations in force.
#[derive(Debug, Clone, Default)]
pub struct Explanations {
    lasts: Duration,
    /// By host, or by server id while its host is not known.
    credits: BTreeMap<String, Credit>,
    /// Peers that went and are not back: server id, when, announced.
    left: Vec<(String, Mono, bool)>,
    own_start: Option<Mono>,
}

impl Explanations {
    /// How long one restart's traffic lasts, by the model.
    pub fn set_lasts(&mut self, lasts: Duration) {
        self.lasts = lasts;
    }

    fn life(&self) -> Duration {
        self.lasts.clamp(Duration::from_secs(5), Duration::from_secs(60)) + MARGIN
    }

    fn credit(&mut self, who: &str, why: Why, now: Mono, life: Duration) {
        if self.credits.len() < MOST || self.credits.contains_key(who) {
            let until = now.plus(life);
            self.credits.insert(who.to_owned(), Credit { why, at: now, until });
        }
    }

    /// The local server has started.
    pub fn started(&mut self, now: Mono) {
        self.own_start = Some(now);
        // What is seen from here on is seen by a new process: peers that come are no restarts.
        self.left.clear();
    }

    /// A host says that its server is being restarted or is a lame duck.
    pub fn announced(&mut self, host: &str, now: Mono) {
        if self
            .credits
            .get(host)
            .is_none_or(|c| c.why != Why::Announced || now >= c.until)
        {
            self.credit(host, Why::Announced, now, ANNOUNCED);
        }
    }

    /// A peer's routes are gone.
    pub fn left(&mut self, id: &str, host: Option<&str>, now: Mono) {
        let announced = host.is_some_and(|h| self.is_announced(h, now));
        if let Some(host) = host.filter(|h| self.credits.get(*h).is_some_and(|c| c.why == Why::Heal)) {
            self.credits.remove(host);
        }
        if self.left.len() < MOST {
            self.left.push((id.to_owned(), now, announced));
        }
    }

    /// Routes to a peer came. `host` = the member that has this server id by its beacons.
    pub fn came(&mut self, id: &str, host: Option<&str>, now: Mono) {
        self.left.retain(|(_, at, _)| now.since(*at) < AWAY);
        let life = self.life();
        let known = self.left.iter().position(|(left, ..)| left == id);
        if let Some(host) = host.filter(|_| known.is_some()) {
            self.left.remove(known.unwrap_or_default());
            if !self.is_announced(host, now) {
                self.credit(host, Why::Heal, now, life);
            }
            return;
        }
        if let Some(i) = known {
            self.left.remove(i);
            self.credit(id, Why::Heal, now, life);
            return;
        }
        if self.left.is_empty() {
            self.credit(id, Why::Growth, now, life);
            return;
        }
        // Somebody left and somebody new came: a restart. The announced go first.
        let i = self.left.iter().position(|(.., announced)| *announced).unwrap_or(0);
        let (.., announced) = self.left.remove(i);
        if !announced {
            self.credit(id, Why::Unannounced, now, life);
        }
    }

    /// A known host's beacon shows another server id.
    pub fn changed(&mut self, host: &str, id: &str, now: Mono) {
        let life = self.life();
        if self.credits.get(host).is_some_and(|c| c.why == Why::Heal) {
            self.credits.remove(host);
        }
        if self.is_announced(host, now) {
            self.credits.remove(id);
            self.credit(host, Why::Announced, now, life);
        } else if !self.credits.contains_key(id) {
            self.credit(id, Why::Unannounced, now, life);
        }
    }

    /// A host was heard for the first time.
    pub fn joined(&mut self, host: &str, id: &str, now: Mono) {
        self.credits.remove(id);
        let life = self.life();
        self.credit(host, Why::Growth, now, life);
    }

    /// A host that was silent is heard again, by its own word with the same server. An agent that has just come back
    /// may not have read its new server yet: where the routes to `id` went and are not back, its word is not taken.
    pub fn healed(&mut self, host: &str, id: &str, now: Mono) {
        let gone = self.left.iter().any(|(left, ..)| left == id);
        if !gone && !self.is_announced(host, now) {
            let life = self.life();
            self.credit(host, Why::Heal, now, life);
        }
    }

    fn is_announced(&self, host: &str, now: Mono) -> bool {
        self.credits
            .get(host)
            .is_some_and(|c| c.why == Why::Announced && now < c.until)
    }

    /// Drops what is over.
    pub fn forget(&mut self, now: Mono) {
        self.credits.retain(|_, c| now < c.until);
        self.left.retain(|(_, at, _)| now.since(*at) < AWAY);
    }

    /// The local server has just started: volumes say nothing.
    #[must_use]
    pub fn starting(&self, now: Mono) -> bool {
        self.own_start.is_some_and(|t| now.since(t) < OWN_START)
    }

    /// Several restarts at about the same time, none of them announced: when the latest of them began.
    fn crowd(&self, now: Mono) -> Option<Mono> {
        let recent = |at: Mono| now.since(at) < self.life() + TOGETHER;
        let came = self
            .credits
            .values()
            .filter(|c| c.why == Why::Unannounced)
            .map(|c| c.at);
        // A peer that left may be a part of a partition; only together with one that came anew it is a restart.
        let mut times: Vec<Mono> = came.filter(|t| recent(*t)).collect();
        if times.is_empty() {
            return None;
        }
        let left = self
            .left
            .iter()
            .filter(|(.., announced)| !announced)
            .map(|(_, at, _)| *at);
        times.extend(left.filter(|t| recent(*t)));
        times.sort();
        let pair = times.windows(2).rev().find(|w| w[1].since(w[0]) < TOGETHER);
        pair.map(|w| w[0])
    }

    /// Does this explain something now? A restart that was over when a crowd began does not.
    fn counts(credit: &Credit, crowd: Option<Mono>, now: Mono) -> bool {
        now < credit.until
            && match credit.why {
                Why::Announced => crowd.is_none_or(|t| credit.at >= t || credit.pending()),
                Why::Unannounced => crowd.is_none(),
                Why::Growth | Why::Heal => true,
            }
    }

    /// Credits in force, in volumes of one restart.
    #[must_use]
    pub fn restarts(&self, now: Mono) -> u32 {
        let crowd = self.crowd(now);
        let live = |why: Why| {
            let of = self.credits.values().filter(|c| c.why == why);
            of.filter(|c| Self::counts(c, crowd, now)).count()
        };
        let sum = live(Why::Unannounced).min(1) + live(Why::Announced) + live(Why::Growth) + live(Why::Heal);
        u32::try_from(sum).unwrap_or(u32::MAX)
    }

    /// What explains the traffic now, as sentences.
    #[must_use]
    pub fn sentences(&self, now: Mono) -> Vec<String> {
        let mut said = Vec::new();
        if self.starting(now) {
            said.push("the local server has just started".to_owned());
        }
        let crowd = self.crowd(now);
        for (why, what) in [
            (Why::Announced, "announced restart of"),
            (Why::Unannounced, "restart of"),
            (Why::Growth, "new in the fleet:"),
            (Why::Heal, "back after being cut off:"),
        ] {
            let who: Vec<&str> = self
                .credits
                .iter()
                .filter(|(_, c)| c.why == why && Self::counts(c, crowd, now))
                .map(|(who, _)| who.as_str())
                .collect();
            if who.is_empty() {
                continue;
            }
            let more = who.len().saturating_sub(3);
            let mut text = format!("{what} {}", who[..who.len() - more].join(", "));
            if more > 0 {
                text = format!("{text} and {more} more");
            }
            said.push(text);
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Mono {
        Mono(Duration::from_secs(s))
    }

    #[test]
    fn one_restart_explains_itself_and_three_at_once_explain_nothing() {
        let mut e = Explanations::default();
        e.left("A", Some("a"), at(0));
        e.came("A2", None, at(2));
        assert_eq!(e.restarts(at(3)), 1);
        e.changed("a", "A2", at(4));
        assert_eq!(e.restarts(at(4)), 1, "the beacon tells of the same restart");
        e.forget(at(100));
        for id in ["B", "C", "D"] {
            e.left(id, None, at(100));
        }
        e.came("B2", None, at(102));
        assert_eq!(e.restarts(at(102)), 0, "two more are on their way");
        e.came("C2", None, at(102));
        e.came("D2", None, at(104));
        assert_eq!(e.restarts(at(105)), 0);
        assert!(e.sentences(at(105)).is_empty());
    }

    #[test]
    fn announced_restarts_are_explained_however_many() {
        let mut e = Explanations::default();
        for h in ["a", "b", "c"] {
            e.announced(h, at(0));
            e.left(&h.to_uppercase(), Some(h), at(5));
        }
        for h in ["a", "b", "c"] {
            e.came(&format!("{h}2"), None, at(7));
            e.changed(h, &format!("{h}2"), at(8));
        }
        assert_eq!(e.restarts(at(9)), 3);
        e.forget(at(60));
        assert_eq!(e.restarts(at(60)), 0, "a credit ends");
    }

    #[test]
    fn a_crowd_is_not_explained_by_an_announced_restart_that_was_over_before() {
        let mut e = Explanations::default();
        e.set_lasts(Duration::from_secs(60));
        let restart = |e: &mut Explanations, host: &str, id: &str, t: u64| {
            e.left(&host.to_uppercase(), Some(host), at(t));
            e.came(id, None, at(t + 2));
            e.changed(host, id, at(t + 3));
        };
        e.announced("a", at(0));
        restart(&mut e, "a", "A2", 1);
        e.announced("p", at(18));
        assert_eq!(e.restarts(at(19)), 2);
        restart(&mut e, "b", "B2", 20);
        restart(&mut e, "c", "C2", 21);
        assert_eq!(e.restarts(at(25)), 1, "p, which is still to come");
        let said = e.sentences(at(25));
        assert!(said.len() == 1 && said[0].ends_with(" p"), "{said:?}");
        e.announced("d", at(26));
        restart(&mut e, "d", "D2", 27);
        restart(&mut e, "p", "P2", 28);
        assert_eq!(e.restarts(at(32)), 2, "what is announced is explained, now as ever");
    }

    #[test]
    fn growth_and_the_heal_of_a_partition_are_explained() {
        let mut e = Explanations::default();
        for i in 0..10 {
            e.came(&format!("N{i}"), None, at(1));
            e.joined(&format!("n{i}"), &format!("N{i}"), at(2));
        }
        assert_eq!(e.restarts(at(3)), 10);
        e.forget(at(100));
        for i in 0..5 {
            e.left(&format!("P{i}"), Some(&format!("p{i}")), at(100));
        }
        assert_eq!(e.restarts(at(101)), 0);
        for i in 0..5 {
            e.came(&format!("P{i}"), Some(&format!("p{i}")), at(130));
            e.healed(&format!("p{i}"), &format!("P{i}"), at(131));
        }
        assert_eq!(e.restarts(at(131)), 5);
        assert!(
            e.sentences(at(131))[0].contains("p0, p1, p2 and 2 more"),
            "{:?}",
            e.sentences(at(131))
        );
    }

    #[test]
    fn an_agent_that_has_not_read_its_new_server_yet_heals_nothing() {
        let mut e = Explanations::default();
        for id in ["A", "B", "C"] {
            e.left(id, None, at(0));
        }
        e.healed("a", "A", at(2));
        assert_eq!(e.restarts(at(2)), 0, "its routes are gone: this is another server");
        // In another cluster, where no routes tell.
        e.healed("x", "X", at(2));
        assert_eq!(e.restarts(at(2)), 1);
        for (host, id) in [("a", "A2"), ("x", "X2")] {
            e.changed(host, id, at(3));
        }
        assert_eq!(e.restarts(at(3)), 0, "several at once, and nothing was healed");
    }

    #[test]
    fn restarts_that_come_one_after_the_other_are_no_crowd() {
        let mut e = Explanations::default();
        for (i, t) in [(0, 0), (1, 15), (2, 30)] {
            e.left(&format!("S{i}"), None, at(t));
            e.came(&format!("T{i}"), None, at(t + 3));
            assert_eq!(e.restarts(at(t + 4)), 1, "{i}");
        }
    }

    #[test]
    fn after_its_own_start_a_server_knows_only_new_peers() {
        let mut e = Explanations::default();
        e.left("A", None, at(0));
        e.started(at(10));
        assert!(e.starting(at(39)) && !e.starting(at(41)));
        e.came("B", None, at(11));
        assert_eq!(e.restarts(at(11)), 1, "growth, not a restart");
    }
}
