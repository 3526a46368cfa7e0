//! The demo: a stall in one direction between two regions, and what real agents make of it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{Flow, Gap, Host, Lab, Result, What, agents};

const READY: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);
/// Longer than any hiccup of a healthy flow here, shorter than any stall that a watchdog finds.
const SILENCE: Duration = Duration::from_millis(500);

/// What the demo saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// From the stall to the first fault that an agent showed.
    pub seen: Option<Duration>,
    /// From the stall to the first message that arrived again.
    pub flowing: Option<Duration>,
    /// From the stall to the moment when every path of every agent was ok.
    pub easy: Option<Duration>,
    /// Messages of the demo's own flow that never came.
    pub lost: u64,
    /// How often one of the demo's two clients lost its server.
    pub disconnects: u64,
}

impl Outcome {
    /// The stall was seen and all is well again.
    #[must_use]
    pub fn healed(&self) -> bool {
        self.seen.is_some() && self.flowing.is_some() && self.easy.is_some()
    }
}

/// Waits until all agents are content, stalls messages from the first host to one of another region, and tells what happens
/// until it is healed or `bound` is over.
///
/// # Errors
/// Where the agents do not get ready, or the stall cannot be made.
pub async fn demo(lab: &Lab, bound: Duration, mut say: impl FnMut(String)) -> Result<Outcome> {
    say("waiting until every agent hears every other".into());
    lab.wait_until_easy(READY).await?;
    let from = &lab.hosts()[0];
    let to = lab
        .hosts()
        .iter()
        .find(|host| host.region != from.region)
        .unwrap_or(from);
    let mut flow = Flow::start(from, to).await?;
    say(format!(
        "every path is ok; a client on {} now sends 50 messages a second to one on {}",
        from.name, to.name
    ));
    tokio::time::sleep(Duration::from_secs(3)).await;

    let mut news = News::new(lab.hosts()).await;
    let stall = lab.stall(&from.name, &to.name, What::Messages)?;
    let start = Instant::now();
    let mut outcome = Outcome {
        seen: None,
        flowing: None,
        easy: None,
        lost: 0,
        disconnects: 0,
    };
    say(format!(
        "+  0.00 s  STALL: messages {} -> {} are swallowed; the connection is up, PING and PONG pass",
        from.name, to.name
    ));
    let mut told: Option<Gap> = None;
    while start.elapsed() < bound && !outcome.healed() {
        for line in news.fresh().await {
            if line.is_fault {
                outcome.seen.get_or_insert_with(|| start.elapsed());
            }
            say(format!("+{:6.2} s  {}", start.elapsed().as_secs_f64(), line.text));
        }
        if let Some(gap) = flow.gap(start, SILENCE)
            && told != Some(gap)
        {
            told = Some(gap);
            let (flowing, silent) = (gap.resumed - start, gap.resumed - gap.stopped);
            outcome.flowing = Some(flowing);
            outcome.lost = gap.lost;
            let text = format!(
                "FLOWING again after {:.2} s of silence, {} messages lost",
                silent.as_secs_f64(),
                gap.lost
            );
            say(format!("+{:6.2} s  {text}", flowing.as_secs_f64()));
        }
        if outcome.flowing.is_some() && lab.uneasy().await.is_empty() {
            outcome.easy = Some(start.elapsed());
        }
        tokio::time::sleep(LOOK).await;
    }
    for line in news.fresh().await {
        say(format!("+{:6.2} s  {}", start.elapsed().as_secs_f64(), line.text));
    }
    outcome.disconnects = flow.disconnects();
    // Forgotten, not ended: where a reset healed it the rule holds for no connection any more.
    lab.unstall(stall)?;
    Ok(outcome)
}

struct Line {
    is_fault: bool,
    text: String,
}

/// What agents say that they have not said before.
struct News<'a> {
    hosts: &'a [Host],
    known: BTreeSet<String>,
    failing: BTreeSet<String>,
}

impl<'a> News<'a> {
    async fn new(hosts: &'a [Host]) -> Self {
        let mut news = Self {
            hosts,
            known: BTreeSet::new(),
            failing: BTreeSet::new(),
        };
        news.fresh().await;
        news
    }

    async fn fresh(&mut self) -> Vec<Line> {
        let mut fresh = Vec::new();
        let looks = self.hosts.iter().map(|host| async move {
            (
                host,
                futures_util::future::try_join(agents::faults(host), agents::history(host)).await,
            )
        });
        for (host, answer) in futures_util::future::join_all(looks).await {
            let name = &host.name;
            let (faults, history) = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    if self.failing.insert(name.clone()) {
                        fresh.push(Line {
                            is_fault: false,
                            text: format!("{name}: its agent does not answer: {error}"),
                        });
                    }
                    continue;
                }
            };
            self.failing.remove(name);
            for fault in faults {
                let text = format!("{name} sees {}: {} ({})", fault.id, fault.evidence, fault.remedy);
                if self
                    .known
                    .insert(format!("{name} {} {} {}", fault.id, fault.since, fault.remedy))
                {
                    fresh.push(Line { is_fault: true, text });
                }
            }
            for record in history {
                let text = format!("{name} {}: {}: {}", record.event, record.subject, record.text);
                if self.known.insert(format!("{} {text}", record.at)) {
                    fresh.push(Line {
                        is_fault: record.event == "fault",
                        text,
                    });
                }
            }
        }
        fresh
    }
}
