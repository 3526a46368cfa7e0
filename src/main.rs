//! The `watchdog` command.

fn main() -> std::process::ExitCode {
    nats_watchdog::cli::main()
}
