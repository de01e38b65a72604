//! A slice between what it is and what it is to be.

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One step towards the desired slices.
#[derive(Debug)]
pub(super) enum Slot {
    /// Make a slice; its metadata is the caller's.
    Create(EndpointSlice),
    /// Replace the content of the named slice.
    Update(String, EndpointSlice),
    /// Remove the named slice.
    Delete(String),
}

/// A slice as it is to be.
pub(super) struct Content {
    pub(super) address_type: &'static str,
    pub(super) ports: Vec<EndpointPort>,
    pub(super) old: Option<Arc<EndpointSlice>>,
    pub(super) endpoints: Vec<Endpoint>,
    /// But for hints it is what is there.
    pub(super) unchanged: bool,
    /// It stays although it is empty, to say that there are no endpoints.
    pub(super) placeholder: bool,
}

impl Content {
    pub(super) fn goes(&self) -> bool {
        self.endpoints.is_empty() && !self.placeholder
    }

    /// The endpoints as they are there.
    pub(super) fn there(&self) -> &[Endpoint] {
        self.old.as_ref().and_then(|old| old.endpoints.as_deref()).unwrap_or_default()
    }

    /// What is to be done about it, if anything.
    pub(super) fn step(self, labels: &BTreeMap<String, String>) -> Option<Slot> {
        let stands =
            self.old.as_ref().is_some_and(|old| old.labels() == labels && self.there() == self.endpoints);
        let goes = self.goes();
        let slice = EndpointSlice {
            address_type: self.address_type.to_owned(),
            ports: Some(self.ports),
            endpoints: Some(self.endpoints),
            ..EndpointSlice::default()
        };
        match self.old {
            Some(old) if goes => Some(Slot::Delete(old.name_any())),
            Some(_) if stands => None,
            Some(old) => Some(Slot::Update(old.name_any(), slice)),
            None => Some(Slot::Create(slice)),
        }
    }
}
