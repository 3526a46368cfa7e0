//! The host this agent looks after: its sockets, its units, its operator's command.
mod netlink;
mod owner;
pub mod sockets;
