//! What memory a process may use: the smallest `memory.max` of its control group and those above, else the host's.

use std::fs;
use std::path::{Component, Path};

use crate::core::sys::memory::{LimitSource, MemoryLimit};

/// The limit of the process `pid`, or of the host where it has none or `pid` is not known.
pub fn limit(pid: Option<u32>) -> Option<MemoryLimit> {
    limit_below(Path::new("/proc"), Path::new("/sys/fs/cgroup"), pid)
}

fn limit_below(proc: &Path, cgroups: &Path, pid: Option<u32>) -> Option<MemoryLimit> {
    let host = total(&fs::read_to_string(proc.join("meminfo")).ok()?).map(|bytes| MemoryLimit {
        bytes,
        source: LimitSource::Host,
    });
    let group = pid
        .and_then(|pid| fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).ok())
        .and_then(|text| smallest(&text, cgroups))
        .map(|bytes| MemoryLimit {
            bytes,
            source: LimitSource::Cgroup,
        });
    // A group may be allowed more than there is.
    match (group, host) {
        (Some(group), Some(host)) => Some(if group.bytes < host.bytes { group } else { host }),
        (group, host) => group.or(host),
    }
}

/// `MemTotal` in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The smallest `memory.max` on the way from the process's group (version 2) up.
fn smallest(proc_cgroup: &str, cgroups: &Path) -> Option<u64> {
    let path = proc_cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let path = Path::new(path);
    if !path.components().all(|c| matches!(c, Component::Normal(_))) {
        return None;
    }
    path.ancestors()
        .filter_map(|group| fs::read_to_string(cgroups.join(group).join("memory.max")).ok())
        .filter_map(|max| max.trim().parse().ok())
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/meminfo", "MemTotal:        8000000 kB\nMemFree: 1 kB\n");
        write("proc/7/cgroup", "0::/system.slice/nats-server.service\n");
        write("cg/system.slice/nats-server.service/memory.max", "max\n");
        write("cg/system.slice/memory.max", "4294967296\n");
        dir
    }

    fn read(dir: &tempfile::TempDir, pid: Option<u32>) -> Option<MemoryLimit> {
        limit_below(&dir.path().join("proc"), &dir.path().join("cg"), pid)
    }

    #[test]
    fn a_limit_of_a_group_above_counts_and_max_is_none() {
        let dir = tree();
        let found = read(&dir, Some(7)).unwrap();
        assert_eq!((found.bytes, found.source), (4_294_967_296, LimitSource::Cgroup));
        fs::write(
            dir.path().join("cg/system.slice/nats-server.service/memory.max"),
            "1073741824",
        )
        .unwrap();
        assert_eq!(read(&dir, Some(7)).unwrap().bytes, 1_073_741_824);
    }

    #[test]
    fn without_a_group_the_host_is_the_limit_and_a_group_allows_no_more_than_there_is() {
        let dir = tree();
        let host = MemoryLimit {
            bytes: 8_192_000_000,
            source: LimitSource::Host,
        };
        assert_eq!(read(&dir, None), Some(host));
        assert_eq!(read(&dir, Some(8)), Some(host));
        fs::write(dir.path().join("cg/system.slice/memory.max"), "99999999999999").unwrap();
        assert_eq!(read(&dir, Some(7)), Some(host));
        fs::write(dir.path().join("proc/7/cgroup"), "0::/../../etc\n").unwrap();
        assert_eq!(read(&dir, Some(7)), Some(host));
    }

    #[test]
    fn this_host_has_memory() {
        assert!(limit(Some(std::process::id())).unwrap().bytes > 1 << 20);
    }
}
