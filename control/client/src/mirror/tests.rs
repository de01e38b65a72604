use super::*;
use crate::fake::Fake;
use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::{Value, json};

fn object(name: &str, uid: &str, version: u32) -> Value {
    json!({"metadata": {"name": name, "namespace": "n", "uid": uid, "resourceVersion": version.to_string()}})
}

fn nonsense(name: &str, uid: &str, version: u32) -> Value {
    let mut pod = object(name, uid, version);
    pod["spec"] = json!({"containers": [{"name": 7}]});
    pod
}

/// The next event in words; failures are left out.
async fn next(events: &mut BoxStream<'static, Event<Pod>>) -> String {
    loop {
        let event = tokio::time::timeout(std::time::Duration::from_secs(600), events.next()).await;
        return match event.unwrap().unwrap() {
            Event::Set(key, pod) => format!("set {key} {}", pod.metadata.uid.unwrap()),
            Event::Gone(identity) => format!("gone {} {}", identity.key, identity.uid),
            Event::Unreadable(of) => format!("unreadable {}", of.key),
            Event::Synced => "synced".to_owned(),
            Event::Failed(_) => continue,
        };
    }
}

async fn expect(events: &mut BoxStream<'static, Event<Pod>>, expected: &[&str]) {
    for expected in expected {
        assert_eq!(next(events).await, *expected);
    }
}

#[tokio::test(start_paused = true)]
async fn one_unreadable_object_must_not_hide_another() {
    let fake = Fake::new(vec![object("a", "1", 1), nonsense("b", "2", 2), object("c", "3", 3)]);
    fake.pages_of(2);
    let mut events = mirror::<Pod>(Source::all::<Pod>(&fake.client()));
    expect(&mut events, &["set n/a 1", "unreadable n/b", "set n/c 3", "synced"]).await;
    let watch = async {
        fake.watched().await;
        fake.send("ADDED", nonsense("d", "4", 104));
        fake.send("MODIFIED", object("a", "1", 105));
        fake.send("DELETED", nonsense("d", "4", 106));
        fake.send("DELETED", nonsense("b", "2", 107));
    };
    let seen = expect(&mut events, &["unreadable n/d", "set n/a 1", "gone n/d 4", "gone n/b 2"]);
    tokio::join!(watch, seen);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_falls_silent_must_not_be_believed_for_five_minutes() {
    for (bookmark, least, most) in [(true, 100, 105), (false, 295, 300)] {
        let fake = Fake::new(vec![object("a", "1", 1)]);
        let mut events = mirror::<Pod>(Source::all::<Pod>(&fake.client()));
        expect(&mut events, &["set n/a 1", "synced"]).await;
        let watch = async {
            fake.watched().await;
            if bookmark {
                fake.send("BOOKMARK", json!({"metadata": {"resourceVersion": "105"}}));
            }
            let began = tokio::time::Instant::now();
            while fake.asked().len() < 3 {
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            }
            fake.send("ADDED", object("b", "2", 110));
            began.elapsed().as_secs()
        };
        let (silent, ()) = tokio::join!(watch, expect(&mut events, &["set n/b 2"]));
        assert!((least..=most).contains(&silent), "{silent} s");
        let again = fake.asked().pop().unwrap();
        assert_eq!(again.contains("resourceVersion=105"), bookmark, "it goes on from there: {again}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_went_during_a_lapse_is_told_as_gone() {
    let fake = Fake::new(vec![object("a", "1", 1), object("b", "2", 2), nonsense("c", "3", 3)]);
    let mut events = mirror::<Pod>(Source::all::<Pod>(&fake.client()));
    expect(&mut events, &["set n/a 1", "set n/b 2", "unreadable n/c", "synced"]).await;
    let lapse = async {
        fake.watched().await;
        // `b` was made again under its name; the two others went, the unreadable one too.
        fake.set_items(vec![object("b", "9", 108)]);
        fake.refuse_next_watch(410);
        fake.end_watches();
    };
    let seen = async {
        expect(&mut events, &["gone n/b 2", "set n/b 9"]).await;
        let mut gone = [next(&mut events).await, next(&mut events).await];
        gone.sort();
        assert_eq!(gone, ["gone n/a 1", "gone n/c 3"]);
        expect(&mut events, &["synced"]).await;
    };
    tokio::join!(lapse, seen);
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_from_where_it_was() {
    let fake = Fake::new(vec![object("a", "1", 1)]);
    let mut events = mirror::<Pod>(Source::all::<Pod>(&fake.client()).named("a"));
    expect(&mut events, &["set n/a 1", "synced"]).await;
    let watch = async {
        fake.watched().await;
        fake.send("MODIFIED", object("a", "1", 104));
        fake.send("BOOKMARK", json!({"metadata": {"resourceVersion": "110"}}));
        fake.end_watches();
        fake.watched().await;
        fake.send("MODIFIED", object("a", "1", 111));
    };
    tokio::join!(watch, expect(&mut events, &["set n/a 1", "set n/a 1"]));
    let asked = fake.asked();
    assert_eq!(asked.len(), 3, "no second list: {asked:?}");
    assert!(asked.iter().all(|query| query.contains("fieldSelector=metadata.name%3Da")), "{asked:?}");
    assert!(asked[1].contains("resourceVersion=100") && asked[2].contains("resourceVersion=110"));
}

#[tokio::test(start_paused = true)]
async fn a_service_with_a_null_time_is_a_service() {
    let mut service = object("s", "1", 1);
    service["status"] = json!({"conditions": [{"type": "X", "status": "True", "lastTransitionTime": null}]});
    let fake = Fake::new(vec![service.clone()]);
    let mut events = mirror::<Service>(Source::all::<Service>(&fake.client()));
    assert!(matches!(events.next().await, Some(Event::Set(..))));
    assert!(matches!(events.next().await, Some(Event::Synced)));
    let watch = async {
        fake.watched().await;
        fake.send("DELETED", service);
    };
    let (event, ()) = tokio::join!(events.next(), watch);
    assert!(matches!(event, Some(Event::Gone(gone)) if &*gone.key.name == "s"));
}
