//! The host this agent looks after: its sockets, its units, its operator's command.
pub mod command;
mod netlink;
mod owner;
pub mod sockets;
pub mod systemd;
