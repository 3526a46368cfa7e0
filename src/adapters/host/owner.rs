//! Whose socket is it: what `/proc` tells about processes, their sockets and our own privileges.

use std::collections::HashSet;
use std::path::Path;
use std::{fs, io};

/// Bit of `CAP_NET_ADMIN` in a capability set.
const NET_ADMIN: u32 = 12;

/// The processes that hold the socket `inode` and that we may look into; empty without privilege over them.
pub(super) fn holders(inode: u32) -> io::Result<Vec<u32>> {
    let mut holders = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process that has gone, or that we may not look into, is not one we know to hold it.
        if inodes(pid).is_ok_and(|inodes| inodes.contains(&inode)) {
            holders.push(pid);
        }
    }
    Ok(holders)
}

/// The sockets of a process.
pub(super) fn inodes(pid: u32) -> io::Result<HashSet<u32>> {
    inodes_below(Path::new(&format!("/proc/{pid}/fd")))
}

/// The sockets of this process.
pub(super) fn own_inodes() -> io::Result<HashSet<u32>> {
    inodes_below(Path::new("/proc/self/fd"))
}

/// Whether this process may administrate the network: destroying a socket of somebody else needs it.
pub(super) fn has_net_admin() -> io::Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective
        .map(|set| set & 1 << NET_ADMIN != 0)
        .ok_or_else(|| io::Error::other("/proc/self/status has no readable CapEff"))
}

fn inodes_below(fds: &Path) -> io::Result<HashSet<u32>> {
    let mut inodes = HashSet::new();
    for entry in fs::read_dir(fds)? {
        let Ok(target) = fs::read_link(entry?.path()) else {
            continue;
        };
        let inode: Option<u32> = target
            .to_str()
            .and_then(|text| text.strip_prefix("socket:["))
            .and_then(|text| text.strip_suffix(']'))
            .and_then(|number| number.parse().ok());
        inodes.extend(inode);
    }
    Ok(inodes)
}
