//! Patches of a pod.

use machinery::patch;
use machinery::schema::{Schema, TypeId, builtin};
use serde_json::Value;

fn pod() -> Value {
    serde_json::from_slice(crate::POD).unwrap_or_default()
}

fn pods() -> Option<(&'static Schema, TypeId)> {
    builtin().named("v1", "Pod").map(|id| (builtin(), id))
}

/// RFC 6902.
pub fn json(bytes: &[u8]) {
    let _ = patch::json::apply(&mut pod(), bytes);
}

/// RFC 7386. The same merge twice is the same as once.
pub fn merge(bytes: &[u8]) {
    let mut once = pod();
    if patch::merge::apply(&mut once, bytes).is_ok() {
        let mut twice = once.clone();
        let _ = patch::merge::apply(&mut twice, bytes);
        assert_eq!(once, twice);
    }
}

/// Strategic merge.
pub fn strategic(bytes: &[u8]) {
    let Some((schema, id)) = pods() else { return };
    let _ = patch::strategic::apply(schema, id, &mut pod(), bytes);
}

/// Server-side apply. The same configuration applied again changes nothing.
pub fn apply(bytes: &[u8]) {
    use machinery::apply::managed::{Managed, Manager};
    use machinery::apply::{Write, set::Set};
    use machinery::schema::node::Builtin;
    let Some((schema, id)) = pods() else { return };
    let Ok(config) = serde_json::from_slice::<Value>(bytes) else { return };
    let Ok(config) = schema.normalize(id, config) else { return };
    let manager = Manager {
        name: "fuzz".to_owned(),
        applies: true,
        api_version: "v1".to_owned(),
        subresource: String::new(),
    };
    let write = Write { manager: &manager, now: "2026-01-01T00:00:00Z", force: true, reset: &Set::default() };
    let apply = |live: &Value, owners: &Managed| {
        machinery::apply::apply(Builtin::new(schema, id), live, &config.value, owners, &write, &())
    };
    let Ok(once) = apply(&pod(), &Managed::default()) else { return };
    if let Ok(twice) = apply(&once.object, &once.managed) {
        assert_eq!(once.object, twice.object);
        assert!(!twice.changed, "{:?}", config.value);
    }
}
