//! A disk that fills up, and has room again: writes fail, reads go on, and nobody has to restart anything. The full disk is a
//! limit on the file's size (RLIMIT_FSIZE) on a process of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail by panic")]

use bytes::Bytes;
use std::process::Command;
use std::time::{Duration, Instant};
use store::embedded::{Options, Store};
use store::{Backend, Expect};

const FOLDER: &str = "STORE_FULL_TEST_FOLDER";

/// Only runs when the other test starts it under its limit.
#[tokio::test]
async fn limited() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let store = Store::open(format!("{folder}/store"), Options::default()).unwrap();
    let put = |n: usize| {
        let store = &store;
        async move { store.put(&format!("/k/{n}"), Bytes::from(vec![1; 100_000]), Expect::Absent, None).await }
    };
    let mut kept = 0;
    while put(kept).await.is_ok() {
        kept += 1;
        assert!(kept < 1000, "the limit does not hold");
    }
    assert_eq!(store.revision(), kept as u64);
    assert!(store.get("/k/0").await.unwrap().is_some(), "reads go on");
    assert!(put(kept).await.is_err());
    let pid = std::process::id().to_string();
    assert!(Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:"]).status().unwrap().success());
    let give_up = Instant::now() + Duration::from_secs(10);
    while put(kept).await.is_err() {
        assert!(Instant::now() < give_up, "the store does not recover");
    }
    let page = store.list("/k/", None, 0, None).await.unwrap();
    assert_eq!(page.entries.len(), kept + 1, "what was refused is not there, what was acknowledged is");
    assert_eq!(store.revision(), kept as u64 + 1);
    println!("recovered after {kept} writes");
}

#[test]
fn a_full_disk_is_survived() {
    if Command::new("prlimit").arg("--version").output().is_err() {
        println!("skipped: no prlimit on this machine");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Without the signal a write past the limit fails as on a full disk.
    let limited = "trap '' XFSZ; ulimit -S -f 8192; exec \"$0\" --exact limited --nocapture";
    let out = Command::new("sh")
        .args(["-c", limited])
        .arg(std::env::current_exe().unwrap())
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && text.contains("recovered after"),
        "{text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
}
