//! `kill -9` at random moments: what was acknowledged is there, once, at its revision.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail by panic")]
#![allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]

use bytes::Bytes;
use futures::StreamExt;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use store::embedded::{Options, Store};
use store::{Backend, Event, Expect};

const PATH: &str = "STORE_KILL_TEST_FILE";
const ROUND: &str = "STORE_KILL_TEST_ROUND";
const WRITERS: usize = 8;

/// The victim: only runs when the other test starts it in a process of its own.
#[test]
fn victim() {
    let (Ok(path), Ok(round)) = (std::env::var(PATH), std::env::var(ROUND)) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = std::sync::Arc::new(Store::open(path, options()).unwrap());
        let mut tasks = Vec::new();
        for writer in 0..WRITERS {
            let (store, round) = (store.clone(), round.clone());
            tasks.push(tokio::spawn(async move {
                let own = format!("/w/{writer}");
                let mut at = store.get(&own).await.unwrap().map(|e| e.mod_revision);
                for n in 0.. {
                    // One key is rewritten again and again, one is new each time.
                    let value = Bytes::from(format!("{round}.{n}"));
                    let expect = at.map_or(Expect::Absent, Expect::At);
                    let entry = store.put(&own, value.clone(), expect, None).await.unwrap();
                    at = Some(entry.mod_revision);
                    say(&own, entry.mod_revision, &value);
                    let fresh = format!("/f/{round}/{writer}/{n}");
                    let entry = store.put(&fresh, value.clone(), Expect::Absent, None).await.unwrap();
                    say(&fresh, entry.mod_revision, &value);
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}

fn say(key: &str, revision: u64, value: &Bytes) {
    let line = format!("\nack {key} {revision} {}\n", String::from_utf8_lossy(value));
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

fn options() -> Options {
    Options { cache_bytes: 1 << 20, ..Options::default() }
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let mut acked = BTreeMap::new();
    let mut last = 0;
    for round in 0..12 {
        let acks = 1 + (RandomState::new().hash_one(round) % 300) as usize;
        acked.extend(run_and_kill(&path, round, acks));
        last = check(&path, &acked, last);
    }
    println!("{} acknowledged writes over 12 kills, {last} revisions", acked.len());
}

/// Starts the victim, kills it after `acks` acknowledgements, and gives all it acknowledged until it was dead.
fn run_and_kill(path: &Path, round: usize, acks: usize) -> Vec<(u64, (String, String))> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(PATH, path)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut found = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let words: Vec<_> = line.split(' ').collect();
        let ["ack", key, revision, value] = words[..] else { continue };
        // The kill may cut the last line short.
        let Ok(revision) = revision.parse() else { continue };
        found.push((revision, (key.to_owned(), value.to_owned())));
        if found.len() == acks {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(found.len() >= acks, "the victim died by itself");
    // What was written to the pipe before death counts too, but for a torn last line.
    found.truncate(found.len().max(acks + 1) - 1);
    found
}

/// Replays the whole history and compares; gives the newest revision.
fn check(path: &Path, acked: &BTreeMap<u64, (String, String)>, last: u64) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(path, options()).unwrap();
        let newest = store.revision();
        assert!(newest >= last && newest >= *acked.keys().last().unwrap(), "a revision was taken back");
        let mut watch = store.watch("/", 0).unwrap();
        let mut written: HashMap<String, u64> = HashMap::new();
        for revision in 1..=newest {
            let Event::Put { entry, prev } = watch.next().await.unwrap().unwrap() else {
                panic!("nobody deletes")
            };
            assert_eq!(entry.mod_revision, revision, "a revision is missing or there twice");
            assert_eq!(prev.map(|p| p.mod_revision), written.insert(entry.key.to_string(), revision));
            if let Some((key, value)) = acked.get(&revision) {
                assert_eq!(
                    (&*entry.key, &*entry.value),
                    (key.as_str(), value.as_bytes()),
                    "revision {revision}"
                );
            }
        }
        newest
    })
}
