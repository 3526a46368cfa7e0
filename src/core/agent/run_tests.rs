//! Ordered restarts of one agent: the order of steps, what goes wrong in each, and an agent that dies in each.

use super::*;
use crate::core::agent::Restored;
use crate::core::agent::event::Event;
use crate::core::control::roll::tests::record;
use crate::core::ids::{HostName, LaneName, Region, Wall};
use crate::core::policy::{Brownout, Canary, Permits, Policy, Remediation, RestartWays};
use crate::core::remedy::ledger::Ledger;
use crate::core::server::{ReadError, Sample, Varz};

/// One agent, its disk, and what its server does.
struct Host {
    core: Core,
    now: Duration,
    /// What is on disk.
    ledger: Ledger,
    /// What was begun, in order.
    steps: Vec<String>,
    clients: u64,
    id: &'static str,
    up: bool,
    /// Its server leads the meta group.
    leads: bool,
}

fn policy() -> Policy {
    Policy {
        host: HostName::new("a").unwrap(),
        region: Region::new("iad").unwrap(),
        lanes: vec![LaneName::new("main").unwrap()],
        canary: Canary::default(),
        remediation: Remediation::default(),
        brownout: Brownout::default(),
        permits: Permits::default(),
        restart_deadline: Duration::from_secs(60),
        has_unit: false,
        restart: RestartWays {
            hooks: [("upgrade".to_owned(), Duration::from_secs(20))].into(),
            lame_duck: Some(Duration::from_secs(150)),
            can_stop: true,
            step_down: true,
        },
        version: "test".to_owned(),
    }
}

impl Host {
    fn new(policy: Policy) -> Self {
        let mut host = Self {
            core: Core::new(policy, Restored::default(), 0.0, at(Duration::ZERO)),
            now: Duration::ZERO,
            ledger: Ledger::default(),
            steps: Vec::new(),
            clients: 1,
            id: "OLD",
            up: true,
            leads: false,
        };
        host.connect(true);
        host.wait(3);
        host.core.open_rollout(record("r1", &["a"]), at(host.now)).unwrap();
        host
    }

    fn connect(&mut self, up: bool) {
        let state = if up { Ok(()) } else { Err("gone".to_owned()) };
        let lane = LaneName::new("main").unwrap();
        self.send(Event::Connection { lane, state });
    }

    fn send(&mut self, event: Event) {
        let actions = self.core.handle(event, at(self.now));
        self.carry(actions);
    }

    fn carry(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::SaveLedger { act, ledger } => {
                    self.ledger = *ledger;
                    self.send(Event::LedgerSaved { act, result: Ok(()) });
                }
                Action::Step { step, .. } => self.steps.push(step.text()),
                Action::Restart { .. } => self.steps.push(ServerStep::Restart.text()),
                _ => {}
            }
        }
    }

    /// Lets seconds pass, the server being read each.
    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.now += Duration::from_millis(100);
            if self.now.subsec_millis() == 0 {
                let result = if self.up {
                    Ok(Sample::Varz(Box::new(Varz {
                        server_id: self.id.to_owned(),
                        server_name: "s".to_owned(),
                        version: "2.10.26".to_owned(),
                        connections: self.clients,
                        jetstream: self.leads,
                        meta_leader: self.leads.then(|| "s".to_owned()),
                        ..Varz::default()
                    })))
                } else {
                    let url = "http://a".to_owned();
                    let error = "refused".to_owned();
                    Err(ReadError::Connect { url, error })
                };
                let endpoint = Endpoint::Varz;
                self.send(Event::Server { endpoint, result });
            }
            self.send(Event::Tick);
        }
    }

    fn order(&mut self, hook: Option<&str>, lame_duck: LameDuck) -> Result<(), Blocked> {
        let order = RestartOrder {
            lame_duck,
            hook: hook.map(str::to_owned),
            term: 0,
        };
        let actions = self.core.order_restart(&ordered("r1", &order), at(self.now))?;
        self.carry(actions);
        Ok(())
    }

    fn done(&mut self, result: Result<&str, (bool, &str)>) {
        let act = self.core.restart.as_ref().unwrap().act;
        let result = result.map(str::to_owned).map_err(|(touched, what)| StepError {
            touched,
            what: what.to_owned(),
        });
        self.send(Event::StepDone { act, result });
    }

    fn stop(&mut self) {
        self.up = false;
        self.connect(false);
        self.wait(2);
    }

    fn start(&mut self) {
        (self.id, self.up) = ("NEW", true);
        self.connect(true);
        self.wait(2);
    }

    /// kill -9 and a new process, with what is on disk.
    fn die(&mut self) {
        let restored = Restored {
            ledger: Some(Ok(self.ledger.clone())),
            rollout: Some(record("r1", &["a"])),
            ..Restored::default()
        };
        self.core = Core::new(policy(), restored, 0.0, at(self.now));
        self.connect(self.up);
    }

    fn outcome(&self) -> (Stage, String) {
        let last = self.core.host_status(at(self.now)).last_command.unwrap();
        (last.state, last.detail)
    }

    fn begun(&mut self) -> String {
        std::mem::take(&mut self.steps).join(", ")
    }
}

fn ordered(rollout: &str, how: &RestartOrder) -> Order {
    Order {
        who: Who::operator("op", "UOP"),
        verb: "restart",
        rollout: rollout.to_owned(),
        reason: String::new(),
        args: how.args(),
    }
}

fn at(since: Duration) -> Now {
    Now {
        mono: Mono(since),
        wall: Wall(since + Duration::from_secs(1_000_000)),
    }
}

const DRAIN: &str = "draining clients (lame duck)";
const STOP: &str = "stopping the server";
const HOOK: &str = "running hook upgrade";
const START: &str = "starting the server";
const RESTART: &str = "restarting the server";

#[test]
fn without_clients_or_hook_it_is_one_step() {
    let mut h = Host::new(policy());
    h.order(None, LameDuck::Auto).unwrap();
    assert_eq!(h.begun(), RESTART);
    h.stop();
    h.start();
    h.done(Ok(""));
    h.wait(1);
    assert_eq!(h.outcome().0, Stage::Done);
    assert_eq!(h.ledger.run, None);
}

#[test]
fn clients_are_drained_and_a_hook_runs_while_the_server_is_stopped() {
    let mut h = Host::new(policy());
    h.clients = 40;
    h.wait(1);
    h.order(Some("upgrade"), LameDuck::Auto).unwrap();
    assert_eq!(h.begun(), DRAIN);
    h.stop();
    h.done(Ok("ended"));
    assert_eq!(h.begun(), STOP);
    h.done(Ok(""));
    assert_eq!(h.begun(), HOOK);
    h.done(Ok("swapped"));
    assert_eq!(h.begun(), START);
    h.start();
    h.done(Ok(""));
    h.wait(1);
    assert_eq!(h.outcome().0, Stage::Done);
    let before = h.ledger.ordered.as_ref().unwrap().before.clone();
    assert_eq!((before.server_id.as_str(), before.version.as_str()), ("OLD", "2.10.26"));
}

#[test]
fn the_agent_itself_is_no_client_to_drain_and_never_means_never() {
    for (clients, lame_duck, first) in [
        (1, LameDuck::Auto, RESTART),
        (2, LameDuck::Auto, DRAIN),
        (2, LameDuck::Never, RESTART),
        (1, LameDuck::Always, DRAIN),
    ] {
        let mut h = Host::new(policy());
        h.clients = clients;
        h.wait(1);
        h.order(None, lame_duck).unwrap();
        assert_eq!(h.begun(), first, "{clients} {lame_duck:?}");
    }
}

const STEP_DOWN: &str = "stepping down as meta leader";

#[test]
fn a_meta_leader_steps_down_before_anything_and_whether_it_does_or_not_the_restart_goes_on() {
    for answer in [Ok("b leads the meta group now"), Err((false, "no answer in time"))] {
        let mut h = Host::new(policy());
        (h.clients, h.leads) = (40, true);
        h.wait(1);
        h.order(Some("upgrade"), LameDuck::Auto).unwrap();
        assert_eq!(h.begun(), STEP_DOWN);
        h.done(answer);
        assert_eq!(h.begun(), DRAIN);
        h.stop();
        h.done(Ok("ended"));
        h.done(Ok(""));
        h.done(Ok("swapped"));
        assert_eq!(h.begun(), [STOP, HOOK, START].join(", "));
        h.start();
        h.done(Ok(""));
        h.wait(1);
        assert_eq!(h.outcome().0, Stage::Done, "{answer:?}: {:?}", h.outcome());
    }
}

#[test]
fn who_does_not_lead_or_cannot_ask_does_not_step_down() {
    let mut h = Host::new(policy());
    h.order(None, LameDuck::Auto).unwrap();
    assert_eq!(h.begun(), RESTART);
    let mut alone = policy();
    alone.restart.step_down = false;
    let mut h = Host::new(alone);
    h.leads = true;
    h.wait(1);
    h.order(None, LameDuck::Auto).unwrap();
    assert_eq!(h.begun(), RESTART);
    // Without clients the restart is one step after it.
    let mut h = Host::new(policy());
    h.leads = true;
    h.wait(1);
    h.order(None, LameDuck::Auto).unwrap();
    h.done(Ok(""));
    assert_eq!(h.begun(), [STEP_DOWN, RESTART].join(", "));
}

#[test]
fn a_server_that_somebody_takes_away_while_it_steps_down_is_not_touched() {
    let mut h = Host::new(policy());
    h.leads = true;
    h.wait(1);
    h.order(None, LameDuck::Auto).unwrap();
    assert_eq!(h.begun(), STEP_DOWN);
    h.send(Event::LameDuck);
    h.done(Ok("b leads the meta group now"));
    assert_eq!(h.begun(), "");
    assert!(h.outcome().1.contains("it was not begun"), "{:?}", h.outcome());
}

#[test]
fn what_cannot_be_done_as_ordered_is_refused_before_anything() {
    let mut h = Host::new(policy());
    let gate = h.order(Some("upgrad"), LameDuck::Auto).unwrap_err();
    assert_eq!(gate.gate(), "no_hook");
    assert!(gate.to_string().contains("has only upgrade"), "{gate}");
    let mut bare = policy();
    bare.restart = RestartWays {
        hooks: policy().restart.hooks,
        ..RestartWays::default()
    };
    let mut h = Host::new(bare);
    h.clients = 40;
    h.wait(1);
    assert_eq!(h.order(None, LameDuck::Always).unwrap_err().gate(), "no_lame_duck");
    assert_eq!(h.order(Some("upgrade"), LameDuck::Auto).unwrap_err().gate(), "no_hook");
    assert_eq!(h.begun(), "");
    h.order(None, LameDuck::Auto).unwrap();
    assert_eq!(h.begun(), RESTART);
}

#[test]
fn only_the_open_rollout_and_its_newest_driver_may_order() {
    let mut h = Host::new(policy());
    let now = at(h.now);
    let order = |term| RestartOrder {
        term,
        ..RestartOrder::default()
    };
    let gate = |h: &mut Host, id: &str, term| {
        h.core
            .order_restart(&ordered(id, &order(term)), now)
            .unwrap_err()
            .gate()
    };
    assert_eq!(gate(&mut h, "r2", 0), "rollout_open");
    let mut again = record("r1", &["a"]);
    again.term = 1;
    h.core.open_rollout(again, now).unwrap();
    assert_eq!(gate(&mut h, "r1", 0), "superseded");
    assert_eq!(
        h.core.open_rollout(record("r2", &["a"]), now).unwrap_err().gate(),
        "rollout_open"
    );
    h.core.close_rollout("r2", "op", now);
    assert!(h.core.open_record().is_some(), "another rollout was closed");
    h.core.close_rollout("r1", "op", now);
    assert_eq!(gate(&mut h, "r1", 1), "rollout_unknown");
    // A late word of the process that did not know.
    assert_eq!(
        h.core.open_rollout(record("r1", &["a"]), now).unwrap_err().gate(),
        "rollout_unknown"
    );
    assert!(h.core.open_rollout(record("r2", &["a"]), now).is_ok());
}

#[test]
fn a_drain_that_cannot_begin_leaves_the_server_alone() {
    let mut h = Host::new(policy());
    h.order(Some("upgrade"), LameDuck::Always).unwrap();
    h.begun();
    h.done(Err((false, "access denied")));
    h.wait(5);
    assert_eq!(h.begun(), "");
    let (stage, text) = h.outcome();
    assert_eq!(stage, Stage::Failed);
    assert!(text.contains("access denied"), "{text}");
}

#[test]
fn a_drain_that_does_not_end_is_cut_and_the_server_started_without_the_hook() {
    let mut h = Host::new(policy());
    h.order(Some("upgrade"), LameDuck::Always).unwrap();
    assert_eq!(h.begun(), DRAIN);
    h.send(Event::LameDuck);
    h.done(Err((true, "still there")));
    assert_eq!(h.begun(), RESTART);
    h.stop();
    h.start();
    h.done(Ok(""));
    h.wait(1);
    let (stage, text) = h.outcome();
    assert_eq!(stage, Stage::Failed);
    assert!(text.contains("still there"), "{text}");
}

#[test]
fn a_hook_that_fails_halts_and_the_server_is_started_with_what_is_there() {
    let mut h = Host::new(policy());
    h.order(Some("upgrade"), LameDuck::Never).unwrap();
    assert_eq!(h.begun(), STOP);
    h.stop();
    h.done(Ok(""));
    assert_eq!(h.begun(), HOOK);
    h.done(Err((true, "no space left")));
    assert_eq!(h.begun(), START);
    h.start();
    h.done(Ok(""));
    h.wait(1);
    let (stage, text) = h.outcome();
    assert_eq!(stage, Stage::Failed);
    assert!(text.contains("running hook upgrade failed: no space left"), "{text}");
    assert_eq!(h.ledger.run, None);
}

#[test]
fn a_start_that_fails_is_said_and_nothing_follows() {
    let mut h = Host::new(policy());
    h.order(Some("upgrade"), LameDuck::Never).unwrap();
    h.stop();
    h.done(Ok(""));
    h.done(Ok(""));
    h.begun();
    h.done(Err((true, "exec format error")));
    h.wait(200);
    assert_eq!(h.begun(), "");
    assert!(h.outcome().1.contains("exec format error"));
}

#[test]
fn a_step_of_which_nothing_is_heard_ends_at_its_limit() {
    let mut h = Host::new(policy());
    h.order(Some("upgrade"), LameDuck::Never).unwrap();
    h.stop();
    h.done(Ok(""));
    assert_eq!(h.begun(), format!("{STOP}, {HOOK}"));
    h.wait(49);
    assert_eq!(h.begun(), "");
    h.wait(3);
    assert_eq!(h.begun(), START);
}

#[test]
fn an_agent_that_dies_while_clients_drain_goes_on_when_the_server_has_ended() {
    let mut h = Host::new(policy());
    h.order(Some("upgrade"), LameDuck::Always).unwrap();
    h.begun();
    h.connect(false);
    h.die();
    h.connect(false);
    h.wait(60);
    assert_eq!(h.begun(), "", "a lame duck is waited for");
    h.stop();
    h.wait(6);
    assert_eq!(h.begun(), STOP);
    h.done(Ok(""));
    h.done(Ok(""));
    assert_eq!(h.begun(), format!("{HOOK}, {START}"));
    h.start();
    h.done(Ok(""));
    h.wait(1);
    assert_eq!(h.outcome().0, Stage::Done);
}

#[test]
fn an_agent_that_dies_before_anything_was_touched_says_so_and_does_nothing() {
    for lame_duck in [LameDuck::Always, LameDuck::Never] {
        let mut h = Host::new(policy());
        h.order(None, lame_duck).unwrap();
        h.begun();
        h.die();
        h.wait(20);
        assert_eq!(h.begun(), "");
        let (stage, text) = h.outcome();
        assert_eq!(stage, Stage::Failed);
        assert!(text.contains("nothing was done"), "{text}");
        assert_eq!(h.ledger.run, None);
    }
}

#[test]
fn a_hook_in_which_the_agent_died_is_not_run_again_and_the_server_is_started() {
    let mut h = Host::new(policy());
    h.order(Some("upgrade"), LameDuck::Never).unwrap();
    h.stop();
    h.done(Ok(""));
    assert_eq!(h.begun(), format!("{STOP}, {HOOK}"));
    h.die();
    h.wait(7);
    assert_eq!(h.begun(), START);
    h.start();
    h.done(Ok(""));
    h.wait(1);
    let (stage, text) = h.outcome();
    assert_eq!(stage, Stage::Failed);
    assert!(text.contains("died while hook upgrade ran"), "{text}");
}

#[test]
fn an_agent_that_dies_while_the_server_restarts_finds_it_done() {
    let mut h = Host::new(policy());
    h.order(None, LameDuck::Never).unwrap();
    h.begun();
    h.die();
    h.start();
    h.wait(8);
    assert_eq!(h.begun(), "", "nothing is done twice");
    assert_eq!(h.outcome().0, Stage::Done);
}

#[test]
fn a_server_that_stays_down_after_the_agent_died_is_started() {
    let mut h = Host::new(policy());
    h.order(None, LameDuck::Never).unwrap();
    h.begun();
    h.stop();
    h.die();
    h.wait(7);
    assert_eq!(h.begun(), START);
}

#[test]
fn a_command_that_restarts_is_run_again_where_there_is_none_that_starts() {
    let mut h = Host::new(policy());
    h.order(None, LameDuck::Never).unwrap();
    let restarted = h.begun();
    h.stop();
    h.die();
    h.core.policy.restart.can_stop = false;
    h.wait(50);
    assert_eq!(h.begun(), "", "the one before may be at it still");
    h.wait(15);
    assert_eq!(h.begun(), restarted);
}

#[test]
fn a_server_that_was_stopped_by_somebody_else_while_the_agent_was_away_is_left_alone() {
    let mut h = Host::new(policy());
    h.leads = true;
    h.wait(3);
    h.order(None, LameDuck::Never).unwrap();
    assert_eq!(h.begun(), STEP_DOWN);
    h.stop();
    h.die();
    h.wait(30);
    assert_eq!(h.begun(), "");
    assert!(h.outcome().1.contains("somebody else stopped it"), "{:?}", h.outcome());
    assert_eq!(h.ledger.run, None);

    let mut h = Host::new(policy());
    h.order(Some("upgrade"), LameDuck::Always).unwrap();
    h.begun();
    h.up = false;
    h.now += Duration::from_secs(2 * 3600);
    h.die();
    h.wait(30);
    assert_eq!(h.begun(), "", "an order of two hours ago");
    assert!(h.outcome().1.contains("away for so long"), "{:?}", h.outcome());
}

#[test]
fn a_server_that_came_back_by_itself_without_its_hook_is_not_done() {
    let mut h = Host::new(policy());
    h.order(Some("upgrade"), LameDuck::Always).unwrap();
    h.begun();
    h.die();
    h.start();
    h.wait(8);
    assert_eq!(h.begun(), "");
    let (stage, text) = h.outcome();
    assert_eq!(stage, Stage::Failed);
    assert!(text.contains("came back without running hook upgrade"), "{text}");
}
