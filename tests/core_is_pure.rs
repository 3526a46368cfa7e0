//! `src/core` decides and does nothing: its source names no runtime, clock, entropy, file, socket, nor any of our
//! modules outside of it. A scan of the text, comments aside; the last test proves that the scan sees what it should.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::path::{Path, PathBuf};

/// Crates that the core may use besides the standard library.
const CRATES: [&str; 5] = ["humantime", "libm", "serde", "serde_json", "thiserror"];
/// And its tests, which are pure too, but that they may compare with a file of the repository (`include_str!`).
const TEST_CRATES: [&str; 2] = ["proptest", "insta"];
/// Parts of the standard library that touch the world. `std::net` is for addresses, which are plain values.
/// The last ones are the C library's, whose last digit depends on the machine: `libm` has them in Rust.
const WORLD: [&str; 24] = [
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::io",
    "std::os",
    "std::time::Instant",
    "Instant::now",
    "SystemTime",
    ".elapsed()",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "ToSocketAddrs",
    "RandomState",
    "std::sync::Mutex",
    "println!",
    "include_str!",
    ".ln()",
    ".exp()",
    ".log10()",
    ".log2()",
    ".powf(",
];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The text without comments, strings and white space; grouped imports are spelled out, as in `std::{fs, io}`.
fn code(source: &str) -> String {
    let mut bare = String::new();
    for line in source.lines() {
        let mut quoted = false;
        let mut last = ' ';
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '"' if last != '\\' && last != '\'' => quoted = !quoted,
                '/' if !quoted && chars.peek() == Some(&'/') => break,
                _ if quoted || c.is_whitespace() => {}
                _ => bare.push(c),
            }
            // A space between words must not join them: `use std` stays two.
            if c.is_whitespace() && !quoted && last.is_alphanumeric() {
                bare.push(' ');
            }
            last = if last == '\\' && c == '\\' { ' ' } else { c };
        }
        bare.push(' ');
    }
    let groups = grouped(&bare);
    bare + &groups
}

/// `use a::{b, c::{d, e}};` as `a::b a::c::d a::c::e`.
fn grouped(code: &str) -> String {
    fn expand(prefix: &str, tree: &str, out: &mut String) {
        let Some((head, rest)) = tree.split_once('{') else {
            for leaf in tree.split(',') {
                out.push_str(&format!(" {prefix}{} ", leaf.trim()));
            }
            return;
        };
        let Some((inside, after)) = balanced(rest) else { return };
        let (leaves, path) = head.rsplit_once(',').unwrap_or(("", head));
        expand(prefix, leaves, out);
        expand(&format!("{prefix}{}", path.trim()), inside, out);
        expand(prefix, after.trim_start_matches(','), out);
    }
    fn balanced(text: &str) -> Option<(&str, &str)> {
        let mut depth = 1;
        for (i, c) in text.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some((&text[..i], &text[i + 1..]));
            }
        }
        None
    }
    let mut out = String::new();
    for statement in code.split(';') {
        if let Some((_, tree)) = statement.rsplit_once("use ") {
            expand("", &tree.replace(' ', ""), &mut out);
        }
    }
    out
}

/// Every `first::` of a path that does not continue one.
fn roots(code: &str) -> Vec<String> {
    let mut roots = Vec::new();
    for (at, _) in code.match_indices("::") {
        let before = &code[..at];
        let word: String = before
            .chars()
            .rev()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let word: String = word.chars().rev().collect();
        let continues = before[..before.len() - word.len()].ends_with("::");
        // `collect::<Vec<_>>` is no path.
        let types = code[at + 2..].starts_with('<');
        if !continues && !types && word.starts_with(|c: char| c.is_lowercase()) {
            roots.push(word);
        }
    }
    roots
}

/// What is wrong with one file of the core. `own` are names of modules of the core, and `extra` crates.
fn impure(source: &str, own: &[String], extra: &[&str]) -> Vec<String> {
    let code = code(source);
    let mut wrong: Vec<String> = WORLD
        .iter()
        .filter(|w| code.contains(*w))
        .map(|w| (*w).to_owned())
        .collect();
    for (at, _) in code.match_indices("crate::") {
        // Groups are judged by what they expand to.
        let rest = &code[at + "crate::".len()..];
        if !["core::", "core ", "{"].iter().any(|ok| rest.starts_with(ok)) {
            let path: String = code[at..].chars().take(30).collect();
            wrong.push(path);
        }
    }
    let known = ["std", "core", "crate", "super", "self"];
    let language = [
        "u8", "u16", "u32", "u64", "u128", "usize", "i32", "i64", "f64", "str", "char", "tests", "prop", "fmt",
    ];
    let std_modules = [
        "time",
        "cmp",
        "mem",
        "collections",
        "iter",
        "clippy",
        "hash",
        "num",
        "any",
        "slice",
        "array",
    ];
    for root in roots(&code) {
        let may = known.contains(&root.as_str())
            || language.contains(&root.as_str())
            || std_modules.contains(&root.as_str())
            || CRATES.contains(&root.as_str())
            || extra.contains(&root.as_str())
            || own.contains(&root);
        if !may {
            wrong.push(format!("{root}::"));
        }
    }
    wrong.sort();
    wrong.dedup();
    wrong
}

/// Names of the core's modules, by which paths may begin.
fn modules(files: &[PathBuf]) -> Vec<String> {
    let stems = files.iter().flat_map(|f| [f.clone(), f.parent().unwrap().to_owned()]);
    stems
        .filter_map(|f| Some(f.file_stem()?.to_str()?.to_owned()))
        .collect()
}

#[test]
fn the_core_touches_nothing() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core");
    let files = sources(&dir);
    assert!(files.len() > 20, "only {} files in {}", files.len(), dir.display());
    let own = modules(&files);
    let mut wrong = Vec::new();
    for file in &files {
        let source = std::fs::read_to_string(file).unwrap();
        let tests = source.contains("#[cfg(test)]") || file.file_stem().unwrap().to_str().unwrap().contains("tests");
        let extra: &[&str] = if tests { &TEST_CRATES } else { &[] };
        for what in impure(&source, &own, extra) {
            if tests && what == "include_str!" {
                continue;
            }
            wrong.push(format!("{}: {what}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "the core is not pure:\n{}", wrong.join("\n"));
}

#[test]
fn what_would_make_it_impure_is_seen() {
    let own = ["canary", "ids"].map(str::to_owned);
    for line in [
        "use tokio::sync::mpsc;",
        "fn f() { tokio::spawn(g()); }",
        "use async_nats::Client;",
        "use prometheus::Counter;",
        "use hyper::body::Bytes;",
        "let x = rand::random::<f64>();",
        "let at = std::time::Instant::now();",
        "use std::time::{Duration, Instant};\nlet x = Instant :: now();",
        "use std::{collections::BTreeMap, time::{Duration, Instant}};",
        "use std::time::{Duration, SystemTime};",
        "use std::{collections::BTreeMap, fs};",
        "use std::fs;",
        "std::fs::read(\"x\");",
        "use std::net::{IpAddr, TcpStream};",
        "use crate::adapters::store;",
        "use crate::{core::ids::Mono, driver};",
        "let d = crate::driver::policy(s);",
        "let x = y.exp();",
        "let s = \"//\"; let at = std::time::Instant::now();",
    ] {
        assert!(!impure(line, &own, &[]).is_empty(), "not seen: {line}");
    }
    for line in [
        "// std::time::Instant::now() is not for the core",
        "//! tokio::spawn",
        "let s = \"tokio::spawn\";",
        "use std::net::IpAddr;",
        "use std::{collections::BTreeMap, fmt::{self, Write as _}, time::Duration};",
        "use crate::core::{canary::path::Path, ids::Mono};",
        "use crate::{core::ids::Mono};",
        "let x = canary::path::new(Duration::from_secs(1));",
    ] {
        assert_eq!(impure(line, &own, &[]), Vec::<String>::new(), "wrongly seen: {line}");
    }
}

/// The simulator rests on the core alone and is as pure, so that a seed is one run on every machine.
#[test]
fn the_simulator_touches_nothing_either() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sim");
    let files = sources(&dir);
    assert!(files.len() > 15, "only {} files in {}", files.len(), dir.display());
    let mut wrong = Vec::new();
    for file in &files {
        let source = std::fs::read_to_string(file).unwrap();
        let code = code(&source);
        for what in WORLD.iter().chain(&[
            "tokio",
            "rand::",
            "HashMap",
            "HashSet",
            "adapters::",
            "driver::",
            "cli::",
        ]) {
            if code.contains(what) {
                wrong.push(format!("{}: {what}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "the simulator is not pure:\n{}", wrong.join("\n"));
}
