//! Claims of devices: who may have them past others' reservations, and who may write what of a claim's status
//! (upstream: `pkg/registry/resource`, `AuthorizedForAdmin`, `AuthorizedForBinding`, `AuthorizedForDeviceStatus`).

use super::Writer;
use crate::authz::{self, forbidden};
use crate::context::{RequestInfo, User};
use crate::registry::call::Call;
use crate::registry::hooks::Decision;
use crate::registry::kind::Kind;
use machinery::access::Get as _;
use machinery::field::{FieldError, Path};
use machinery::names;
use machinery::status::Status;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const GROUP: &str = "resource.k8s.io";
/// Namespaces with this label may be given access to devices that are others'.
const ADMIN_LABEL: &str = "resource.kubernetes.io/admin-access";
/// The node a token is bound to.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

impl Writer {
    /// What of a claim, or of a template of claims, its author or its namespace may not have; `old` is what a change changes.
    pub(super) async fn disallowed_devices(
        &self,
        call: &Call<'_>,
        new: &Value,
        old: Option<&Value>,
    ) -> Result<Vec<FieldError>, Status> {
        if call.kind.resource.group != GROUP {
            return Ok(Vec::new());
        }
        let mut errors = Vec::new();
        if let Some(path) = admin_access(call, new, old)
            && !self.is_admin_namespace(&call.namespace).await?
        {
            let why = format!(
                "admin access to devices requires the `{ADMIN_LABEL}: true` label on the containing namespace"
            );
            errors.push(FieldError::forbidden(&path, why));
        }
        if let Some(old) =
            old.filter(|_| call.kind.is(GROUP, "resourceclaims") && call.subresource == "status")
        {
            errors.extend(self.unbound(call, new, old).await?);
            errors.extend(self.foreign_drivers(call, new, old).await?);
        }
        Ok(errors)
    }

    async fn is_admin_namespace(&self, name: &str) -> Result<bool, Status> {
        let Some(namespaces) = Kind::of("", "namespaces") else { return Ok(false) };
        let namespace = self.registry.read(&namespaces, "", name).await?;
        Ok(namespace.is_some_and(|namespace| is_labelled(&namespace)))
    }

    /// Who allocates or reserves must be let bind claims anywhere.
    async fn unbound(&self, call: &Call<'_>, new: &Value, old: &Value) -> Result<Option<FieldError>, Status> {
        let same = |path: &str| new.present(path) == old.present(path);
        if same("status.allocation") && same("status.reservedFor") {
            return Ok(None);
        }
        let verb = &call.context.info.verb;
        let refusal = self.refusal(call, verb, "binding", "", "").await?;
        Ok(refusal.map(|refusal| {
            let why = format!(
                "changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", \
                 verb=\"{verb}\" permission: {refusal}"
            );
            FieldError::forbidden(&Path::new("status").child("allocation"), why)
        }))
    }

    /// Who says how a device does must be let speak for its driver: of claims on its own node, or of any.
    async fn foreign_drivers(
        &self,
        call: &Call<'_>,
        new: &Value,
        old: &Value,
    ) -> Result<Vec<FieldError>, Status> {
        if !new.has("status.allocation") {
            return Ok(Vec::new());
        }
        let verbs = driver_verbs(&call.context.info.verb, &call.context.user, new);
        let mut errors = Vec::new();
        for driver in changed_drivers(new, old) {
            let mut first = None;
            let mut allowed = false;
            for verb in &verbs {
                match self.refusal(call, verb, "driver", &call.namespace, driver).await? {
                    Some(refusal) => first = first.or(Some(refusal)),
                    None => allowed = true,
                }
                if allowed {
                    break;
                }
            }
            if let Some(refusal) = first.filter(|_| !allowed) {
                let why = format!(
                    "changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[{}]\" permission: {refusal}",
                    verbs.join(" ")
                );
                errors.push(FieldError::forbidden(&Path::new("status").child("devices"), why));
            }
        }
        Ok(errors)
    }

    /// Why the author may not do this to a part of claims that only authorizers know; none where it may.
    async fn refusal(
        &self,
        call: &Call<'_>,
        verb: &str,
        part: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<String>, Status> {
        let user = &call.context.user;
        let info = RequestInfo {
            verb: verb.to_owned(),
            subresource: part.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..call.context.info.clone()
        };
        Ok(match self.registry.front()?.authorize(user, &info).await {
            Decision::Allow(_) => None,
            Decision::Deny(reason) | Decision::NoOpinion(reason) => {
                let attributes = authz::Attributes::of(&info, user, &[]);
                Some(forbidden::status(&attributes, &authz::Decision::no_opinion(reason)).message)
            }
        })
    }
}

fn is_labelled(namespace: &Value) -> bool {
    namespace
        .fields("metadata.labels")
        .and_then(|labels| labels.get(ADMIN_LABEL)?.as_str())
        .is_some_and(|value| value == "true")
}

/// Where this write asks for administrators' access; nowhere, where it was granted before. The specs never change.
fn admin_access(call: &Call<'_>, new: &Value, old: Option<&Value>) -> Option<Path> {
    let requests = Path::new("spec").child("devices").child("requests");
    match (call.kind.resource.plural, call.subresource, old) {
        ("resourceclaims", "", None) => {
            asked(&requests, new.items("spec.devices.requests"), "exactly.adminAccess")
        }
        // Upstream names the place as a claim has it.
        ("resourceclaimtemplates", "", None) => {
            asked(&requests, new.items("spec.spec.devices.requests"), "exactly.adminAccess")
        }
        ("resourceclaims", "status", Some(old)) => {
            const RESULTS: &str = "status.allocation.devices.results";
            let at = Path::from(RESULTS);
            let granted = asked(&at, old.items(RESULTS), "adminAccess").is_some();
            asked(&at, new.items(RESULTS), "adminAccess").filter(|_| !granted)
        }
        _ => None,
    }
}

/// The first item that asks for it.
fn asked(list: &Path, items: &[Value], key: &str) -> Option<Path> {
    items.iter().position(|item| item.flag(key)).map(|index| list.index(index).child("adminAccess"))
}

/// The verbs by which somebody may speak for a driver, any of which will do.
fn driver_verbs(verb: &str, user: &User, claim: &Value) -> Vec<String> {
    let anywhere = format!("arbitrary-node:{verb}");
    let node = node_of(claim);
    let bound = user.extra.get(NODE_NAME).map(Vec::as_slice).unwrap_or_default();
    let is_account = user.name.starts_with("system:serviceaccount:");
    match (node, bound) {
        (Some(node), [own]) if is_account && own == node && names::dns1123_subdomain(own).is_empty() => {
            vec![format!("associated-node:{verb}"), anywhere]
        }
        _ => vec![anywhere],
    }
}

/// The one node a claim's devices are on.
fn node_of(claim: &Value) -> Option<&str> {
    let [term] = claim.items("status.allocation.nodeSelector.nodeSelectorTerms") else { return None };
    let ([], [field]) = (term.items("matchExpressions"), term.items("matchFields")) else { return None };
    let [node] = field.items("values") else { return None };
    let named = field.text("key") == "metadata.name" && field.text("operator") == "In";
    node.as_str().filter(|node| named && !node.is_empty())
}

/// The drivers of devices that came, went, or are said to do otherwise.
fn changed_drivers<'v>(new: &'v Value, old: &'v Value) -> BTreeSet<&'v str> {
    let key = |device: &'v Value| ["driver", "pool", "device", "shareID"].map(|part| device.text(part));
    let mut before: BTreeMap<[&str; 4], &Value> =
        old.items("status.devices").iter().map(|device| (key(device), device)).collect();
    let mut drivers = BTreeSet::new();
    for device in new.items("status.devices") {
        if before.remove(&key(device)) != Some(device) {
            drivers.insert(device.text("driver"));
        }
    }
    drivers.extend(before.into_values().map(|device| device.text("driver")));
    drivers
}

#[cfg(test)]
mod tests;
