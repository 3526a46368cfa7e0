//! What is shipped and shown works: the example configuration, the TOML of the documents, the commands they name.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use nats_watchdog::config::{Env, Settings};
use nats_watchdog::core::policy::Mode;

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap()
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn load(path: &Path) -> Result<Settings, String> {
    let env = Env {
        variables: BTreeMap::new(),
        hostname: Some("test-1".to_owned()),
    };
    let loaded = Settings::load(Some(path), &env).map_err(|e| e.to_string())?;
    Ok(loaded.settings)
}

fn load_text(text: &str) -> Result<Settings, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("watchdog.toml");
    // Files that a real host has.
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let text = text.replace("/etc/watchdog/password", secret.to_str().unwrap());
    let lines: Vec<&str> = text.lines().filter(|l| !l.contains("/etc/watchdog/")).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    load(&file)
}

#[test]
fn the_example_configuration_is_accepted_once_it_has_a_region_and_touches_nothing() {
    let text = read("systemd/watchdog.toml").replace("CHANGE-ME", "iad");
    let settings = load_text(&text).unwrap();
    assert_eq!(settings.remediation.mode, Mode::Observe);
    assert_eq!(settings.host.to_string(), "test-1");
}

/// Each line that is commented out, taken in: names and values are those of this version.
#[test]
fn the_commented_lines_of_the_example_are_accepted_too() {
    let mut taken = 0;
    let mut text = String::new();
    for line in read("systemd/watchdog.toml").replace("CHANGE-ME", "iad").lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let assigns = bare.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        let is_toml = line != bare && (bare.starts_with('[') || assigns);
        // Its own section needs a key that is valid, and the other way to restart excludes the unit.
        let left_out = ["restart_command", "operators", "lane", "name = \"logs\""];
        if is_toml && !left_out.iter().any(|l| bare.contains(l)) {
            taken += 1;
            text += bare;
        } else {
            text += line;
        }
        text += "\n";
    }
    assert!(taken >= 10, "only {taken} lines were found");
    load_text(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
}

#[test]
fn the_toml_of_the_documents_is_accepted() {
    let mut found = 0;
    for page in ["README.md", "docs/operations.md", "docs/configuration.md"] {
        let text = read(page);
        for block in text.split("```toml\n").skip(1) {
            found += 1;
            let block = block.split("```").next().unwrap();
            let region = if block.contains("region") {
                ""
            } else {
                "[host]\nregion = \"iad\"\n"
            };
            load_text(&format!("{region}{block}")).unwrap_or_else(|e| panic!("{page}: {e}\n{block}"));
        }
    }
    assert!(found >= 3, "only {found} blocks found");
}

/// Every `watchdog COMMAND --flag …` in the documents.
#[test]
fn the_commands_of_the_documents_exist() {
    let mut seen = BTreeSet::new();
    for page in [
        "README.md",
        "docs/operations.md",
        "docs/runbook.md",
        "docs/restart.md",
        "docs/configuration.md",
        "docs/api.md",
    ] {
        for (line, text) in read(page).lines().enumerate() {
            let code = text.split('`').skip(1).step_by(2).chain(text.strip_prefix("$ "));
            for part in code {
                let part = part.split('#').next().unwrap_or_default();
                let mut words = part.split_whitespace();
                if words.next() != Some("watchdog") {
                    continue;
                }
                let command: Vec<&str> = words
                    .clone()
                    .take_while(|w| w.starts_with(|c: char| c.is_ascii_lowercase()))
                    .take(if part.contains("watchdog config ") { 2 } else { 1 })
                    .collect();
                let help = Command::new(env!("CARGO_BIN_EXE_watchdog"))
                    .args(&command)
                    .arg("--help")
                    .output()
                    .unwrap();
                assert!(help.status.success(), "{page}:{}: no command `{part}`", line + 1);
                let help = String::from_utf8(help.stdout).unwrap();
                for flag in words.filter(|w| w.starts_with("--")) {
                    assert!(help.contains(flag), "{page}:{}: no flag {flag} in `{part}`", line + 1);
                }
                seen.insert(command.join(" "));
            }
        }
    }
    assert!(seen.len() >= 5, "{seen:?}");
}

/// Relative links of the documents lead somewhere.
#[test]
fn links_between_documents_lead_somewhere() {
    for page in [
        "README.md",
        "docs/operations.md",
        "docs/runbook.md",
        "docs/restart.md",
        "docs/architecture.md",
        "docs/configuration.md",
        "docs/api.md",
    ] {
        let dir = repository().join(page).parent().unwrap().to_owned();
        for link in read(page).split("](").skip(1) {
            let link = link.split([')', '#']).next().unwrap();
            if !link.is_empty() && !link.contains("://") {
                assert!(dir.join(link).exists(), "{page}: {link}");
            }
        }
    }
}

#[test]
fn the_unit_starts_what_exists() {
    let unit = read("systemd/watchdog.service");
    let exec = unit
        .lines()
        .find_map(|l| l.strip_prefix("ExecStart=/usr/bin/watchdog "))
        .unwrap();
    let words: Vec<&str> = exec.split(' ').collect();
    let help = Command::new(env!("CARGO_BIN_EXE_watchdog"))
        .args([words[0], "--help"])
        .output()
        .unwrap();
    assert!(help.status.success());
    assert!(String::from_utf8(help.stdout).unwrap().contains(words[1]), "{exec}");
}

/// The table of gates in docs/operations.md names each that exists, and none besides.
#[test]
fn the_table_of_gates_is_complete() {
    let source = read("src/core/remedy/gate.rs");
    let names = source
        .split("fn gate(")
        .nth(1)
        .unwrap()
        .split("\n    }\n")
        .next()
        .unwrap();
    let exist: BTreeSet<&str> = names.split('"').skip(1).step_by(2).collect();
    assert!(exist.len() > 10, "{exist:?}");

    let page = read("docs/operations.md");
    let table = page
        .split("\n## Gates\n")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    let first = table.lines().filter_map(|l| l.strip_prefix("| `"));
    let told: BTreeSet<&str> = first
        .flat_map(|l| l.split(" |").next().unwrap().split('`').step_by(2))
        .filter(|n| !n.is_empty())
        .collect();
    assert_eq!(exist, told);
}
