//! The command line that goes on after a halt: how it connects and signs as given, and the name of the rollout.

/// Flags that take a value and belong to the plan, which the rollout keeps.
const PLAN: [&str; 15] = [
    "--host",
    "--region",
    "--cluster",
    "--where",
    "--exclude",
    "--waves",
    "--stagger",
    "--jitter",
    "--max-unavailable",
    "--lame-duck",
    "--hook",
    "--timeout",
    "--reason",
    "--resume",
    "--ceiling",
];
/// Flags whose value is not repeated on a screen or in a log.
const SECRET: [&str; 2] = ["--password", "--token"];

/// `argv` for what is left of `rollout`; secrets are blanked.
pub(super) fn go_on(argv: &[String], rollout: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut args = argv.iter();
    while let Some(arg) = args.next() {
        let (flag, value) = arg
            .split_once('=')
            .map_or((arg.as_str(), None), |(flag, value)| (flag, Some(value)));
        if flag == "--all" {
            continue;
        }
        if PLAN.contains(&flag) {
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
    words.extend(["--resume".to_owned(), rollout.to_owned()]);
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
    fn how_to_connect_is_as_it_was_and_the_plan_is_the_rollouts() {
        let argv: Vec<String> = [
            "watchdog",
            "restart",
            "--region",
            "iad",
            "--all",
            "--where=version<2.10",
            "--stagger",
            "5s",
            "--reason",
            "it's time",
            "--server",
            "nats://a;b",
            "--token=geheim",
            "--password",
            "geheim",
            "--yes",
        ]
        .map(str::to_owned)
        .to_vec();
        assert_eq!(
            go_on(&argv, "5f0c2a91"),
            r"watchdog restart --server 'nats://a;b' --token '…' --password '…' --yes --resume 5f0c2a91"
        );
    }
}
