//! What the operator installs: a definition of three versions, and who is asked about gadgets. Pure.

use crate::{DEFINITION, GROUP, VERSIONS};
use serde_json::{Value, json};

/// Where the API server finds the webhooks.
#[derive(Clone, Debug)]
pub struct Webhooks {
    /// `https://HOST:PORT`.
    pub url: String,
    /// The authority of their certificate: PEM in base64.
    pub bundle: String,
}

impl Webhooks {
    fn client(&self, path: &str) -> Value {
        json!({"url": format!("{}{path}", self.url), "caBundle": self.bundle})
    }
}

/// The definition, whose objects are stored in the version `storage`: `size: 2x3` in v1, `width` and `height` in v2, a `box` of both in v3.
#[must_use]
pub fn definition(webhooks: &Webhooks, storage: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": DEFINITION},
        "spec": {
            "group": GROUP, "scope": "Namespaced",
            "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList", "shortNames": ["gd"]},
            "versions": VERSIONS.map(|version| of_version(version, storage)),
            "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": webhooks.client("/convert")}},
        },
    })
}

fn of_version(version: &str, storage: &str) -> Value {
    let sides =
        json!({"width": {"type": "integer", "minimum": 1}, "height": {"type": "integer", "minimum": 1}});
    let spec = match version {
        "v1" => {
            json!({"type": "object", "required": ["size"], "properties": {"size": {"type": "string", "pattern": "^[0-9]+x[0-9]+$"}}})
        }
        "v2" => json!({"type": "object", "required": ["width", "height"], "properties": sides}),
        _ => {
            let inner = json!({"type": "object", "required": ["width", "height"], "properties": sides});
            json!({"type": "object", "required": ["box"], "properties": {"box": inner}})
        }
    };
    let status = json!({"type": "object", "properties": {"area": {"type": "integer"}, "observedGeneration": {"type": "integer", "format": "int64"}}});
    json!({
        "name": version, "served": true, "storage": version == storage, "subresources": {"status": {}},
        "additionalPrinterColumns": [{"name": "Area", "type": "integer", "jsonPath": ".status.area"}],
        "schema": {"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {"spec": spec, "status": status}}},
    })
}

/// The configurations of admission, the mutating one first. Both see every version as v3.
#[must_use]
pub fn admission(webhooks: &Webhooks) -> [Value; 2] {
    [("Mutating", "/mutate"), ("Validating", "/validate")].map(|(kind, path)| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}WebhookConfiguration"), "metadata": {"name": DEFINITION},
            "webhooks": [{
                "name": DEFINITION, "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": webhooks.client(path),
                "failurePolicy": "Fail", "matchPolicy": "Equivalent", "timeoutSeconds": 5,
                "rules": [{"apiGroups": [GROUP], "apiVersions": ["v3"], "operations": ["CREATE", "UPDATE"], "resources": ["gadgets"]}],
            }],
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_version_is_stored() {
        let webhooks = Webhooks { url: "https://localhost:1".into(), bundle: String::new() };
        for storage in VERSIONS {
            let definition = definition(&webhooks, storage);
            let versions = definition["spec"]["versions"].as_array().unwrap();
            let stored: Vec<&Value> = versions.iter().filter(|version| version["storage"] == true).collect();
            assert_eq!(stored.len(), 1);
            assert_eq!(stored[0]["name"], storage);
        }
    }
}
