//! The conditions of a definition beside those of its names, and writing them.

use super::definition::{condition, is_true};
use super::names::Register;
use crate::access::{Get as _, object, set};
use serde_json::{Value, json};

/// Who may define resources of the project's own groups.
pub(crate) const APPROVED: &str = "api-approved.kubernetes.io";
const PULL: &str = "see https://github.com/kubernetes/enhancements/pull/1111";

/// Whether a group's resources need an approval.
#[must_use]
pub(crate) fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|own| group == *own || group.ends_with(&format!(".{own}")))
}

/// What the approval annotation says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Approval {
    /// The value of the annotation is no URL.
    Invalid(String),
    /// URL of the approval, from the annotation.
    Approved(String),
    /// `unapproved...`.
    Bypassed(String),
    /// The group wants an approval and has none.
    Missing(String),
}

/// The state of a definition's approval.
#[must_use]
pub(crate) fn approval(crd: &Value) -> Approval {
    let value = crate::object::annotation(crd, APPROVED).unwrap_or_default();
    let is_url = value
        .split_once("://")
        .is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty() && !rest.starts_with('/'));
    if value.is_empty() {
        Approval::Missing(format!("protected groups must have approval annotation {APPROVED:?}, {PULL}"))
    } else if value.starts_with("unapproved") {
        Approval::Bypassed(format!("not approved: {value:?}"))
    } else if is_url {
        Approval::Approved(format!("approved in {value}"))
    } else {
        Approval::Invalid(format!(
            "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", {PULL}"
        ))
    }
}

fn make(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}

/// KubernetesAPIApprovalPolicyConformant; none for groups that need no approval.
#[must_use]
pub(crate) fn approval_condition(crd: &Value) -> Option<Value> {
    if !is_protected(crd.text("spec.group")) {
        return None;
    }
    let (status, reason, message) = match approval(crd) {
        Approval::Invalid(why) => ("False", "InvalidAnnotation", why),
        Approval::Missing(why) => ("False", "MissingAnnotation", why),
        Approval::Approved(why) => ("True", "ApprovedAnnotation", why),
        Approval::Bypassed(why) => ("False", "UnapprovedAnnotation", why),
    };
    Some(make("KubernetesAPIApprovalPolicyConformant", status, reason, &message))
}

/// What is to be said of a definition's schemas, which takes a look at each of their fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Schemas {
    /// NonStructuralSchema; none where every schema is structural.
    condition: Option<Value>,
}

impl Schemas {
    /// Looks at the schemas of a whole definition.
    #[must_use]
    pub fn of(crd: &Value) -> Self {
        let text = crate::field::aggregate(&super::structural::violations(crd));
        let condition = text.map(|text| make("NonStructuralSchema", "True", "Violations", &text));
        Schemas { condition }
    }
}

/// Established, once the names are accepted. A definition that is established stays so.
#[must_use]
pub(crate) fn established(crd: &Value) -> Option<Value> {
    if is_true(crd, "Established") {
        return None;
    }
    Some(if !is_true(crd, "NamesAccepted") {
        make("Established", "False", "NotAccepted", "not all names are accepted")
    } else if bad_ca_bundle(crd) {
        make("Established", "False", "InvalidCABundle", "The conversion webhook CABundle is invalid")
    } else {
        make("Established", "True", "InitialNamesAccepted", "the initial names have been accepted")
    })
}

fn bad_ca_bundle(crd: &Value) -> bool {
    use base64::Engine as _;
    let bundle = crd.text("spec.conversion.webhook.clientConfig.caBundle");
    let pem = base64::engine::general_purpose::STANDARD.decode(bundle).unwrap_or_default();
    !bundle.is_empty() && !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----")
}

/// Writes a condition; the time changes with the status only. True where anything changed.
pub fn write(crd: &mut Value, mut wanted: Value, now: &str) -> bool {
    let kind = wanted.text("type").to_owned();
    let old = condition(crd, &kind).cloned();
    let same = |key: &str| old.as_ref().is_some_and(|o| o.text(key) == wanted.text(key));
    if ["status", "reason", "message"].iter().all(|k| same(k)) {
        return false;
    }
    let since = match &old {
        Some(old) if same("status") => old.text("lastTransitionTime").to_owned(),
        _ => now.to_owned(),
    };
    set(&mut wanted, "lastTransitionTime", since);
    let Some(status) = object(crd, "status") else { return false };
    let mut all = status.items("conditions").to_vec();
    match all.iter_mut().find(|c| c.text("type") == kind) {
        Some(place) => *place = wanted,
        None => all.push(wanted),
    }
    set(status, "conditions", all);
    true
}

/// Takes a condition away. True where it was there.
pub(crate) fn take(crd: &mut Value, kind: &str) -> bool {
    let Some(status) = object(crd, "status") else { return false };
    let all = status.items("conditions");
    let rest: Vec<Value> = all.iter().filter(|c| c.text("type") != kind).cloned().collect();
    let changed = rest.len() != all.len();
    if changed {
        set(status, "conditions", rest);
    }
    changed
}

/// Everything a definition's status is to say, short of its instances' deletion; none where it says so already. What it says of its
/// `schemas` stays, where those were not looked at.
#[must_use]
pub fn plan(crd: &Value, schemas: Option<&Schemas>, others: &Register, now: &str) -> Option<Value> {
    let mut new = crd.clone();
    let mut changed = false;
    if let Some(naming) = super::names::plan(crd, others) {
        if let Some(status) = object(&mut new, "status") {
            set(status, "acceptedNames", naming.accepted);
        }
        write(&mut new, naming.names_accepted, now);
        changed = true;
    }
    for wanted in [established(&new), approval_condition(&new)] {
        changed |= wanted.is_some_and(|c| write(&mut new, c, now));
    }
    if let Some(Schemas { condition }) = schemas {
        changed |= match condition {
            Some(wanted) => write(&mut new, wanted.clone(), now),
            None => take(&mut new, "NonStructuralSchema"),
        };
    }
    changed.then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custom::{Outline, Sketch};

    fn crd() -> Value {
        json!({"metadata": {"name": "widgets.acme.com", "uid": "1"}, "spec": {"group": "acme.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
    }

    #[test]
    fn a_plan_carried_out_leaves_nothing_to_plan() {
        let (crd, nobody) = (crd(), Register::default());
        let schemas = Schemas::of(&crd);
        let new = plan(&crd, Some(&schemas), &nobody, "2026-01-01T00:00:00Z").unwrap();
        assert!(is_true(&new, "NamesAccepted") && is_true(&new, "Established"));
        assert_eq!(Schemas::of(&new), schemas);
        assert_eq!(plan(&new, Some(&schemas), &nobody, "2026-01-01T00:00:01Z"), None);
        let sketch = Sketch::read(crd.to_string().as_bytes()).unwrap();
        assert!(Outline::of(&sketch, &new).is_ok());
        assert!(Outline::of(&sketch, &crd).is_err());
    }

    #[test]
    fn a_schema_that_is_not_structural_must_be_said_until_it_is() {
        let (mut crd, nobody) = (crd(), Register::default());
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"] = json!({"a": {}});
        let odd = Schemas::of(&crd);
        let said = plan(&crd, Some(&odd), &nobody, "1").unwrap();
        assert!(is_true(&said, "NonStructuralSchema") && is_true(&said, "Established"));
        assert_eq!(plan(&said, None, &nobody, "2"), None, "what nobody looked at stays");
        let mended = plan(&said, Some(&Schemas { condition: None }), &nobody, "3").unwrap();
        assert!(condition(&mended, "NonStructuralSchema").is_none());
    }

    #[test]
    fn protected_groups_need_an_approval() {
        let mut of = crd();
        of["spec"]["group"] = json!("widgets.k8s.io");
        assert_eq!(approval_condition(&of).unwrap()["reason"], "MissingAnnotation");
        for (value, reason) in [
            ("https://github.com/x", "ApprovedAnnotation"),
            ("unapproved, for tests", "UnapprovedAnnotation"),
            ("yes", "InvalidAnnotation"),
        ] {
            of["metadata"]["annotations"] = json!({APPROVED: value});
            assert_eq!(approval_condition(&of).unwrap()["reason"], reason);
        }
        assert!(!is_protected("acme.com") && !is_protected("notk8s.io") && is_protected("kubernetes.io"));
    }

    #[test]
    fn an_approval_policy_and_a_transition_keep_their_time() {
        let mut of = crd();
        assert!(write(&mut of, make("X", "False", "A", "a"), "1"));
        assert!(!write(&mut of, make("X", "False", "A", "a"), "2"));
        assert!(write(&mut of, make("X", "False", "B", "a"), "3"));
        assert_eq!(condition(&of, "X").unwrap()["lastTransitionTime"], "1");
        assert!(write(&mut of, make("X", "True", "B", "a"), "4"));
        assert_eq!(condition(&of, "X").unwrap()["lastTransitionTime"], "4");
        assert!(take(&mut of, "X") && !take(&mut of, "X"));
    }
}
