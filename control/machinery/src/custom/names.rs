//! Who gets which name: within a group a plural, singular, short name, kind or list kind belongs to one definition
//! (upstream: `pkg/controller/status`). First come, first served; who does not get a name keeps the ones it has.

use crate::access::{Get as _, set};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What a definition's status is to say of its names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Naming {
    /// `status.acceptedNames`.
    pub accepted: Value,
    pub names_accepted: Value,
}

/// The names of `crd` where the definitions in `others` (of any group, itself left out) have theirs; none where nothing
/// is to change.
#[must_use]
pub(crate) fn plan(crd: &Value, others: &[Value]) -> Option<Naming> {
    let (wanted, held) = (crd.at("spec.names"), crd.at("status.acceptedNames"));
    let known = super::definition::condition(crd, "NamesAccepted");
    if normal(wanted) == normal(held) && known.is_some_and(|c| c.text("status") == "True") {
        return None;
    }
    let group = crd.text("spec.group");
    let mut resources = BTreeSet::new();
    let mut kinds = BTreeSet::new();
    for names in others.iter().filter(|o| o.text("spec.group") == group).map(|o| o.at("status.acceptedNames"))
    {
        resources.extend([names.text("plural"), names.text("singular")]);
        resources.extend(names.items("shortNames").iter().filter_map(Value::as_str));
        kinds.extend([names.text("kind"), names.text("listKind")]);
    }
    let mut accepted = held.clone();
    if !accepted.is_object() {
        accepted = json!({});
    }
    let mut conflict: Option<(&str, String)> = None;
    let taken = |name: &str, used: &BTreeSet<&str>| {
        used.contains(name).then(|| format!("{name:?} is already in use"))
    };
    let mut single =
        |key: &str, reason: &'static str, used: &BTreeSet<&str>, conflict: &mut Option<(&str, String)>| {
            let name = wanted.text(key);
            match taken(name, used).filter(|_| name != held.text(key)) {
                Some(message) => *conflict = Some((reason, message)),
                None if name.is_empty() => {}
                None => set(&mut accepted, key, name),
            }
        };
    single("plural", "PluralConflict", &resources, &mut conflict);
    single("singular", "SingularConflict", &resources, &mut conflict);
    single("kind", "KindConflict", &kinds, &mut conflict);
    single("listKind", "ListKindConflict", &kinds, &mut conflict);
    let mine: BTreeSet<&str> = held.items("shortNames").iter().filter_map(Value::as_str).collect();
    let refused: Vec<String> = wanted
        .items("shortNames")
        .iter()
        .filter_map(Value::as_str)
        .filter(|name| !mine.contains(name))
        .filter_map(|name| taken(name, &resources))
        .collect();
    if refused.is_empty() {
        list(&mut accepted, wanted, "shortNames");
    } else if !matches!(conflict, Some(("KindConflict" | "ListKindConflict", _))) {
        let message = match refused.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        conflict = Some(("ShortNamesConflict", message));
    }
    list(&mut accepted, wanted, "categories");
    let (status, reason, message) = match conflict {
        Some((reason, message)) => ("False", reason, message),
        None => ("True", "NoConflicts", "no conflicts found".to_owned()),
    };
    let names_accepted =
        json!({"type": "NamesAccepted", "status": status, "reason": reason, "message": message});
    let unchanged = normal(&accepted) == normal(held)
        && known.is_some_and(|c| {
            ["status", "reason", "message"].iter().all(|k| c.text(k) == names_accepted.text(k))
        });
    (!unchanged).then_some(Naming { accepted, names_accepted })
}

fn list(to: &mut Value, from: &Value, key: &str) {
    match from.items(key) {
        [] => {
            crate::access::remove(to, key);
        }
        items => set(to, key, items.to_vec()),
    }
}

/// Names without what is empty.
fn normal(names: &Value) -> Vec<(String, Value)> {
    let full = |v: &Value| match v {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    names
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, v)| full(v))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd(plural: &str, kind: &str, short: &[&str], accepted: bool) -> Value {
        let names = json!({"plural": plural, "singular": kind.to_lowercase(), "kind": kind,
            "listKind": format!("{kind}List"), "shortNames": short});
        let mut crd = json!({"metadata": {"name": format!("{plural}.acme.com")}, "spec": {"group": "acme.com", "names": names}});
        if accepted {
            crd["status"] = json!({"acceptedNames": names});
        }
        crd
    }

    #[test]
    fn free_names_are_given() {
        let plan = plan(&crd("widgets", "Widget", &["wd"], false), &[]).unwrap();
        assert_eq!(plan.names_accepted["reason"], "NoConflicts");
        assert_eq!(plan.accepted["shortNames"], json!(["wd"]));
        let mut done = crd("widgets", "Widget", &["wd"], true);
        done["status"]["conditions"] = json!([plan.names_accepted]);
        assert_eq!(super::plan(&done, &[]), None);
    }

    #[test]
    fn taken_names_are_refused_one_by_one() {
        let others = [crd("widgets", "Widget", &["wd"], true)];
        let plan = plan(&crd("gadgets", "Widget", &["gd"], false), &others).unwrap();
        assert_eq!(plan.names_accepted["reason"], "ListKindConflict");
        assert_eq!(plan.names_accepted["message"], "\"WidgetList\" is already in use");
        assert_eq!(plan.accepted, json!({"plural": "gadgets", "shortNames": ["gd"]}));
        let plan = super::plan(&crd("gadgets", "Gadget", &["wd"], false), &others).unwrap();
        assert_eq!(plan.names_accepted["reason"], "ShortNamesConflict");
        assert_eq!(plan.names_accepted["status"], "False");
    }
}
