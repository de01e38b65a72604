//! Which events are written: pure.
//!
//! Upstream: `client-go/tools/record/events_cache.go` for events with a count, `client-go/tools/events` for those with a series. Equal
//! events are one with a count; ten that differ only in their text within ten minutes become one; a component may say 25 things of a
//! severity about an object, and then one in five minutes.

use super::Note;
use super::recent::Recent;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::api::events::v1 as events;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;

/// Events, groups of similar ones, and objects remembered, each.
const REMEMBERED: usize = 4096;
/// Distinct texts of one group after which they become one event.
const SIMILAR: usize = 10;
/// How long a group lasts without another event.
const SIMILAR_WITHIN: SignedDuration = SignedDuration::from_mins(10);
/// Events about one object at once, and how many a second after that.
const BURST: f64 = 25.0;
const REFILL: f64 = 1.0 / 300.0;
/// A series ends when nothing was added for so long.
const SERIES_ENDS: SignedDuration = SignedDuration::from_mins(6);
/// How the text of an event that stands for many begins.
const COMBINED: &str = "(combined from similar events): ";
/// The longest text of an event with a series, in bytes, and what shows that it was cut.
const NOTE: usize = 1024;
const MORE: &str = " ...";

/// What is written: the event, as a patch where it should be there already.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) event: Style,
    pub(super) patch: Option<Value>,
}

impl Write {
    /// Adds annotations to an event that is one of its own; one that stands for many has none.
    pub(super) fn annotate(&mut self, annotations: super::Annotations) {
        let metadata = match &mut self.event {
            Style::Counted(event) if event.message.as_deref().is_some_and(|m| m.starts_with(COMBINED)) => {
                return;
            }
            Style::Counted(event) => &mut event.metadata,
            Style::Series(event) => &mut event.metadata,
        };
        metadata.annotations = Some(annotations);
    }
}

/// The two APIs of events.
#[derive(Debug)]
pub(super) enum Style {
    Counted(Box<Event>),
    Series(Box<events::Event>),
}

/// An event that was written: a further one like it only counts (upstream: `eventLog`).
struct EventLog {
    name: String,
    first: Timestamp,
    last: Timestamp,
    count: i32,
}

struct Similar {
    texts: HashSet<String>,
    last: Timestamp,
}

struct Bucket {
    tokens: f64,
    filled: Timestamp,
}

/// What was said lately.
pub(super) struct Correlator {
    host: Option<Arc<str>>,
    known: Recent<String, EventLog>,
    similar: Recent<String, Similar>,
    buckets: Recent<String, Bucket>,
}

impl Correlator {
    pub(super) fn new(host: Option<&str>) -> Self {
        Self {
            host: host.map(Into::into),
            known: Recent::new(REMEMBERED),
            similar: Recent::new(REMEMBERED),
            buckets: Recent::new(REMEMBERED),
        }
    }

    /// What is to be written of a note; `None` where the object has too many.
    pub(super) fn correlate(&mut self, note: &Note, now: Timestamp) -> Option<Write> {
        match &note.action {
            Some((action, related)) => Some(self.series(note, action, related.as_ref(), now)),
            None => self.counted(note, now),
        }
    }

    fn counted(&mut self, note: &Note, now: Timestamp) -> Option<Write> {
        let subject = subject(note);
        let (key, message) = self.combine(note, &subject, now);
        let (name, first, count) = self.count(key, &note.about, now, None);
        let patch =
            (count > 1).then(|| json!({"count": count, "lastTimestamp": Time(now), "message": message}));
        let host = self.host.as_deref().map(str::to_owned);
        let event = Event {
            metadata: metadata(&note.about, name),
            count: Some(count),
            first_timestamp: Some(Time(first)),
            last_timestamp: Some(Time(now)),
            involved_object: note.about.clone(),
            message: Some(message),
            reason: Some(note.reason.clone().into_owned()),
            reporting_component: Some(note.component.to_owned()),
            reporting_instance: host.clone(),
            source: Some(EventSource { component: Some(note.component.to_owned()), host }),
            type_: Some(note.severity.as_str().to_owned()),
            ..Event::default()
        };
        let write = Write { event: Style::Counted(Box::new(event)), patch };
        let spam = [note.severity.as_str(), subject.as_str()].join("\0");
        self.admit(spam, now).then_some(write)
    }

    /// The key an event is counted by, and its text: its own, or those of its group.
    fn combine(&mut self, note: &Note, subject: &str, now: Timestamp) -> (String, String) {
        let severity = note.severity.as_str();
        let group = [subject, severity, &*note.reason].join("\0");
        let field = note.about.field_path.as_deref().unwrap_or_default();
        let own = [&group, field, &note.message].map(|s| s as &str).join("\0");
        let fresh = |s: &&mut Similar| now.duration_since(s.last) <= SIMILAR_WITHIN;
        let Some(similar) = self.similar.get(&group).filter(fresh) else {
            let texts = HashSet::from([note.message.clone()]);
            self.similar.insert(group, Similar { texts, last: now });
            return (own, note.message.clone());
        };
        similar.texts.insert(note.message.clone());
        similar.last = now;
        if similar.texts.len() < SIMILAR {
            return (own, note.message.clone());
        }
        // Memory: no more texts than it takes to tell that there are many.
        if let Some(any) = similar.texts.iter().next().cloned() {
            similar.texts.remove(&any);
        }
        (group, format!("{COMBINED}{}", note.message))
    }

    fn admit(&mut self, subject: String, now: Timestamp) -> bool {
        let Some(bucket) = self.buckets.get(&subject) else {
            self.buckets.insert(subject, Bucket { tokens: BURST - 1.0, filled: now });
            return true;
        };
        let earned = now.duration_since(bucket.filled).as_secs_f64().max(0.0) * REFILL;
        bucket.tokens = (bucket.tokens + earned).min(BURST);
        bucket.filled = now;
        let admitted = bucket.tokens >= 1.0;
        bucket.tokens -= f64::from(u8::from(admitted));
        admitted
    }

    /// Counts an event: the name, time of the first one, and number of those that are one. A pause longer than `ends` begins another.
    fn count(
        &mut self,
        key: String,
        about: &ObjectReference,
        now: Timestamp,
        ends: Option<SignedDuration>,
    ) -> (String, Timestamp, i32) {
        let goes_on = |k: &&mut EventLog| ends.is_none_or(|ends| now.duration_since(k.last) <= ends);
        if let Some(known) = self.known.get(&key).filter(goes_on) {
            (known.count, known.last) = (known.count + 1, now);
            return (known.name.clone(), known.first, known.count);
        }
        let name = name(about, now);
        self.known.insert(key, EventLog { name: name.clone(), first: now, last: now, count: 1 });
        (name, now, 1)
    }

    fn series(
        &mut self,
        note: &Note,
        action: &str,
        related: Option<&ObjectReference>,
        now: Timestamp,
    ) -> Write {
        let other = related.and_then(|r| r.uid.as_deref()).unwrap_or_default();
        let field = note.about.field_path.as_deref().unwrap_or_default();
        let key = [&subject(note), note.severity.as_str(), &*note.reason, action, field, other].join("\0");
        let (name, first, count) = self.count(key, &note.about, now, Some(SERIES_ENDS));
        let series = (count > 1).then_some(events::EventSeries { count, last_observed_time: MicroTime(now) });
        let patch = series.as_ref().map(|series| json!({ "series": series }));
        let event = events::Event {
            metadata: metadata(&note.about, name),
            action: Some(action.to_owned()),
            event_time: Some(MicroTime(first)),
            note: Some(bounded(note.message.clone())),
            reason: Some(note.reason.clone().into_owned()),
            regarding: Some(note.about.clone()),
            related: related.cloned(),
            reporting_controller: Some(note.component.to_owned()),
            reporting_instance: self.host.as_deref().map(str::to_owned),
            series,
            type_: Some(note.severity.as_str().to_owned()),
            ..events::Event::default()
        };
        Write { event: Style::Series(Box::new(event)), patch }
    }
}

/// A new event's metadata: it is where the object is, or in `default`.
fn metadata(about: &ObjectReference, name: String) -> ObjectMeta {
    let namespace = about.namespace.clone().filter(|namespace| !namespace.is_empty());
    ObjectMeta {
        name: Some(name),
        namespace: Some(namespace.unwrap_or_else(|| "default".to_owned())),
        ..ObjectMeta::default()
    }
}

/// Reporting component and object.
fn subject(note: &Note) -> String {
    let about = &note.about;
    let of = [&about.api_version, &about.kind, &about.namespace, &about.name, &about.uid];
    let of = of.map(|part| part.as_deref().unwrap_or_default());
    [note.component, &of.join("\0")].join("\0")
}

/// A new event's name: the object's and the time, or a random one where that would be no name.
fn name(about: &ObjectReference, now: Timestamp) -> String {
    let of = about.name.as_deref().unwrap_or_default();
    let name = format!("{of}.{:x}", now.as_nanosecond());
    let label = |l: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let ends = l.bytes().next().is_some_and(plain) && l.bytes().next_back().is_some_and(plain);
        ends && l.bytes().all(|b| plain(b) || b == b'-')
    };
    if name.len() <= 253 && name.split('.').all(label) { name } else { uuid::Uuid::new_v4().to_string() }
}

fn bounded(mut text: String) -> String {
    if text.len() > NOTE {
        text.truncate(text.floor_char_boundary(NOTE - MORE.len()));
        text.push_str(MORE);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    fn note(name: &str, message: &str) -> Note {
        let about = ObjectReference {
            kind: Some("Pod".into()),
            namespace: Some("n".into()),
            name: Some(name.into()),
            uid: Some(name.into()),
            ..ObjectReference::default()
        };
        let (severity, message) = (Severity::Warning, message.to_owned());
        Note { component: "kubelet", about, severity, reason: "Failed".into(), message, action: None }
    }

    /// The event of a write with a count.
    fn counted(write: &Write) -> &Event {
        match &write.event {
            Style::Counted(event) => event,
            Style::Series(event) => panic!("{event:?}"),
        }
    }

    fn series(write: &Write) -> &events::Event {
        match &write.event {
            Style::Series(event) => event,
            Style::Counted(event) => panic!("{event:?}"),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn annotations_are_of_one_event_and_not_of_a_group() {
        let mut correlator = Correlator::new(None);
        let annotations = || super::super::Annotations::from([("a".to_owned(), "b".to_owned())]);
        let mut last = None;
        for number in 0..12 {
            let mut write = correlator.correlate(&note("p", &number.to_string()), at(number)).unwrap();
            write.annotate(annotations());
            if number == 0 {
                assert_eq!(counted(&write).metadata.annotations, Some(annotations()));
            }
            last = Some(write);
        }
        let last = last.unwrap();
        assert!(counted(&last).message.as_deref().unwrap().starts_with(COMBINED));
        assert_eq!(counted(&last).metadata.annotations, None);
    }

    #[test]
    fn an_equal_event_only_raises_the_count() {
        let mut correlator = Correlator::new(Some("node"));
        let first = correlator.correlate(&note("p", "m"), at(0)).unwrap();
        assert!(first.patch.is_none());
        let source = counted(&first).source.clone().unwrap();
        assert_eq!((source.component.as_deref(), source.host.as_deref()), (Some("kubelet"), Some("node")));
        let second = correlator.correlate(&note("p", "m"), at(9)).unwrap();
        assert_eq!(counted(&second).metadata.name, counted(&first).metadata.name);
        assert_eq!(
            second.patch.clone().unwrap(),
            json!({"count": 2, "lastTimestamp": Time(at(9)), "message": "m"})
        );
        // Where it has expired, the whole event says what the patch would have made of it.
        let whole = counted(&second);
        assert_eq!((whole.count, &whole.first_timestamp), (Some(2), &Some(Time(at(0)))));
        assert!(correlator.correlate(&note("p", "other"), at(10)).unwrap().patch.is_none());
    }

    #[test]
    fn many_that_differ_in_their_text_become_one() {
        let mut correlator = Correlator::new(None);
        let texts: Vec<_> = (0..12)
            .map(|i| correlator.correlate(&note("p", &format!("m{i}")), at(i)).unwrap())
            .map(|write| (counted(&write).message.clone().unwrap(), write.patch.is_some()))
            .collect();
        assert_eq!(texts[8], ("m8".to_owned(), false));
        assert_eq!(texts[9], ("(combined from similar events): m9".to_owned(), false));
        assert_eq!(texts[11], ("(combined from similar events): m11".to_owned(), true));
        let later = correlator.correlate(&note("p", "m99"), at(2000)).unwrap();
        assert_eq!(counted(&later).message.as_deref(), Some("m99"));
    }

    #[test]
    fn a_chatty_subject_must_not_silence_another() {
        let mut correlator = Correlator::new(None);
        let mut said = |name: &str, second| correlator.correlate(&note(name, "m"), at(second)).is_some();
        assert_eq!((0..40).filter(|_| said("a", 0)).count(), 25);
        assert!(said("b", 0));
        assert!(!said("a", 299) && said("a", 301));
    }

    #[test]
    fn an_event_with_an_action_has_a_series() {
        let mut correlator = Correlator::new(Some("default-scheduler-h"));
        let long = "ä".repeat(NOTE);
        let note = Note { action: Some(("Scheduling", None)), ..note("p", &long) };
        let first = correlator.correlate(&note, at(0)).unwrap();
        let event = series(&first);
        assert_eq!((event.deprecated_count, &event.series), (None, &None));
        assert_eq!(event.event_time, Some(MicroTime(at(0))));
        let message = event.note.clone().unwrap();
        assert!(message.len() <= NOTE && message.ends_with("ä ..."));
        let other_text = Note { message: "other".into(), ..note.clone() };
        let second = correlator.correlate(&other_text, at(100)).unwrap();
        assert_eq!(second.patch.as_ref().unwrap()["series"]["count"], 2);
        assert_eq!(series(&second).metadata.name, event.metadata.name);
        assert!(correlator.correlate(&note, at(100 + 361)).unwrap().patch.is_none());
    }

    #[test]
    fn an_event_of_an_odd_name_has_a_valid_one() {
        assert!(name(&note("a.b", "").about, at(0)).starts_with("a.b."));
        for odd in ["A", "system:node", "", &"x".repeat(250)] {
            assert_eq!(name(&note(odd, "").about, at(0)).len(), 36, "{odd}");
        }
    }
}
