//! What is known of services and of the slices behind them. Pure.

pub use crate::service::ServiceName;
use crate::service::{Service, Slice};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The newest known services and slices.
#[derive(Debug, Default)]
pub struct State {
    /// Services by name.
    pub services: HashMap<ServiceName, Service>,
    /// Slices by the service's name, then by the slice's name.
    pub slices: HashMap<ServiceName, BTreeMap<String, Slice>>,
    /// Whose each slice of [`State::set_slice`] is, by namespace and name: a list of slices costs time in proportion to its length.
    owners: HashMap<(String, String), ServiceName>,
}

/// What a slice changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// The service that it no longer is of.
    pub left: Option<ServiceName>,
    /// The service that has it in another way than before.
    pub holds: Option<ServiceName>,
}

impl Changed {
    /// The services whose endpoints are others now.
    pub(crate) fn services(self) -> BTreeSet<ServiceName> {
        self.left.into_iter().chain(self.holds).collect()
    }
}

impl State {
    /// Takes a slice, by namespace and name, as it is now; `None` where it is gone or nobody's. It may have been another service's before.
    pub fn set_slice(&mut self, slice: &(String, String), new: Option<Slice>) -> Changed {
        let (namespace, name) = slice;
        let owner = new.as_ref().map(|slice| (namespace.clone(), slice.service.clone()));
        let before = match &owner {
            Some(owner) => self.owners.insert(slice.clone(), owner.clone()),
            None => self.owners.remove(slice),
        };
        let left = before.filter(|before| owner.as_ref() != Some(before));
        if let Some(left) = &left
            && let Some(all) = self.slices.get_mut(left)
        {
            all.remove(name);
            if all.is_empty() {
                self.slices.remove(left);
            }
        }
        let (Some(owner), Some(new)) = (owner, new) else { return Changed { left, holds: None } };
        let all = self.slices.entry(owner.clone()).or_default();
        let differs = all.get(name) != Some(&new);
        if differs {
            all.insert(name.clone(), new);
        }
        Changed { left, holds: differs.then_some(owner) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> (String, String) {
        ("d".to_owned(), name.to_owned())
    }

    fn of(service: &str) -> Slice {
        Slice { service: service.to_owned(), ..Slice::default() }
    }

    #[test]
    fn a_slice_must_not_stay_with_a_service_it_left() {
        let mut state = State::default();
        let changed =
            |left: Option<&str>, holds: Option<&str>| Changed { left: left.map(id), holds: holds.map(id) };
        assert_eq!(state.set_slice(&id("s1"), Some(of("a"))), changed(None, Some("a")));
        assert_eq!(state.set_slice(&id("s1"), Some(of("a"))), changed(None, None), "nothing new");
        assert_eq!(state.set_slice(&id("s1"), Some(of("b"))), changed(Some("a"), Some("b")));
        assert_eq!(state.slices.keys().collect::<Vec<_>>(), [&id("b")]);
        // One of the same name in another namespace is another.
        let other = ("e".to_owned(), "s1".to_owned());
        assert_eq!(state.set_slice(&other, Some(of("b"))).holds, Some(("e".to_owned(), "b".to_owned())));
        assert_eq!(state.set_slice(&id("s1"), None), changed(Some("b"), None));
        assert_eq!(state.set_slice(&id("s1"), None), changed(None, None), "gone already");
        assert_eq!(state.slices.len(), 1);
        state.set_slice(&other, None);
        assert!(state.slices.is_empty() && state.owners.is_empty(), "nothing is kept of what is gone");
    }
}
