use super::*;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A task that notes in `stopped` that it was asked to stop.
fn waits(name: &'static str, stopped: &Arc<Mutex<Vec<&'static str>>>) -> Task {
    let stopped = stopped.clone();
    Task::new(name, move |token| {
        let stopped = stopped.clone();
        async move {
            token.cancelled().await;
            stopped.lock().push(name);
            Ok(())
        }
    })
}

fn fails(name: &'static str, lives: &Arc<AtomicUsize>) -> Task {
    let lives = lives.clone();
    Task::new(name, move |_| {
        let life = lives.fetch_add(1, Ordering::SeqCst);
        async move { if name == "panics" { panic!("life {life}") } else { Err("no luck".into()) } }
    })
}

#[tokio::test(start_paused = true)]
async fn a_failing_task_must_not_take_its_neighbours_down() {
    let (supervisor, shutdown) = (Supervisor::default(), CancellationToken::new());
    let (lives, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let tasks = vec![
        waits("first", &stopped),
        fails("panics", &lives),
        fails("errors", &lives),
        waits("second", &stopped),
    ];
    let stop = async {
        while lives.load(Ordering::SeqCst) < 8 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let report = supervisor.report("panics").unwrap();
        assert!(report.panics >= 2 && report.restarts >= 1, "{report:?}");
        assert!(report.last.unwrap().starts_with("panicked: life "));
        assert_eq!(supervisor.report("errors").unwrap().panics, 0);
        assert!(supervisor.report("first").unwrap().down.is_none());
        shutdown.cancel();
    };
    tokio::join!(supervisor.run(tasks, &shutdown), stop);
    assert_eq!(*stopped.lock(), ["first", "second"]);
    assert!(supervisor.reports().is_empty(), "what has ended is not kept");
}

#[tokio::test(start_paused = true)]
async fn an_injected_panic_is_named_while_it_lasts_and_over_within_a_second() {
    let (supervisor, shutdown) = (Supervisor::default(), CancellationToken::new());
    let stopped = Arc::default();
    let tasks = vec![waits("a", &stopped), waits("b", &stopped)];
    let test = async {
        tokio::task::yield_now().await;
        assert!(supervisor.inject_panic("b") && !supervisor.inject_panic("c"));
        tokio::time::sleep(Duration::from_millis(1)).await;
        let down = supervisor.down();
        assert_eq!(down.iter().map(|r| &*r.name).collect::<Vec<_>>(), ["b"]);
        assert_eq!(&*down[0].down.as_ref().unwrap().reason, "panicked: injected");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(supervisor.down().is_empty());
        let report = supervisor.report("b").unwrap();
        assert_eq!((report.running, report.restarts, report.panics), (1, 1, 1));
        shutdown.cancel();
    };
    tokio::join!(supervisor.run(tasks, &shutdown), test);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_does_not_stop_must_not_hold_the_shutdown_for_ever() {
    let (supervisor, shutdown) = (Supervisor::default(), CancellationToken::new());
    shutdown.cancel();
    let stuck = Task::new("stuck", |_| std::future::pending());
    let run = async {
        let running = supervisor.run(vec![stuck], &shutdown);
        tokio::join!(running, tokio::task::yield_now());
    };
    tokio::time::timeout(STOP_PATIENCE * 2, run).await.unwrap();
}
