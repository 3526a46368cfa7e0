//! The host this agent looks after: its sockets, its units, its operator's command.
pub mod command;
pub mod memory;
mod netlink;
mod owner;
pub mod sockets;
pub mod systemd;
