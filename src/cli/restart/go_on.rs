//! The command line that goes on after a halt: the one given, with its selection replaced.

use crate::core::ids::HostName;

/// Flags that take a value and belong to the selection.
const SELECTION: [&str; 2] = ["--host", "--region"];
/// Flags whose value is not repeated on a screen or in a log.
const SECRET: [&str; 2] = ["--password", "--token"];

/// `argv` for the `remaining` hosts; secrets are blanked.
pub(super) fn go_on(argv: &[String], remaining: &[HostName]) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut args = argv.iter();
    while let Some(arg) = args.next() {
        let (flag, value) = arg
            .split_once('=')
            .map_or((arg.as_str(), None), |(flag, value)| (flag, Some(value)));
        if flag == "--all" {
            continue;
        }
        if SELECTION.contains(&flag) {
            if value.is_none() {
                args.next();
            }
        } else if SECRET.contains(&flag) {
            if value.is_none() {
                args.next();
            }
            words.extend([flag.to_owned(), "'…'".to_owned()]);
        } else {
            words.push(quoted(arg));
        }
    }
    for host in remaining {
        words.extend(["--host".to_owned(), host.to_string()]);
    }
    words.join(" ")
}

/// A word as a POSIX shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_as_it_was_and_the_selection_is_what_remains() {
        let argv: Vec<String> = [
            "watchdog",
            "restart",
            "--region",
            "iad",
            "--all",
            "--host=iad-1",
            "--stagger",
            "5s",
            "--reason",
            "it's time",
            "--token=geheim",
            "--password",
            "geheim",
            "--yes",
        ]
        .map(str::to_owned)
        .to_vec();
        let hosts = ["iad-2", "iad-3"].map(|h| HostName::new(h).unwrap());
        assert_eq!(
            go_on(&argv, &hosts),
            r"watchdog restart --stagger 5s --reason 'it'\''s time' --token '…' --password '…' --yes --host iad-2 --host iad-3"
        );
    }
}
