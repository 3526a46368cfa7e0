use std::process::{Command, Output};

use serde_json::{Value, json};

use super::*;

fn acts(n: usize) -> Value {
    json!(vec![
        json!({"action": "reset", "at_wall": 1, "reason": "stalled route", "outcome": "healed"});
        n
    ])
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Runs the test `name` of this file once more in a process of its own, which finds `dir` in its environment.
fn again(through: &[&str], name: &str, dir: &Path) -> Output {
    let exe = std::env::current_exe().unwrap();
    let mut command = match through {
        [] => Command::new(&exe),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(&exe);
            command
        }
    };
    let name = format!("{}::{name}", module_path!().split_once("::").unwrap().1);
    command
        .args([name.as_str(), "--exact", "--nocapture"])
        .env(AGAIN, dir)
        .output()
        .unwrap()
}

const AGAIN: &str = "WATCHDOG_TEST_STATE_DIR";

fn inner_dir() -> Option<PathBuf> {
    std::env::var_os(AGAIN).map(PathBuf::from)
}

#[test]
fn what_was_written_is_read_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("a/b");
    let state = StateDir::open(&dir).unwrap();
    assert_eq!(state.read_json::<Value>(LEDGER).unwrap(), None);
    state.write_json(LEDGER, &acts(1)).unwrap();
    state.write_json(LEDGER, &acts(2)).unwrap();
    drop(state);
    let state = StateDir::open(&dir).unwrap();
    assert_eq!(state.read_json::<Value>(LEDGER).unwrap(), Some(acts(2)));
    assert_eq!(names(&dir), [LEDGER, LOCK]);
}

#[test]
fn a_crash_between_write_and_rename_leaves_the_old_file() {
    if let Some(dir) = inner_dir() {
        let state = StateDir::open(&dir).unwrap();
        state.write_json(LEDGER, &acts(1)).unwrap();
        let _staged = state.stage(acts(2).to_string().as_bytes()).unwrap();
        std::process::abort();
    }
    let dir = tempfile::tempdir().unwrap();
    let child = again(&[], "a_crash_between_write_and_rename_leaves_the_old_file", dir.path());
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&child.status),
        Some(6),
        "{child:?}"
    );
    assert!(
        names(dir.path()).iter().any(|n| n.starts_with(STAGED)),
        "it did crash in between"
    );
    let state = StateDir::open(dir.path()).unwrap();
    assert_eq!(state.read_json::<Value>(LEDGER).unwrap(), Some(acts(1)));
    assert_eq!(names(dir.path()), [LEDGER, LOCK], "and nothing is left lying about");
}

#[test]
fn a_damaged_file_is_moved_aside_and_never_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    for round in 1..=3 {
        state.write_json(ROSTER, &acts(3)).unwrap();
        let whole = fs::read(state.path(ROSTER)).unwrap();
        let half = &whole[..whole.len() / 2];
        let file = File::create(state.path(ROSTER)).unwrap();
        (&file).write_all(half).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000))
            .unwrap();
        let error = state.read_json::<Value>(ROSTER).unwrap_err();
        let StateError::Corrupt { kept_as, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(fs::read(kept_as).unwrap(), half);
        assert!(
            kept_as.to_str().unwrap().contains("roster.json.corrupt-1700000000"),
            "{error}"
        );
        assert!(error.to_string().contains("kept as"), "{error}");
        assert_eq!(state.read_json::<Value>(ROSTER).unwrap(), None);
        assert_eq!(names(dir.path()).len(), 1 + round, "every damaged one is kept");
    }
}

#[test]
fn a_damaged_ledger_is_still_damaged_for_a_process_that_comes_before_the_next_write() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..3 {
        let state = StateDir::open(dir.path()).unwrap();
        if n == 0 {
            fs::write(state.path(LEDGER), "{\"full_at").unwrap();
        }
        let error = state.read_vital_json::<Value>(LEDGER).unwrap_err();
        assert!(matches!(error, StateError::Corrupt { .. }), "{error}");
        assert_eq!(names(dir.path()).len(), 3, "kept once: {:?}", names(dir.path()));
        // It dies here.
    }
    let state = StateDir::open(dir.path()).unwrap();
    state.write_json(LEDGER, &acts(1)).unwrap();
    assert_eq!(state.read_vital_json::<Value>(LEDGER).unwrap(), Some(acts(1)));
    let kept = names(dir.path())
        .into_iter()
        .find(|n| n.starts_with("ledger.json.corrupt-"));
    assert_eq!(fs::read(dir.path().join(kept.unwrap())).unwrap(), b"{\"full_at");
}

#[test]
fn a_file_of_another_shape_is_damaged_too() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    for bytes in [&b""[..], b"\0\0\0\0", b"{\"a\":1}"] {
        fs::write(state.path(ROSTER), bytes).unwrap();
        let read = state.read_json::<Vec<String>>(ROSTER);
        assert!(matches!(read, Err(StateError::Corrupt { .. })), "{read:?}");
    }
}

#[test]
fn two_agents_cannot_have_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    let first = StateDir::open(dir.path()).unwrap();
    let error = StateDir::open(dir.path()).unwrap_err();
    let pid = std::process::id();
    assert!(
        matches!(error, StateError::Locked { holder: Some(p), .. } if p == pid),
        "{error}"
    );
    assert!(error.to_string().contains("in use by another agent"), "{error}");
    drop(first);
    StateDir::open(dir.path()).unwrap();
}

#[test]
fn a_killed_agent_leaves_no_lock() {
    if let Some(dir) = inner_dir() {
        let _held = StateDir::open(&dir).unwrap();
        std::process::abort();
    }
    let dir = tempfile::tempdir().unwrap();
    let child = again(&[], "a_killed_agent_leaves_no_lock", dir.path());
    assert!(!child.status.success() && dir.path().join(LOCK).exists(), "{child:?}");
    StateDir::open(dir.path()).unwrap();
}

#[test]
fn a_directory_that_is_a_file_is_refused_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = StateDir::open(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert!(error.contains("has to be a directory"), "{error}");
    }
}

/// In a mount namespace of its own, so that nothing stays mounted whatever happens.
fn on_a_small_disk(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mount = format!(
        "mount -t tmpfs -o size=64k none '{}' && exec \"$@\"",
        dir.path().display()
    );
    let through = ["unshare", "--mount", "sh", "-c", &mount, "sh"];
    match Command::new("unshare").args(["--mount", "true"]).output() {
        Ok(probe) if probe.status.success() => {}
        other => {
            eprintln!("skipped {name}: mounting needs root and unshare ({other:?})");
            return;
        }
    }
    let child = again(&through, name, dir.path());
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && text.contains("1 passed"), "{child:?}");
}

#[test]
fn a_full_disk_keeps_the_old_file_and_says_what_to_do() {
    let Some(dir) = inner_dir() else {
        on_a_small_disk("a_full_disk_keeps_the_old_file_and_says_what_to_do");
        return;
    };
    let state = StateDir::open(&dir).unwrap();
    state.write_json(LEDGER, &acts(1)).unwrap();
    state.append_history(&"first").unwrap();
    let error = state.write_json(LEDGER, &acts(2000)).unwrap_err().to_string();
    assert!(error.contains("ledger.json") && error.contains("free space"), "{error}");
    assert_eq!(state.read_json::<Value>(LEDGER).unwrap(), Some(acts(1)));
    let error = state.append_history(&"x".repeat(100_000)).unwrap_err().to_string();
    assert!(
        error.contains("history.jsonl") && error.contains("free space"),
        "{error}"
    );
    assert_eq!(names(&dir), ["history.jsonl", LEDGER, LOCK], "the staged file is gone");
    // What fitted of the long line fills the disk; space comes back, and so does the history.
    let history = OpenOptions::new()
        .write(true)
        .open(state.path("history.jsonl"))
        .unwrap();
    history.set_len(20).unwrap();
    state.append_history(&"third").unwrap();
    assert_eq!(state.read_history::<String>(9).unwrap(), ["first", "third"]);
}

#[test]
fn a_read_only_disk_is_refused_at_start() {
    let Some(dir) = inner_dir() else {
        on_a_small_disk("a_read_only_disk_is_refused_at_start");
        return;
    };
    drop(StateDir::open(&dir).unwrap());
    let remount = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(&dir)
        .status()
        .unwrap();
    assert!(remount.success());
    let error = StateDir::open(&dir).unwrap_err().to_string();
    assert!(error.contains("read-write"), "{error}");
}

#[test]
fn another_users_directory_is_refused_at_start() {
    use std::os::unix::fs::PermissionsExt;
    let Some(dir) = inner_dir() else {
        let dir = tempfile::tempdir().unwrap();
        let name = "another_users_directory_is_refused_at_start";
        let Ok(exe) = std::env::current_exe().and_then(fs::read) else {
            return;
        };
        // The test's own binary may lie where the other user cannot go.
        let copy = dir.path().join("test");
        fs::write(&copy, exe).unwrap();
        for path in [dir.path(), &copy] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let run = format!("exec setpriv --reuid 65534 --clear-groups '{}' \"$@\"", copy.display());
        let through = ["sh", "-c", &run];
        let probe = Command::new("setpriv")
            .args(["--reuid", "65534", "--clear-groups", "true"])
            .output();
        if !probe.is_ok_and(|p| p.status.success()) {
            eprintln!("skipped {name}: changing the user needs root and setpriv");
            return;
        }
        let child = again(&through, name, &dir.path().join("state"));
        let text = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && text.contains("1 passed"), "{child:?}");
        return;
    };
    let error = StateDir::open(&dir).unwrap_err().to_string();
    assert!(error.contains("StateDirectory="), "{error}");
}
