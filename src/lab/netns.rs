//! A network namespace for every host, so that a cut is a silent black hole in the kernel and loss is real loss.
//!
//! All is named `wdlab-<pid of the lab>-…`: `…-ctl` with a bridge and the lab itself, `…-<host>` with one `eth0` on the bridge.
//! Nothing is added to the namespace that the lab was started in. The lab makes the namespaces, then runs itself again (same
//! process id) inside `…-ctl`; what a lab left behind that was killed, the next one removes.

use std::{convert::Infallible, env, fs, net::Ipv4Addr, os::unix::process::CommandExt, path::Path, process::Command};

use super::{LabError, Result, process::run};

const PREFIX: &str = "wdlab-";
const INSIDE: &str = "WATCHDOG_LAB_NETNS";
const DIRECTORY: &str = "/run/netns";
/// Where the lab itself is.
pub(crate) const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Nobody's address: what is sent to it is lost.
const NOWHERE: &str = "02:00:00:00:00:01";

/// The address of the host with this number.
pub(crate) fn address(index: usize) -> Ipv4Addr {
    let [high, low] = u16::try_from(index + 257).unwrap_or(u16::MAX).to_be_bytes();
    Ipv4Addr::new(10, 77, high, low)
}

/// The prefix of this lab's namespaces, where this process runs inside of them already.
#[must_use]
pub fn inside() -> Option<String> {
    let own = format!("{PREFIX}{}", std::process::id());
    env::var(INSIDE).ok().filter(|prefix| *prefix == own)
}

/// Makes namespaces for these hosts and runs this program, with its arguments, again inside of them.
///
/// # Errors
/// Always, if it returns: what could not be made or run. It takes root and `ip`.
pub fn enter<'a>(hosts: impl Iterator<Item = &'a str>) -> Result<Infallible> {
    remove_leftovers();
    let prefix = format!("{PREFIX}{}", std::process::id());
    let made = make(&prefix, hosts).and_then(|()| {
        let own = env::current_exe().map_err(LabError::file("find", "/proc/self/exe"))?;
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &format!("{prefix}-ctl")])
            .arg(own)
            .args(env::args_os().skip(1));
        let source = command.env(INSIDE, &prefix).exec();
        Err(LabError::Spawn {
            program: "ip netns exec".into(),
            source,
        })
    });
    remove(&prefix);
    made
}

fn make<'a>(prefix: &str, hosts: impl Iterator<Item = &'a str>) -> Result<()> {
    let control = format!("{prefix}-ctl");
    ip(&format!("netns add {control}"))?;
    ip(&format!("-n {control} link set lo up"))?;
    ip(&format!("-n {control} link add br0 type bridge"))?;
    ip(&format!("-n {control} addr add {CONTROL}/16 dev br0"))?;
    ip(&format!("-n {control} link set br0 up"))?;
    for (index, host) in hosts.enumerate() {
        let name = format!("{prefix}-{host}");
        ip(&format!("netns add {name}"))?;
        ip(&format!(
            "-n {control} link add v{index} type veth peer name eth0 netns {name}"
        ))?;
        ip(&format!("-n {control} link set v{index} master br0 up"))?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} addr add {}/16 dev eth0", address(index)))?;
        ip(&format!("-n {name} link set eth0 up"))?;
    }
    Ok(())
}

fn ip(words: &str) -> Result<()> {
    run("ip", &words.split(' ').collect::<Vec<_>>())
}

fn namespaces() -> Vec<String> {
    let entries = fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(PREFIX))
        .collect()
}

fn remove(prefix: &str) {
    let own = |name: &String| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-'));
    for name in namespaces().iter().filter(|name| own(name)) {
        // Gone already is what is wanted.
        let _ = ip(&format!("netns del {name}"));
    }
}

fn remove_leftovers() {
    for name in namespaces() {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()) {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

/// The namespaces of a running lab; removed when dropped.
#[derive(Debug)]
pub(crate) struct Network {
    prefix: String,
    hosts: Vec<String>,
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(&self.prefix);
    }
}

impl Network {
    pub(crate) fn new(prefix: String, hosts: Vec<String>) -> Self {
        Self { prefix, hosts }
    }

    /// Each of two hosts believes the other at an address where nobody is: packets vanish, nothing is refused.
    pub(crate) fn cut(&self, a: usize, b: usize) -> Result<()> {
        let lost = |peer| format!("replace {peer} lladdr {NOWHERE} nud permanent dev eth0");
        self.neighbour(a, &lost(address(b)))?;
        self.neighbour(b, &lost(address(a)))
    }

    pub(crate) fn mend(&self, a: usize, b: usize) -> Result<()> {
        self.neighbour(a, &format!("del {} dev eth0", address(b)))?;
        self.neighbour(b, &format!("del {} dev eth0", address(a)))
    }

    fn neighbour(&self, host: usize, words: &str) -> Result<()> {
        ip(&format!("-n {}-{} neigh {words}", self.prefix, self.hosts[host]))
    }

    /// Drops this share of what arrives at a host from other hosts; 0 ends it.
    pub(crate) fn loss(&self, host: usize, percent: f64) -> Result<()> {
        let inside = format!("netns exec {}-{} iptables -w", self.prefix, self.hosts[host]);
        ip(&format!("{inside} -F INPUT"))?;
        if percent > 0.0 {
            let chance = percent / 100.0;
            let random = format!("-m statistic --mode random --probability {chance}");
            ip(&format!("{inside} -A INPUT -i eth0 ! -s {CONTROL} {random} -j DROP"))?;
        }
        Ok(())
    }
}
