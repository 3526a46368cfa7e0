use std::time::Duration;

use zbus::DBusError as _;

/// Why systemd did not do, or did not tell.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// No system bus, or no systemd on it.
    #[error(
        "cannot reach systemd over the system bus for {unit}; is this a host with systemd, and is dbus running? Without systemd, set server.restart_command"
    )]
    NoBus {
        /// The unit it was about.
        unit: String,
        /// What the bus said.
        #[source]
        source: zbus::Error,
    },
    /// polkit refuses.
    #[error(
        "systemd does not let this user {verb} {unit}: install /etc/polkit-1/rules.d/50-watchdog.rules (or put it in /usr/share/polkit-1/rules.d), with this unit's name in it, and see that polkit runs"
    )]
    AccessDenied {
        /// What was asked.
        verb: &'static str,
        /// Of which unit.
        unit: String,
    },
    /// There is no such unit.
    #[error("systemd has no unit {unit}: check server.unit in the configuration of watchdog")]
    NoSuchUnit {
        /// Its name.
        unit: String,
    },
    /// An operator masked the unit.
    #[error("{unit} is masked: an operator wants it stopped; 'systemctl unmask {unit}' ends that")]
    Masked {
        /// Its name.
        unit: String,
    },
    /// The job did not end in time.
    #[error("the restart of {unit} did not end within {}; systemd goes on with it: see 'systemctl status {unit}'", humantime::format_duration(*.deadline))]
    Deadline {
        /// Its name.
        unit: String,
        /// How long was waited.
        deadline: Duration,
    },
    /// The bus went away between request and result.
    #[error("lost the system bus while {unit} restarted, so its outcome is unknown: see 'systemctl status {unit}'")]
    JobLost {
        /// Its name.
        unit: String,
    },
    /// Anything else systemd objects to.
    #[error("systemd cannot {verb} {unit}")]
    Refused {
        /// What was asked.
        verb: &'static str,
        /// Of which unit.
        unit: String,
        /// What systemd said.
        #[source]
        source: zbus::Error,
    },
}

impl SystemdError {
    pub(super) fn of(verb: &'static str, unit: &str, source: zbus::Error) -> Self {
        let unit = unit.to_owned();
        let name = match &source {
            zbus::Error::MethodError(name, ..) => name.to_string(),
            zbus::Error::FDO(error) => error.name().to_string(),
            zbus::Error::Connection(..)
            | zbus::Error::InputOutput(_)
            | zbus::Error::Address(_)
            | zbus::Error::Handshake(_) => {
                return Self::NoBus { unit, source };
            }
            _ => return Self::Refused { verb, unit, source },
        };
        let bus = "org.freedesktop.DBus.Error.";
        let systemd = "org.freedesktop.systemd1.";
        match name.strip_prefix(bus).or_else(|| name.strip_prefix(systemd)) {
            Some("AccessDenied" | "InteractiveAuthorizationRequired" | "AuthFailed") => {
                Self::AccessDenied { verb, unit }
            }
            Some("NoSuchUnit") => Self::NoSuchUnit { unit },
            Some("UnitMasked") => Self::Masked { unit },
            Some("ServiceUnknown" | "NameHasNoOwner" | "NoReply" | "Disconnected" | "NoServer") => {
                Self::NoBus { unit, source }
            }
            // The bus tries to start what is not there.
            Some(name) if name.starts_with("Spawn.") => Self::NoBus { unit, source },
            _ => Self::Refused { verb, unit, source },
        }
    }
}
