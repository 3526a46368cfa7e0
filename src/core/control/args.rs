//! Arguments of a command: named, typed, covered by the signature. An agent refuses what it does not know: one that
//! ignored `hook` would restart a server that was to be upgraded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::guard::Refusal;
use super::roll::LameDuck;
use super::{Command, Verb};

/// The argument of a restart that goes on where the store of permits does not answer.
pub const WITHOUT_STORE: &str = "without_store";
/// Most arguments of a command.
pub const MAX_ARGS: usize = 16;
/// Longest name of an argument, in bytes.
pub const MAX_NAME: usize = 32;
/// Longest text of an argument, in bytes.
pub const MAX_TEXT: usize = 512;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Arg {
    /// Yes or no.
    Flag(bool),
    /// A count; durations are milliseconds.
    Number(u64),
    /// A name or a sentence.
    Text(String),
}

/// Type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgKind {
    /// [`Arg::Flag`]
    Flag,
    /// [`Arg::Number`]
    Number,
    /// [`Arg::Text`]
    Text,
}

impl ArgKind {
    fn name(self) -> &'static str {
        match self {
            Self::Flag => "true or false",
            Self::Number => "a whole number",
            Self::Text => "a text",
        }
    }
}

impl Arg {
    fn kind(&self) -> ArgKind {
        match self {
            Self::Flag(_) => ArgKind::Flag,
            Self::Number(_) => ArgKind::Number,
            Self::Text(_) => ArgKind::Text,
        }
    }
}

/// Arguments by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Args(BTreeMap<String, Arg>);

impl Args {
    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// With one more; the last of a name counts.
    #[must_use]
    pub fn with(mut self, name: &str, value: Arg) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    /// A text, if it was given.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(Arg::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A flag; not given = no.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.0.get(name), Some(Arg::Flag(true)))
    }

    /// A number, if it was given.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.0.get(name) {
            Some(Arg::Number(n)) => Some(*n),
            _ => None,
        }
    }
}

impl Verb {
    /// The arguments that this build carries out, and their types. All others are refused.
    #[must_use]
    pub fn arguments(&self) -> &'static [(&'static str, ArgKind)] {
        match self {
            Self::Restart => &[
                ("hook", ArgKind::Text),
                ("lame_duck", ArgKind::Text),
                ("term", ArgKind::Number),
                (WITHOUT_STORE, ArgKind::Flag),
            ],
            Self::Status
            | Self::Hears { .. }
            | Self::History { .. }
            | Self::Open { .. }
            | Self::Close
            | Self::Resume
            | Self::Rollout => &[],
        }
    }
}

/// Whether this build carries out every argument of the command as it is meant.
///
/// # Errors
/// [`Refusal::Argument`] with the first that it does not.
pub fn check(command: &Command) -> Result<(), Refusal> {
    let verb = command.verb.name();
    let refuse = |name: &str, what: String| {
        Err(Refusal::Argument {
            verb,
            name: name.chars().take(MAX_NAME).collect(),
            what,
        })
    };
    if command.args.0.len() > MAX_ARGS {
        return refuse(
            "",
            format!("{} arguments, at most {MAX_ARGS} are read", command.args.0.len()),
        );
    }
    for (name, value) in &command.args.0 {
        let Some((_, kind)) = command.verb.arguments().iter().find(|(known, _)| known == name) else {
            return refuse(name, "this agent does not know it; upgrade the agent".to_owned());
        };
        if value.kind() != *kind {
            return refuse(name, format!("it must be {}", kind.name()));
        }
        if name == "lame_duck"
            && command
                .args
                .text(name)
                .is_none_or(|text| LameDuck::parse(text).is_none())
        {
            return refuse(name, "it must be auto, never or always".to_owned());
        }
        if let Arg::Text(text) = value
            && (text.len() > MAX_TEXT || text.chars().any(char::is_control))
        {
            return refuse(
                name,
                format!("a text of at most {MAX_TEXT} bytes without control characters is read"),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::HostName;

    fn restart(args: Args) -> Command {
        let mut command = Command::read(HostName::new("a").unwrap(), Verb::Restart);
        command.args = args;
        command
    }

    #[test]
    fn an_argument_that_is_not_known_is_refused_rather_than_ignored() {
        assert_eq!(check(&restart(Args::default())), Ok(()));
        let refusal = check(&restart(Args::default().with("hoook", Arg::Text("upgrade".into())))).unwrap_err();
        assert_eq!(refusal.gate(), "argument");
        assert!(refusal.to_string().contains("\"hoook\""), "{refusal}");
    }

    #[test]
    fn arguments_are_read_by_name_and_type_and_travel_as_json() {
        let args = Args::default()
            .with("hook", Arg::Text("upgrade".into()))
            .with("lame_duck", Arg::Flag(true))
            .with("within", Arg::Number(5));
        let text = serde_json::to_string(&args).unwrap();
        assert_eq!(text, r#"{"hook":"upgrade","lame_duck":true,"within":5}"#);
        let read: Args = serde_json::from_str(&text).unwrap();
        assert_eq!(read, args);
        assert_eq!((read.text("hook"), read.number("within")), (Some("upgrade"), Some(5)));
        assert!(read.flag("lame_duck") && !read.flag("hook") && read.text("within").is_none());
        for bad in [r#"{"x":1.5}"#, r#"{"x":-1}"#, r#"{"x":null}"#, r#"{"x":{}}"#, "[]"] {
            assert!(serde_json::from_str::<Args>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn many_arguments_are_refused() {
        let many = (0..=MAX_ARGS).fold(Args::default(), |args, i| args.with(&i.to_string(), Arg::Flag(true)));
        assert_eq!(check(&restart(many)).unwrap_err().gate(), "argument");
    }
}
