//! PersistentVolumes: their first phase, and since when they are in it.

use serde_json::{Value, json};

use crate::access::{Get, copy, existing, set};

const SINCE: &str = "lastPhaseTransitionTime";

/// A new volume is in its first phase since it was made.
pub(super) fn create(volume: &mut Value) {
    let mut status = json!({"phase": "Pending"});
    let made = volume.text("metadata.creationTimestamp");
    if !made.is_empty() {
        set(&mut status, SINCE, made);
    }
    set(volume, "status", status);
}

/// Upstream: `persistentvolumeStatusStrategy.PrepareForUpdate`.
pub(super) fn note_transition(new: &mut Value, old: &Value, now: &str) {
    let same_phase = new.text("status.phase") == old.text("status.phase");
    let (sent, before) = (new.at("status").has(SINCE), old.at("status"));
    let untouched = !sent || new.at("status").at(SINCE) == before.at(SINCE);
    let Some(status) = existing(new, "status") else { return };
    match same_phase {
        true if !sent => copy(status, before, SINCE),
        false if untouched => set(status, SINCE, now),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-02-01T00:00:00Z";

    fn volume(phase: &str, since: Option<&str>) -> Value {
        let mut volume =
            json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": phase}});
        if let Some(since) = since {
            set(&mut volume["status"], SINCE, since);
        }
        volume
    }

    #[test]
    fn a_volume_must_not_be_in_a_phase_since_nobody_knows_when() {
        let mut made = volume("Bound", None);
        create(&mut made);
        assert_eq!(made["status"], json!({"phase": "Pending", SINCE: "2026-01-01T00:00:00Z"}));
        let mut bound = volume("Bound", made["status"][SINCE].as_str());
        note_transition(&mut bound, &made, NOW);
        assert_eq!(bound["status"][SINCE], NOW, "what is sent back unchanged is not the client's");
        let mut forgot = volume("Bound", None);
        note_transition(&mut forgot, &bound, "2026-03-01T00:00:00Z");
        assert_eq!(forgot["status"][SINCE], NOW, "the phase did not change");
        let mut own = volume("Released", Some("2026-02-15T00:00:00Z"));
        note_transition(&mut own, &bound, "2026-03-01T00:00:00Z");
        assert_eq!(own["status"][SINCE], "2026-02-15T00:00:00Z", "the client's own");
    }
}
