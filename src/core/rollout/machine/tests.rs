use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::core::control::status::tests::status;
use crate::core::control::{LastCommand, Stage};
use crate::core::rollout::plan::{Found, Selection, plan};
use crate::core::view::Verdict;

/// What a host does when it is told to restart.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Nature {
    Good,
    Refuses,
    SaysFailed,
    NeverBack,
    LosesAPeer,
    StartsAgain,
    NeverHeardAgain,
    AnswerLostButDone,
    AnswerLostNotDone,
    Forgets,
    UnwellBefore,
}

/// A fleet that answers at once, and restarts in five seconds.
struct World {
    natures: BTreeMap<HostName, Nature>,
    restarted: BTreeMap<HostName, Mono>,
    /// Every agent sees a brownout between these.
    storm: Option<(Duration, Duration)>,
    now: Mono,
    log: Vec<(Mono, Action)>,
    machine: Machine,
}

const BOOT: Duration = Duration::from_secs(5);

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

impl World {
    fn new(natures: &[Nature], limits: Limits) -> Self {
        let mut inventory = Inventory::new();
        let mut map = BTreeMap::new();
        for (i, nature) in natures.iter().enumerate() {
            let name = format!("h{i:02}");
            map.insert(host(&name), *nature);
            let found = Found {
                region: Region::new(["fra", "iad"][i % 2]).unwrap(),
                cluster: String::new(),
                version: String::new(),
                status: Some(status(&name)),
            };
            inventory.insert(host(&name), found);
        }
        let all = Selection {
            all: true,
            ..Selection::default()
        };
        let p = plan(&inventory, &all, &"all".parse().unwrap()).unwrap();
        let machine = Machine::new("r1", &p, &inventory, limits, Mono::default());
        Self {
            natures: map,
            restarted: BTreeMap::new(),
            storm: None,
            now: Mono::default(),
            log: vec![],
            machine,
        }
    }

    fn status(&self, of: &HostName) -> Result<Box<HostStatus>, String> {
        let nature = self.natures[of];
        let mut s = status(of.as_str());
        let storm = self.storm.filter(|(from, to)| (*from..*to).contains(&self.now.0));
        s.brownout = storm.map(|_| "a brownout of the host".to_owned());
        let Some(since) = self.restarted.get(of).map(|at| self.now.since(*at)) else {
            s.up = nature != Nature::UnwellBefore;
            return Ok(Box::new(s));
        };
        let last = |state| {
            Some(LastCommand {
                rollout: "r1".to_owned(),
                state,
                detail: "unit not found".to_owned(),
            })
        };
        if nature == Nature::SaysFailed {
            s.last_command = last(Stage::Failed);
            return Ok(Box::new(s));
        }
        if since < BOOT || nature == Nature::NeverBack {
            return Err("no responders".to_owned());
        }
        s.server_id = format!("ID-{of}-2");
        s.last_command = last(Stage::Done);
        if nature == Nature::LosesAPeer {
            s.peers = Some(1);
        }
        if nature == Nature::StartsAgain && since > BOOT + secs(3) {
            s.server_id = format!("ID-{of}-3");
        }
        Ok(Box::new(s))
    }

    fn answer(&mut self, action: &Action) -> Option<Event> {
        Some(match action {
            Action::AskStatus { round, host } => Event::Status {
                round: *round,
                host: host.clone(),
                answer: self.status(host),
            },
            Action::AskHears { round, by, source } => {
                let deaf = self.natures[source] == Nature::NeverHeardAgain && self.restarted.contains_key(source);
                Event::Hears {
                    round: *round,
                    by: by.clone(),
                    answer: Ok(Hearing {
                        source: source.clone(),
                        verdict: Some(if deaf { Verdict::Stalled } else { Verdict::Ok }),
                        age_ms: Some(100),
                        lane: "main".to_owned(),
                    }),
                }
            }
            Action::Restart { host } => {
                let nature = self.natures[host];
                let accepted = Ok(Answer::Accepted {
                    rollout: "r1".to_owned(),
                });
                let lost = || Err("timed out".to_owned());
                if !matches!(nature, Nature::Refuses | Nature::AnswerLostNotDone | Nature::Forgets) {
                    self.restarted.insert(host.clone(), self.now);
                }
                let answer = match nature {
                    Nature::Refuses => Ok(Answer::Refused {
                        gate: "paused".to_owned(),
                        text: "paused by ops".to_owned(),
                    }),
                    Nature::AnswerLostButDone | Nature::AnswerLostNotDone => lost(),
                    _ => accepted,
                };
                Event::Answered {
                    host: host.clone(),
                    answer,
                }
            }
            Action::Report(_) | Action::Finish(_) => return None,
        })
    }

    fn feed(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.machine.handle(event, self.now) {
                events.extend(self.answer(&action));
                self.log.push((self.now, action));
            }
            assert!(self.log.len() < 100_000, "no end");
        }
    }

    /// Runs until the end, or until `stop` says so after a step.
    fn run_until(&mut self, stop: impl Fn(&World) -> bool) {
        self.feed(Event::Tick);
        let mut steps = 0;
        while let Some(at) = self.machine.deadline() {
            steps += 1;
            assert!(steps < 10_000, "the machine wants to be woken and does nothing");
            if stop(self) {
                return;
            }
            assert!(at.0 < secs(100_000), "no end");
            self.now = at.max(self.now);
            self.feed(Event::Tick);
        }
    }

    fn run(&mut self) -> Outcome {
        self.run_until(|_| false);
        self.outcome().expect("a rollout ends with an outcome")
    }

    fn outcome(&self) -> Option<Outcome> {
        self.log.iter().find_map(|(_, a)| match a {
            Action::Finish(o) => Some(o.clone()),
            _ => None,
        })
    }

    fn halt(&mut self) -> Halt {
        match self.run() {
            Outcome::Halted(halt) => *halt,
            Outcome::Done(hosts) => panic!("all done: {hosts:?}"),
        }
    }

    fn commands(&self) -> Vec<(Mono, HostName)> {
        self.log
            .iter()
            .filter_map(|(at, a)| match a {
                Action::Restart { host } => Some((*at, host.clone())),
                _ => None,
            })
            .collect()
    }

    fn proofs(&self) -> Vec<(Mono, HostName)> {
        self.log
            .iter()
            .filter_map(|(at, a)| match a {
                Action::Report(Progress::Proved { host, .. }) => Some((*at, host.clone())),
                _ => None,
            })
            .collect()
    }
}

fn limits() -> Limits {
    Limits {
        jitter: 0,
        ..Limits::default()
    }
}

#[test]
fn a_good_fleet_is_restarted_one_by_one_and_the_last_host_has_no_stagger() {
    let mut w = World::new(&[Nature::Good; 3], limits());
    assert_eq!(w.run(), Outcome::Done(vec![host("h00"), host("h01"), host("h02")]));
    // 5 s to boot, one read gap, then three reads two seconds apart: 11 s a host, and two staggers.
    assert_eq!(w.now.0, secs(3 * 11 + 2 * 30));
}

#[test]
fn the_stagger_runs_from_proof_to_command() {
    let mut w = World::new(&[Nature::Good; 2], limits());
    w.run();
    assert_eq!(w.commands()[1].0.since(w.proofs()[0].0), secs(30));
}

#[test]
fn a_host_that_does_not_come_back_halts_and_the_rest_is_untouched() {
    let mut w = World::new(&[Nature::Good, Nature::NeverBack, Nature::Good], limits());
    let halt = w.halt();
    assert_eq!(halt.reason, Reason::NoNewServer { after: secs(120) });
    assert_eq!((halt.step, halt.touched), (Step::Restarting, true));
    assert_eq!(halt.done, [host("h00")]);
    assert_eq!(halt.remaining, [host("h02")]);
    assert_eq!(w.commands().len(), 2);
}

#[test]
fn what_the_proof_lacks_is_said() {
    let mut w = World::new(&[Nature::LosesAPeer, Nature::Good], limits());
    let text = w.halt().reason.to_string();
    assert!(text.ends_with("lacking: peers 1 of 2"), "{text}");
    let mut w = World::new(&[Nature::NeverHeardAgain, Nature::Good, Nature::Good], limits());
    let text = w.halt().reason.to_string();
    assert!(text.ends_with("lacking: heard by 0 of 2"), "{text}");
}

#[test]
fn a_refusal_before_anything_was_done_is_a_refusal_and_later_a_halt() {
    let mut w = World::new(&[Nature::Refuses, Nature::Good], limits());
    let halt = w.halt();
    assert!(halt.refused_at_once() && !halt.touched);
    assert_eq!(halt.remaining.len(), 2);
    let mut w = World::new(&[Nature::Good, Nature::Refuses], limits());
    let halt = w.halt();
    assert!(!halt.refused_at_once() && !halt.touched);
    assert_eq!(halt.remaining, [host("h01")]);
}

#[test]
fn a_sick_fleet_is_not_touched() {
    let mut w = World::new(&[Nature::Good, Nature::Good, Nature::UnwellBefore], limits());
    let halt = w.halt();
    assert!(matches!(halt.reason, Reason::Gate(Gate::Down { .. })));
    assert!(halt.refused_at_once() && w.commands().is_empty());
    assert_eq!(w.now.0, secs(15), "the gate is given time to open");
}

#[test]
fn a_storm_is_waited_out_and_one_that_lasts_halts() {
    let mut w = World::new(&[Nature::Good; 3], limits());
    // The first host is proved after 11 s; the next would be commanded at 41 s.
    w.storm = Some((secs(20), secs(300)));
    assert!(matches!(w.run(), Outcome::Done(_)));
    assert!(
        w.commands()[1].0.0 >= secs(300) && w.commands()[1].0.0 <= secs(302),
        "{:?}",
        w.commands()
    );
    let held = |w: &World| {
        let held = |a: &&(Mono, Action)| {
            matches!(
                &a.1,
                Action::Report(Progress::Held {
                    gate: Gate::Brownout { .. },
                    ..
                })
            )
        };
        w.log.iter().filter(held).count()
    };
    assert_eq!(held(&w), 1, "told once");

    let mut w = World::new(&[Nature::Good; 3], limits());
    w.storm = Some((secs(20), secs(100_000)));
    let halt = w.halt();
    assert!(matches!(halt.reason, Reason::Gate(Gate::Brownout { .. })), "{halt:?}");
    assert_eq!((halt.touched, halt.done.len(), halt.remaining.len()), (false, 1, 2));
    assert_eq!(w.commands().len(), 1);
    assert!(w.now.0 >= secs(41 + 600) && w.now.0 <= secs(41 + 602), "{:?}", w.now);
}

#[test]
fn a_lost_answer_is_not_sent_again_but_looked_into() {
    let mut w = World::new(&[Nature::AnswerLostButDone, Nature::Good], limits());
    assert!(matches!(w.run(), Outcome::Done(_)));
    assert_eq!(w.commands().len(), 2);
    let mut w = World::new(&[Nature::AnswerLostNotDone, Nature::Good], limits());
    let halt = w.halt();
    assert!(matches!(halt.reason, Reason::NotTaken(_)));
    assert_eq!((w.commands().len(), halt.touched), (1, true));
}

#[test]
fn an_agent_that_took_the_command_and_forgot_it_halts_long_before_the_time_is_up() {
    let mut w = World::new(&[Nature::Forgets, Nature::Good], limits());
    let halt = w.halt();
    assert_eq!(halt.reason, Reason::Forgotten);
    assert_eq!((w.commands().len(), halt.touched), (1, true));
    assert!(w.now.0 < limits().answer * 3, "{:?}", w.now);
}

#[test]
fn an_agent_that_says_failed_and_a_server_that_crashes_again_halt_at_once() {
    let mut w = World::new(&[Nature::SaysFailed, Nature::Good], limits());
    assert_eq!(w.halt().reason, Reason::Failed("unit not found".to_owned()));
    let mut w = World::new(&[Nature::StartsAgain, Nature::Good], limits());
    assert_eq!(w.halt().reason, Reason::StartedAgain);
}

#[test]
fn an_interrupt_lets_the_host_in_work_be_proved() {
    let mut w = World::new(&[Nature::Good; 3], limits());
    w.run_until(|w| w.now.0 >= secs(3));
    w.feed(Event::Interrupt);
    let halt = w.halt();
    assert_eq!(halt.reason, Reason::Interrupted);
    assert_eq!(halt.done, [host("h00")]);
    assert_eq!(halt.remaining, [host("h01"), host("h02")]);
}

#[test]
fn an_interrupt_between_two_hosts_stops_at_once() {
    let mut w = World::new(&[Nature::Good; 3], limits());
    w.run_until(|w| !w.proofs().is_empty());
    w.feed(Event::Interrupt);
    assert_eq!(w.machine.deadline(), None);
    assert_eq!(w.halt().remaining.len(), 2);
}

#[test]
fn leaving_says_in_which_step() {
    let mut w = World::new(&[Nature::Good; 2], limits());
    w.run_until(|w| w.now.0 >= secs(3));
    w.feed(Event::Interrupt);
    w.feed(Event::Abandon);
    let halt = w.halt();
    assert_eq!(
        (halt.reason, halt.step, halt.touched),
        (Reason::Abandoned, Step::Restarting, true)
    );
}

#[test]
fn a_silent_host_that_stops_its_beacons_closes_the_gate() {
    let mut inventory = Inventory::new();
    for name in ["a", "b"] {
        let found = Found {
            region: Region::new("iad").unwrap(),
            cluster: String::new(),
            version: String::new(),
            status: (name == "a").then(|| status(name)),
        };
        inventory.insert(host(name), found);
    }
    let one = Selection {
        hosts: vec!["a".to_owned()],
        ..Selection::default()
    };
    let p = plan(&inventory, &one, &"all".parse().unwrap()).unwrap();
    let mut machine = Machine::new("r", &p, &inventory, limits(), Mono::default());
    let beacon = Event::Beacon {
        host: host("b"),
        health: Health::Ok,
        interval: secs(1),
        bye: false,
    };
    machine.handle(beacon, Mono::default());
    let later = Mono(secs(5));
    let event = Event::Status {
        round: machine.number,
        host: host("a"),
        answer: Ok(Box::new(status("a"))),
    };
    let actions = machine.handle(event, later);
    assert!(
        matches!(
            &actions[..],
            [
                Action::Report(Progress::Held {
                    gate: Gate::SilentBeacon { .. },
                    ..
                }),
                ..
            ]
        ),
        "{actions:?}"
    );
}

#[test]
fn an_answer_to_an_earlier_round_is_dropped() {
    let mut w = World::new(&[Nature::Good; 2], limits());
    let asked = w.machine.handle(Event::Tick, w.now);
    assert!(!asked.is_empty());
    let old = Event::Status {
        round: 0,
        host: host("h00"),
        answer: Ok(Box::new(status("h00"))),
    };
    assert!(w.machine.handle(old, w.now).is_empty());
    let checking = w.machine.checking.as_ref().unwrap();
    assert_eq!(checking.round.as_ref().unwrap().statuses.len(), 2);
}

/// Most in work at one time, by region and in all.
fn most_at_once(w: &World) -> (usize, usize) {
    let mut in_work: BTreeSet<HostName> = BTreeSet::new();
    let (mut most, mut most_of_region) = (0, 0);
    for (_, action) in &w.log {
        match action {
            Action::Restart { host } => drop(in_work.insert(host.clone())),
            Action::Report(Progress::Proved { host, .. }) => drop(in_work.remove(host)),
            _ => {}
        }
        let of = |even: bool| {
            in_work
                .iter()
                .filter(|h| h.as_str().ends_with(['0', '2', '4', '6', '8']) == even)
                .count()
        };
        most = most.max(in_work.len());
        most_of_region = most_of_region.max(of(true)).max(of(false));
    }
    (most, most_of_region)
}

#[test]
fn two_at_a_time_are_never_of_one_region_and_starts_keep_the_stagger() {
    let two = Limits {
        max_unavailable: 3,
        stagger: secs(2),
        ..limits()
    };
    let mut w = World::new(&[Nature::Good; 8], two);
    assert!(matches!(w.run(), Outcome::Done(hosts) if hosts.len() == 8));
    assert_eq!(most_at_once(&w), (2, 1));
    let starts = w.commands();
    assert!(starts.windows(2).all(|s| s[1].0.since(s[0].0) >= secs(2)), "{starts:?}");
    let mut alone = World::new(
        &[Nature::Good; 8],
        Limits {
            stagger: secs(2),
            ..limits()
        },
    );
    alone.run();
    assert!(w.now < alone.now, "two at a time are not faster");
}

#[test]
fn with_jetstream_two_of_one_cluster_are_not_down_together() {
    let two = Limits {
        max_unavailable: 2,
        stagger: secs(1),
        ..limits()
    };
    let mut w = World::new(&[Nature::Good; 6], two);
    for planned in &mut w.machine.queue {
        planned.jetstream = true;
    }
    w.run();
    assert_eq!(most_at_once(&w).0, 1);
}

#[test]
fn a_wave_begins_when_the_one_before_is_proved() {
    let many = Limits {
        max_unavailable: 4,
        stagger: secs(1),
        ..limits()
    };
    let mut w = World::new(&[Nature::Good; 6], many);
    for (i, planned) in w.machine.queue.iter_mut().enumerate() {
        planned.wave = i / 2 + 1;
    }
    w.run();
    let (starts, proofs) = (w.commands(), w.proofs());
    for wave in 1..3 {
        assert!(starts[wave * 2].0 >= proofs[wave * 2 - 1].0, "{starts:?} {proofs:?}");
    }
    let waves = w
        .log
        .iter()
        .filter(|(_, a)| matches!(a, Action::Report(Progress::Wave { .. })))
        .count();
    assert_eq!(waves, 3);
}

#[test]
fn a_failure_lets_the_other_host_in_work_be_proved_and_starts_nothing() {
    let two = Limits {
        max_unavailable: 2,
        stagger: secs(1),
        ..limits()
    };
    let natures = [Nature::SaysFailed, Nature::Good, Nature::Good, Nature::Good];
    let mut w = World::new(&natures, two);
    w.run_until(|w| w.commands().len() == 2);
    let halt = w.halt();
    assert!(matches!(halt.reason, Reason::Failed(_)), "{:?}", halt.reason);
    assert_eq!(halt.host, Some(host("h00")));
    assert_eq!(w.commands().len(), w.proofs().len() + 1);
}

#[test]
fn what_was_left_in_work_is_proved_first_and_not_commanded_again() {
    let mut w = World::new(&[Nature::Good; 3], limits());
    w.restarted.insert(host("h00"), Mono::default());
    let adopted = w.machine.queue.pop_front().unwrap();
    let before = roll::Before {
        server_id: "ID-h00-1".to_owned(),
        peers: Some(2),
        ..roll::Before::default()
    };
    let take = Adopted {
        host: adopted,
        before,
        mended: false,
    };
    w.machine = std::mem::replace(
        &mut w.machine,
        Machine::new(
            "",
            &Plan {
                order: vec![],
                others: vec![],
                silent: vec![],
            },
            &Inventory::new(),
            limits(),
            w.now,
        ),
    )
    .adopting(vec![take], w.now);
    assert_eq!(w.run(), Outcome::Done(vec![host("h00"), host("h01"), host("h02")]));
    assert_eq!(
        w.commands().iter().map(|(_, h)| h.as_str()).collect::<Vec<_>>(),
        ["h01", "h02"]
    );
}

#[test]
fn chance_only_adds_to_the_gap_and_not_more_than_allowed() {
    let with = |seed| Limits {
        jitter: 50,
        seed,
        stagger: secs(10),
        ..limits()
    };
    let mut gaps = BTreeSet::new();
    for seed in 0..20 {
        let mut w = World::new(&[Nature::Good; 2], with(seed));
        w.run();
        let gap = w.commands()[1].0.since(w.proofs()[0].0);
        assert!(gap >= secs(10) && gap <= secs(15), "{gap:?}");
        gaps.insert(gap);
    }
    assert!(gaps.len() > 10, "{gaps:?}");
}

fn nature() -> impl Strategy<Value = Nature> {
    prop_oneof![
        8 => Just(Nature::Good),
        1 => Just(Nature::Refuses),
        1 => Just(Nature::SaysFailed),
        1 => Just(Nature::NeverBack),
        1 => Just(Nature::LosesAPeer),
        1 => Just(Nature::StartsAgain),
        1 => Just(Nature::NeverHeardAgain),
        1 => Just(Nature::AnswerLostButDone),
        1 => Just(Nature::AnswerLostNotDone),
    ]
}

proptest! {
    /// Never two in work, no stagger skipped, nothing after a failure, nobody commanded twice; and all is accounted for.
    #[test]
    fn a_rollout_does_no_harm(
        natures in prop::collection::vec(nature(), 1..12),
        stagger in 0_u64..90,
        interrupt in prop::option::of(0_u64..400),
        abandon in prop::option::of(0_u64..400),
    ) {
        let limits = Limits { stagger: secs(stagger), ..limits() };
        let mut w = World::new(&natures, limits);
        for (at, event) in [(interrupt, Event::Interrupt), (abandon, Event::Abandon)] {
            if let Some(at) = at {
                w.run_until(|w| w.now.0 >= secs(at));
                w.feed(event);
            }
        }
        let outcome = w.run();
        let (commands, proofs) = (w.commands(), w.proofs());
        for (i, (at, host)) in commands.iter().enumerate().skip(1) {
            let (proved, before) = &proofs[i - 1];
            prop_assert_eq!(before, &commands[i - 1].1, "the one before was not proved");
            prop_assert!(at.since(*proved) >= limits.stagger, "stagger skipped");
            prop_assert_ne!(host, before);
        }
        for (_, host) in &proofs {
            let alone = natures.len() == 1;
            let proven = match w.natures[host] {
                Nature::Good | Nature::AnswerLostButDone => true,
                Nature::NeverHeardAgain => alone,
                _ => false,
            };
            prop_assert!(proven, "proved what is not well");
        }
        let finishes = w.log.iter().filter(|(_, a)| matches!(a, Action::Finish(_))).count();
        prop_assert_eq!(finishes, 1);
        prop_assert!(matches!(w.log.last(), Some((_, Action::Finish(_)))), "nothing follows the end");
        match outcome {
            Outcome::Done(done) => prop_assert_eq!(done.len(), natures.len()),
            Outcome::Halted(halt) => {
                let touched = usize::from(halt.touched);
                prop_assert_eq!(halt.done.len() + touched + halt.remaining.len(), natures.len());
                prop_assert!(halt.remaining.iter().all(|h| !w.restarted.contains_key(h)));
                prop_assert_eq!(proofs.len(), halt.done.len());
            }
        }
    }
}
