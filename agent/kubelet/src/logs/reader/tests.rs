use super::*;
use proptest::prelude::*;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[derive(Clone, Default)]
struct Flag(Arc<AtomicBool>);

impl Writer for Flag {
    async fn running(&self) -> Result<bool, String> {
        Ok(self.0.load(Ordering::SeqCst))
    }
}

async fn read_all(mut reader: Reader<Flag>) -> String {
    let mut all = Vec::new();
    while let Some(chunk) = reader.chunk().await.unwrap() {
        all.extend(chunk);
    }
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn a_missing_log_and_a_strange_one_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    let error = Reader::open(&path, &Options::default(), Flag::default()).await.err().unwrap();
    let want = format!(
        "failed to try resolving symlinks in path {path:?}: lstat {}: no such file or directory",
        path.display()
    );
    assert_eq!(error.to_string(), want);
    std::fs::write(&path, "hello\n").unwrap();
    let mut reader = Reader::open(&path, &Options::default(), Flag::default()).await.unwrap();
    assert_eq!(reader.chunk().await.unwrap_err().to_string(), "unsupported log format: \"hello\"");
}

#[tokio::test]
async fn the_tail_is_read_without_following() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    let lines: String = (0..1000).map(|n| format!("2026-01-01T00:00:00Z stdout F {n}\n")).collect();
    std::fs::write(&path, lines).unwrap();
    let options = Options { tail: Some(2), ..Options::default() };
    assert_eq!(read_all(Reader::open(&path, &options, Flag::default()).await.unwrap()).await, "998\n999\n");
}

#[derive(Clone, Debug)]
enum Step {
    Write { length: usize, partial: bool, cut: bool },
    Rotate,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = (0usize..12_000, any::<bool>(), any::<bool>())
        .prop_map(|(length, partial, cut)| Step::Write { length, partial, cut });
    proptest::collection::vec(prop_oneof![6 => write, 1 => Just(Step::Rotate)], 1..30)
}

/// A writer as a runtime is one: it may write a line in two goes, and rotates by renaming. Two rotations between two
/// looks of a reader would lose it the file between: the kubelet's own are seconds apart, and here a file is not rotated
/// away before it was seen.
fn write(path: &Path, steps: &[Step], seen: &AtomicUsize) -> String {
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    let (mut wrote, mut before) = (String::new(), 0);
    for (index, step) in steps.iter().enumerate() {
        match step {
            Step::Rotate => {
                while wrote.len() > before && seen.load(Ordering::SeqCst) <= before {
                    std::thread::yield_now();
                }
                before = wrote.len();
                std::fs::rename(path, path.with_extension(format!("log.{index}"))).unwrap();
                file = File::create(path).unwrap();
            }
            Step::Write { length, partial, cut } => {
                let letter = char::from(b'a' + u8::try_from(index % 26).unwrap());
                let content: String = std::iter::repeat_n(letter, *length).collect();
                let tag = if *partial { "P" } else { "F" };
                let line = format!("2026-01-01T00:00:00.000000001Z stdout {tag} {content}\n");
                let (head, tail) = line.split_at(if *cut { line.len() / 2 } else { 0 });
                file.write_all(head.as_bytes()).unwrap();
                file.write_all(tail.as_bytes()).unwrap();
                wrote.push_str(&content);
                if !partial {
                    wrote.push('\n');
                }
            }
        }
    }
    wrote
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever is written while somebody follows, and however the file rotates, they see it once and in order.
    #[test]
    fn a_follower_misses_nothing(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (saw, wrote) = runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("0.log");
            File::create(&path).unwrap();
            let running = Flag(Arc::new(AtomicBool::new(true)));
            let options = Options { follow: true, ..Options::default() };
            let mut reader = Reader::open(&path, &options, running.clone()).await.unwrap();
            reader.silence = Duration::from_millis(20);
            let seen = Arc::new(AtomicUsize::new(0));
            let count = seen.clone();
            let follower = tokio::spawn(async move {
                let mut all = Vec::new();
                while let Some(chunk) = reader.chunk().await.unwrap() {
                    all.extend(chunk);
                    count.store(all.len(), Ordering::SeqCst);
                }
                String::from_utf8(all).unwrap()
            });
            let wrote = tokio::task::spawn_blocking(move || write(&path, &steps, &seen)).await.unwrap();
            running.0.store(false, Ordering::SeqCst);
            (follower.await.unwrap(), wrote)
        });
        prop_assert_eq!(saw.len(), wrote.len());
        prop_assert!(saw == wrote);
    }
}
