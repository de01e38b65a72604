//! Who gets which name: within a group a plural, singular, short name, kind or list kind belongs to one definition
//! (upstream: `pkg/controller/status`). First come, first served; who does not get a name keeps the ones it has.

use crate::access::{Get as _, set};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What a definition's status is to say of its names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Naming {
    /// `status.acceptedNames`.
    pub accepted: Value,
    pub names_accepted: Value,
}

/// Whose names they are: plurals, singulars and short names are of one kind, kinds and list kinds of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Space {
    Resources,
    Kinds,
}

/// The names that definitions have, so that what one may have costs a look at its own names.
#[derive(Debug, Default)]
pub struct Register {
    /// By group and name, the definitions that have it: more than one only where others wrote the status.
    owners: BTreeMap<(String, Space, String), BTreeSet<String>>,
    /// What each definition has, by its name.
    held: BTreeMap<String, (String, Vec<(Space, String)>)>,
}

impl Register {
    /// Notes that the definition `of`, of `group`, has the names of `accepted` and no others. True where one is free that was not.
    pub fn hold(&mut self, of: &str, group: &str, accepted: &Value) -> bool {
        let mut names: Vec<(Space, String)> = Vec::new();
        let mut add = |space, name: &str| {
            if !name.is_empty() {
                names.push((space, name.to_owned()));
            }
        };
        add(Space::Resources, accepted.text("plural"));
        add(Space::Resources, accepted.text("singular"));
        accepted.items("shortNames").iter().filter_map(Value::as_str).for_each(|n| add(Space::Resources, n));
        add(Space::Kinds, accepted.text("kind"));
        add(Space::Kinds, accepted.text("listKind"));
        names.sort_unstable();
        names.dedup();
        let before = self.held.get(of);
        if before.is_some_and(|(g, held)| g == group && *held == names) {
            return false;
        }
        let kept = |(space, name): &(Space, String)| names.contains(&(*space, name.clone()));
        let freed = before.is_some_and(|(g, held)| g != group || !held.iter().all(kept));
        self.release(of);
        for (space, name) in &names {
            let owners = self.owners.entry((group.to_owned(), *space, name.clone())).or_default();
            owners.insert(of.to_owned());
        }
        self.held.insert(of.to_owned(), (group.to_owned(), names));
        freed
    }

    /// Notes that a definition has no names. Gives its group where it had any.
    pub fn release(&mut self, of: &str) -> Option<String> {
        let (group, names) = self.held.remove(of)?;
        for (space, name) in names {
            let key = (group.clone(), space, name);
            if let Some(owners) = self.owners.get_mut(&key) {
                owners.remove(of);
                if owners.is_empty() {
                    self.owners.remove(&key);
                }
            }
        }
        Some(group)
    }

    /// Whether another definition of the group has the name.
    fn is_taken(&self, group: &str, space: Space, name: &str, by_other_than: &str) -> bool {
        let owners = self.owners.get(&(group.to_owned(), space, name.to_owned()));
        owners.is_some_and(|owners| owners.iter().any(|owner| owner != by_other_than))
    }
}

/// The names of `crd` where others have theirs; none where nothing is to change.
#[must_use]
pub(crate) fn plan(crd: &Value, others: &Register) -> Option<Naming> {
    let (wanted, held) = (crd.at("spec.names"), crd.at("status.acceptedNames"));
    let known = super::definition::condition(crd, "NamesAccepted");
    if normal(wanted) == normal(held) && known.is_some_and(|c| c.text("status") == "True") {
        return None;
    }
    let (group, own) = (crd.text("spec.group"), crate::object::name(crd));
    let mut accepted = held.clone();
    if !accepted.is_object() {
        accepted = json!({});
    }
    let mut conflict: Option<(&str, String)> = None;
    let taken = |name: &str, space: Space| {
        others.is_taken(group, space, name, own).then(|| format!("{name:?} is already in use"))
    };
    let mut single =
        |key: &str, reason: &'static str, space: Space, conflict: &mut Option<(&str, String)>| {
            let name = wanted.text(key);
            match taken(name, space).filter(|_| name != held.text(key)) {
                Some(message) => *conflict = Some((reason, message)),
                None if name.is_empty() => {}
                None => set(&mut accepted, key, name),
            }
        };
    single("plural", "PluralConflict", Space::Resources, &mut conflict);
    single("singular", "SingularConflict", Space::Resources, &mut conflict);
    single("kind", "KindConflict", Space::Kinds, &mut conflict);
    single("listKind", "ListKindConflict", Space::Kinds, &mut conflict);
    let mine: BTreeSet<&str> = held.items("shortNames").iter().filter_map(Value::as_str).collect();
    let refused: Vec<String> = wanted
        .items("shortNames")
        .iter()
        .filter_map(Value::as_str)
        .filter(|name| !mine.contains(name))
        .filter_map(|name| taken(name, Space::Resources))
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

    fn register(of: &[Value]) -> Register {
        let mut register = Register::default();
        for crd in of {
            register.hold(crate::object::name(crd), "acme.com", crd.at("status.acceptedNames"));
        }
        register
    }

    #[test]
    fn names_of_a_definition_that_went_must_not_stay_taken() {
        let mut register =
            register(&[crd("widgets", "Widget", &["wd"], true), crd("gadgets", "Gadget", &["wd"], true)]);
        let wanted = crd("things", "Thing", &["wd"], false);
        assert_eq!(register.release("widgets.acme.com").as_deref(), Some("acme.com"));
        assert_eq!(
            plan(&wanted, &register).unwrap().names_accepted["status"],
            "False",
            "the other has it still"
        );
        assert!(
            register.hold("gadgets.acme.com", "acme.com", &json!({"plural": "gadgets"})),
            "names are free"
        );
        assert_eq!(plan(&wanted, &register).unwrap().names_accepted["status"], "True");
        assert!(!register.hold("gadgets.acme.com", "acme.com", &json!({"plural": "gadgets"})));
        register.release("gadgets.acme.com");
        assert_eq!(register.release("gadgets.acme.com"), None);
        assert!(register.owners.is_empty() && register.held.is_empty(), "nothing of them is kept");
    }

    #[test]
    fn a_name_of_another_group_is_free() {
        let mut register = register(&[]);
        register.hold("widgets.other.com", "other.com", &json!({"plural": "widgets", "kind": "Widget"}));
        let plan = plan(&crd("widgets", "Widget", &[], false), &register).unwrap();
        assert_eq!(plan.names_accepted["status"], "True");
    }

    #[test]
    fn free_names_are_given() {
        let plan = plan(&crd("widgets", "Widget", &["wd"], false), &register(&[])).unwrap();
        assert_eq!(plan.names_accepted["reason"], "NoConflicts");
        assert_eq!(plan.accepted["shortNames"], json!(["wd"]));
        let mut done = crd("widgets", "Widget", &["wd"], true);
        done["status"]["conditions"] = json!([plan.names_accepted]);
        assert_eq!(super::plan(&done, &register(&[])), None);
    }

    #[test]
    fn taken_names_are_refused_one_by_one() {
        let others = register(&[crd("widgets", "Widget", &["wd"], true)]);
        let plan = plan(&crd("gadgets", "Widget", &["gd"], false), &others).unwrap();
        assert_eq!(plan.names_accepted["reason"], "ListKindConflict");
        assert_eq!(plan.names_accepted["message"], "\"WidgetList\" is already in use");
        assert_eq!(plan.accepted, json!({"plural": "gadgets", "shortNames": ["gd"]}));
        let plan = super::plan(&crd("gadgets", "Gadget", &["wd"], false), &others).unwrap();
        assert_eq!(plan.names_accepted["reason"], "ShortNamesConflict");
        assert_eq!(plan.names_accepted["status"], "False");
    }
}
