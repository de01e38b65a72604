use super::*;
use crate::audit::Level;
use crate::metrics::Metrics;

fn lines(path: PathBuf) -> Lines {
    let (supervisor, counters) = (Supervisor::default(), Arc::new(Counters::new(&Metrics::default())));
    let file = LogFile::create(&path, Rotation::default()).unwrap();
    let writer = Arc::new(Writer {
        format: Format::Json,
        output: Output::File(path, Rotation::default()),
        file: Arc::new(tokio::sync::Mutex::new(Some(file))),
        tidied: Arc::default(),
        tidying: Work::new(&supervisor, "files"),
        counters,
    });
    Lines { writer, writing: Work::new(&supervisor, "log") }
}

fn event(id: usize) -> Arc<Event> {
    Arc::new(Event::new(Level::Metadata, id.to_string(), Timestamp::UNIX_EPOCH))
}

#[tokio::test]
async fn a_log_that_hangs_must_not_take_the_threads_of_others_nor_lose_who_hung_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let lines = lines(path.clone());
    let hanging = lines.writer.file.clone().lock_owned().await;
    // More than a runtime has threads that may block.
    for id in 0..600 {
        // The client hangs up: nobody hears the answer.
        drop(lines.process(vec![event(id)]));
    }
    // A turn of the runtime polls some sixty tasks.
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    let other = tokio::task::spawn_blocking(|| "done");
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), other).await.unwrap().unwrap(), "done");
    drop(hanging);
    lines.finish(Duration::from_secs(60)).await;
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 600);
}

#[tokio::test]
async fn a_line_that_is_not_written_must_not_be_called_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let lines = lines(path);
    assert!(!lines.process(vec![event(1)]).await);
}
