//! Which process is at the other end of a loopback connection: a server that waits for INFO has not said its name yet.

use std::{fs, net::SocketAddrV4, path::Path};

/// The one of `pids` that owns the socket with this local and this remote address, by `/proc/net/tcp`.
pub(crate) fn owner(local: SocketAddrV4, remote: SocketAddrV4, pids: &[u32]) -> Option<u32> {
    let link = format!(
        "socket:[{}]",
        inode(&fs::read_to_string("/proc/net/tcp").ok()?, local, remote)?
    );
    pids.iter().copied().find(|pid| {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            return false;
        };
        entries
            .flatten()
            .any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == Path::new(&link)))
    })
}

fn inode(table: &str, local: SocketAddrV4, remote: SocketAddrV4) -> Option<u64> {
    let (local, remote) = (hex(local), hex(remote));
    table.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        (words.next()? == local && words.next()? == remote).then(|| words.nth(6)?.parse().ok())?
    })
}

// The kernel prints the address as a number of the machine's byte order.
fn hex(address: SocketAddrV4) -> String {
    format!(
        "{:08X}:{:04X}",
        u32::from_ne_bytes(address.ip().octets()),
        address.port()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener, TcpStream};

    #[test]
    fn the_owner_of_a_connection_is_found_among_the_given_processes_only() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (SocketAddr::V4(local), SocketAddr::V4(remote)) =
            (client.local_addr().unwrap(), client.peer_addr().unwrap())
        else {
            panic!("not IPv4")
        };
        assert_eq!(owner(local, remote, &[1, std::process::id()]), Some(std::process::id()));
        assert_eq!(owner(local, remote, &[1]), None);
        drop(client);
    }
}
