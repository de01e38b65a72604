//! Where an object is in full, and whether a dependent names it so. An owner is one only by apiVersion, kind, name, uid and namespace together.

use k8s_openapi::api::core::v1::ObjectReference;
use std::fmt;

/// An object in full.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    /// `GROUP/VERSION`, or the version alone.
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl Identity {
    pub(super) fn group_kind(&self) -> (String, String) {
        (group(&self.api_version).to_owned(), self.kind.clone())
    }

    /// As events refer to it.
    pub(super) fn reference(&self) -> ObjectReference {
        let Self { api_version, kind, namespace, name, uid } = self.clone();
        ObjectReference {
            api_version: Some(api_version),
            kind: Some(kind),
            namespace: Some(namespace).filter(|namespace| !namespace.is_empty()),
            name: Some(name),
            uid: Some(uid),
            ..ObjectReference::default()
        }
    }
}

/// As upstream writes it in events.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { api_version, kind, namespace, name, uid } = self;
        write!(f, "[{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}]")
    }
}

/// The group of an apiVersion.
pub(super) fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// An owner as a dependent names it: always in the dependent's namespace, or in none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    /// Keeps an owner that is deleted in the foreground until the dependent is gone.
    pub blocks: bool,
}

/// How the owner a dependent names compares with the object of that uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is that object.
    Exact,
    /// That object is in a namespace that the dependent is not in.
    OtherNamespace,
    /// That object has another apiVersion, kind or name.
    OtherObject,
}

impl Owner {
    /// The owner in full, for a dependent in `namespace`; an owner of cluster scope has none.
    pub(super) fn within(&self, namespace: &str) -> Identity {
        Identity {
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
            namespace: namespace.to_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
        }
    }

    /// Compares what a dependent in `namespace` says with the object seen.
    pub(super) fn fit(&self, namespace: &str, seen: &Identity) -> Fit {
        if !seen.namespace.is_empty() && seen.namespace != namespace {
            Fit::OtherNamespace
        } else if self.within(&seen.namespace) == *seen {
            Fit::Exact
        } else {
            Fit::OtherObject
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(namespace: &str) -> Identity {
        Identity {
            api_version: "v1".into(),
            kind: "Secret".into(),
            namespace: namespace.into(),
            name: "s".into(),
            uid: "u".into(),
        }
    }

    fn owner(kind: &str, name: &str) -> Owner {
        Owner {
            api_version: "v1".into(),
            kind: kind.into(),
            name: name.into(),
            uid: "u".into(),
            blocks: true,
        }
    }

    #[test]
    fn an_owner_is_one_by_all_it_is_named_by() {
        assert_eq!(owner("Secret", "s").fit("a", &secret("a")), Fit::Exact);
        assert_eq!(owner("Secret", "s").fit("b", &secret("a")), Fit::OtherNamespace);
        assert_eq!(owner("Secret", "s").fit("", &secret("a")), Fit::OtherNamespace);
        assert_eq!(owner("ConfigMap", "s").fit("a", &secret("a")), Fit::OtherObject);
        assert_eq!(owner("Secret", "t").fit("a", &secret("a")), Fit::OtherObject);
        assert_eq!(
            owner("Secret", "s").fit("b", &secret("")),
            Fit::Exact,
            "an owner of cluster scope owns everywhere"
        );
    }

    #[test]
    fn an_identity_reads_as_in_upstreams_events() {
        assert_eq!(secret("a").to_string(), "[v1/Secret, namespace: a, name: s, uid: u]");
    }
}
