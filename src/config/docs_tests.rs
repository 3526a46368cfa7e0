//! `docs/configuration.md` says what the table of keys says. `BLESS=1 cargo test` writes its table anew.

use std::fmt::Write as _;
use std::path::Path;

use super::keys::{self, KEYS, Key, Kind, NOT_YET};

const BEGIN: &str = "<!-- keys: from src/config/key_table.rs, written by BLESS=1 cargo test -->\n";
const END: &str = "<!-- end of keys -->\n";

fn wants(key: &Key) -> String {
    let span = |d| humantime::format_duration(d).to_string();
    match key.kind {
        Kind::Text => "text".into(),
        Kind::Name => "letters, digits, `-`, `_`".into(),
        Kind::Path => "file".into(),
        Kind::Secret => "text, never shown".into(),
        Kind::Duration(least, most) => format!("duration, {} to {}", span(least), span(most)),
        Kind::Count(least, most) => format!("number, {least} to {most}"),
        Kind::Fraction => "number, 0 to 1".into(),
        Kind::Flag => "`true` or `false`".into(),
        Kind::OneOf(words) => words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "),
        Kind::List => "list of texts".into(),
        Kind::Argv => "list: program, arguments".into(),
        Kind::Hosts => "table: region to list of hosts".into(),
        Kind::Listen => "address:port".into(),
    }
}

fn table() -> String {
    let mut text = String::new();
    let mut section = "";
    for key in KEYS {
        let own = key.name.split_once('.').map_or("", |(section, _)| section);
        if own != section || text.is_empty() {
            section = own;
            let title = match section {
                "" => "Top level".to_owned(),
                "hooks" => "`[hooks.NAME]`, one for each hook".into(),
                "lane" => "`[[lane]]`, which also takes every key of `[nats]`".into(),
                "system" => "`[system]`, which also takes every key of `[nats]`".into(),
                section => format!("`[{section}]`"),
            };
            let _ = write!(
                text,
                "\n### {title}\n\n| key | default | value | meaning |\n|---|---|---|---|\n"
            );
        }
        let short = key.name.split_once('.').map_or(key.name, |(_, short)| short);
        let short = short.strip_prefix("NAME.").unwrap_or(short);
        let default = key.default.map_or(key.unset.to_owned(), |text| format!("`{text}`"));
        let _ = writeln!(
            text,
            "| `{short}` | {default} | {}, like `{}` | {} |",
            wants(key),
            key.example,
            key.help
        );
    }
    text.push('\n');
    text
}

#[test]
fn the_documentation_has_every_key_with_its_default_and_meaning() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the marker where keys begin");
    let (written, after) = rest.split_once(END).expect("the marker where keys end");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", table())).unwrap();
        return;
    }
    assert_eq!(written, table(), "run BLESS=1 cargo test to write it anew");
    for section in NOT_YET {
        assert!(text.contains(&format!("`[{section}]`")), "{section}");
    }
}

#[test]
fn the_documentations_example_is_a_good_configuration() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(path).unwrap();
    let example = text
        .split_once("```toml\n")
        .and_then(|(_, rest)| rest.split_once("```"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("watchdog.toml");
    std::fs::write(&file, example.unwrap().0).unwrap();
    let env = super::Env {
        hostname: Some("iad-1".into()),
        ..super::Env::default()
    };
    let loaded = super::Settings::load(Some(&file), &env);
    assert_eq!(loaded.err().map(|e| e.to_string()), None);
}

#[test]
fn every_variable_in_the_documentation_exists() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(path).unwrap();
    let variables: Vec<_> = KEYS.iter().filter_map(keys::variable).collect();
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    for word in words.filter(|word| word.starts_with("WATCHDOG_") && !word.ends_with('_')) {
        let known = variables.iter().any(|v| v == word);
        let other = ["WATCHDOG_CONFIG", "WATCHDOG_AGENT", "WATCHDOG_USEC", "WATCHDOG_PID"];
        assert!(known || other.contains(&word), "{word}");
    }
}
