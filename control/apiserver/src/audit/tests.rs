//! Backends: what they do with events that come at once, too fast, or when nobody takes them.

use super::fake::{Fake, delivery};
use super::*;
use jiff::Timestamp;
use serde_json::{Value, json};

fn everything() -> Value {
    json!([{"level": "Metadata"}])
}

fn event(id: &str) -> Arc<Event> {
    Arc::new(Event::new(Level::Metadata, id.to_owned(), Timestamp::UNIX_EPOCH))
}

fn ids(list: &[Value]) -> Vec<&str> {
    list.iter().map(|event| event["auditID"].as_str().unwrap()).collect()
}

/// The value of a counter.
fn count(metrics: &Metrics, series: &str) -> u64 {
    let text = metrics.render();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

const LOST: &str = r#"apiserver_audit_error_total{plugin="buffered"}"#;

#[tokio::test(start_paused = true)]
async fn a_batch_goes_when_it_is_full_or_has_waited() {
    let (fake, metrics) = (Fake::refusing(0), Metrics::default());
    let auditor = fake.auditor(&everything(), delivery(Mode::Batch), &metrics);
    for id in ["1", "2", "3"] {
        assert!(auditor.send(event(id)).await);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fake.lists().len(), 1);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let lists = fake.lists();
    assert_eq!(lists.iter().map(|list| ids(list)).collect::<Vec<_>>(), [vec!["1", "2"], vec!["3"]]);
    assert_eq!(count(&metrics, "apiserver_audit_event_total"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_must_lose_events_and_hold_up_nobody() {
    let (fake, metrics) = (Fake::refusing(usize::MAX), Metrics::default());
    let auditor = fake.auditor(&everything(), delivery(Mode::Batch), &metrics);
    for _ in 0..20 {
        assert!(auditor.send(event("x")).await);
    }
    // Four fit; the worker may have taken a batch out in between.
    let lost = count(&metrics, LOST);
    assert!((14..=16).contains(&lost), "{lost}");
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_written_when_the_server_stops() {
    let (fake, metrics) = (Fake::refusing(0), Metrics::default());
    let auditor = fake.auditor(&everything(), delivery(Mode::Batch), &metrics);
    for id in ["1", "2", "3"] {
        auditor.send(event(id)).await;
    }
    let begun = tokio::time::Instant::now();
    auditor.finish(Duration::from_secs(5)).await;
    assert_eq!(fake.events().len(), 3);
    assert!(begun.elapsed() < Duration::from_secs(1));
    auditor.send(event("late")).await;
    assert_eq!(count(&metrics, LOST), 1);
}

#[tokio::test(start_paused = true)]
async fn batches_are_no_more_than_the_throttle_lets() {
    let (fake, metrics) = (Fake::refusing(0), Metrics::default());
    let mut throttled = delivery(Mode::Batch);
    throttled.batches =
        Batches { buffer: 100, size: 1, throttle: Some((2.0, 3)), overlapping: true, ..throttled.batches };
    let auditor = fake.auditor(&everything(), throttled, &metrics);
    for _ in 0..6 {
        auditor.send(event("x")).await;
    }
    let begun = tokio::time::Instant::now();
    fake.until(6).await;
    // Three at once, then one each half second.
    let took = begun.elapsed();
    assert!((Duration::from_millis(1400)..Duration::from_millis(1700)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_refuses_is_asked_again_with_longer_pauses_and_then_no_more() {
    for (refusals, taken, lost) in [(4, 1, 0), (5, 0, 1)] {
        let (fake, metrics) = (Fake::refusing(refusals), Metrics::default());
        let auditor = fake.auditor(&everything(), delivery(Mode::Blocking), &metrics);
        let begun = tokio::time::Instant::now();
        // Whatever becomes of it: the request goes on.
        assert!(auditor.send(event("x")).await);
        assert_eq!(fake.events().len(), taken);
        assert_eq!(count(&metrics, r#"apiserver_audit_error_total{plugin="webhook"}"#), lost);
        // 1 + 1.5 + 2.25 + 3.375 seconds, each a tenth more or less.
        let took = begun.elapsed();
        assert!((Duration::from_secs(7)..Duration::from_secs(9)).contains(&took), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_strict_backend_refuses_for_a_lost_event() {
    for (mode, kept) in [(Mode::BlockingStrict, false), (Mode::Blocking, true), (Mode::Batch, true)] {
        let fake = Fake::refusing(usize::MAX);
        let auditor = fake.auditor(&everything(), delivery(mode), &Metrics::default());
        assert_eq!(auditor.send(event("x")).await, kept, "{mode:?}");
    }
}

#[tokio::test]
async fn a_log_holds_a_line_an_event_in_its_format() {
    let dir = tempfile::tempdir().unwrap();
    let policy =
        || Policy::parse("{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}").unwrap();
    for (format, mode) in [(Format::Json, Mode::Blocking), (Format::Legacy, Mode::Batch)] {
        let path = dir.path().join(format!("{format:?}.log"));
        let log =
            Log { output: Output::File(path.clone(), Rotation::default()), format, delivery: delivery(mode) };
        let config = Config { policy: policy(), log: Some(log), webhook: None };
        let auditor = Auditor::start(config, &Supervisor::default(), &Metrics::default()).unwrap().unwrap();
        for id in ["1", "2\n"] {
            assert!(auditor.send(event(id)).await);
        }
        auditor.finish(Duration::from_secs(5)).await;
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        match format {
            Format::Json => {
                let read: Value = serde_json::from_str(lines[1]).unwrap();
                assert_eq!(read["auditID"], "2\n");
            }
            Format::Legacy => assert!(lines[1].contains(r#" AUDIT: id="2\n" stage="RequestReceived""#)),
        }
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_written_to_must_not_go_unnoticed() {
    let dir = tempfile::tempdir().unwrap();
    let output =
        Output::File(dir.path().join("audit.log"), Rotation { size: Some(10), ..Rotation::default() });
    let log = Log { output, format: Format::Json, delivery: delivery(Mode::BlockingStrict) };
    let policy =
        Policy::parse("{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}").unwrap();
    let metrics = Metrics::default();
    let config = Config { policy, log: Some(log), webhook: None };
    let auditor = Auditor::start(config, &Supervisor::default(), &metrics).unwrap().unwrap();
    assert!(!auditor.send(event("longer than ten bytes")).await);
    assert_eq!(count(&metrics, r#"apiserver_audit_error_total{plugin="log"}"#), 1);
}

#[tokio::test]
async fn a_log_that_cannot_be_made_refuses_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "").unwrap();
    let output = Output::File(path.join("audit.log"), Rotation::default());
    let log = Log { output, format: Format::Json, delivery: delivery(Mode::Blocking) };
    assert!(log.ensure().is_err());
}
