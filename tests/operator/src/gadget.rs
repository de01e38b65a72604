//! A gadget as the operator sees it, and what is to be there for one. Pure.

use crate::{GROUP, VERSIONS};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Resource as _;
use kube::core::{ApiResource, GroupVersionKind, Object};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A gadget of the newest version.
pub type Gadget = Object<Spec, Status>;

/// What a gadget is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Its sides.
    #[serde(rename = "box")]
    pub sides: Sides,
}

/// The sides of a gadget.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sides {
    /// At least 1.
    pub width: i64,
    /// At least 1.
    pub height: i64,
}

/// What became of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Width by height.
    pub area: Option<i64>,
    /// The generation that this is about.
    pub observed_generation: Option<i64>,
}

/// The resource of gadgets in a version.
#[must_use]
pub fn resource(version: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, version, "Gadget"), "gadgets")
}

/// The version that the operator itself speaks.
#[must_use]
pub fn newest() -> ApiResource {
    resource(VERSIONS[VERSIONS.len() - 1])
}

fn area(gadget: &Gadget) -> i64 {
    gadget.spec.sides.width.saturating_mul(gadget.spec.sides.height)
}

/// The ConfigMap that goes with a gadget, of its name.
#[must_use]
pub fn config_map(gadget: &Gadget) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name.clone_from(&gadget.metadata.name);
    map.metadata.owner_references = gadget.controller_owner_ref(&newest()).map(|owner| vec![owner]);
    map.data = Some([("area".to_owned(), area(gadget).to_string())].into());
    map
}

/// The status of a gadget, as it is applied.
#[must_use]
pub fn status(gadget: &Gadget) -> Value {
    let resource = newest();
    json!({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": gadget.metadata.name},
        "status": {"area": area(gadget), "observedGeneration": gadget.metadata.generation}})
}

/// The name of the ConfigMap that is the ledger's line for a gadget: nobody owns it, so nobody but the operator takes it away.
#[must_use]
pub fn line(gadget: &str) -> String {
    format!("{gadget}-ledger")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gadget(width: i64, height: i64) -> Gadget {
        let mut gadget = Gadget::new("a", &newest(), Spec { sides: Sides { width, height } });
        (gadget.metadata.uid, gadget.metadata.generation) = (Some("u".into()), Some(4));
        gadget
    }

    #[test]
    fn what_goes_with_a_gadget_is_its_own_and_says_its_area() {
        let map = config_map(&gadget(2, 3));
        let owner = &map.metadata.owner_references.unwrap()[0];
        let said = (owner.api_version.as_str(), owner.kind.as_str(), owner.uid.as_str(), owner.controller);
        assert_eq!(said, ("operator.windlass.dev/v3", "Gadget", "u", Some(true)));
        assert_eq!(map.data.unwrap()["area"], "6");
        assert_eq!(status(&gadget(2, 3))["status"], json!({"area": 6, "observedGeneration": 4}));
    }

    #[test]
    fn a_huge_gadget_must_not_end_the_operator() {
        assert_eq!(status(&gadget(i64::MAX, 2))["status"]["area"], i64::MAX);
    }
}
