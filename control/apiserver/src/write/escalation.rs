//! Roles and bindings: who writes one must hold what it grants, or be let `escalate` the role or `bind` it.
//!
//! Members of `system:masters` may grant anything; a write that only lets the garbage collector finish grants nothing.
//! Upstream: `pkg/registry/rbac`, its `policybased` storages.

use super::Writer;
use crate::authz::MASTERS;
use crate::authz::rbac::escalation::{full_authority, missing, refusal};
use crate::authz::rbac::{GROUP, PolicyRule};
use crate::context::RequestInfo;
use crate::registry::call::Call;
use crate::registry::hooks::Decision;
use crate::registry::kind::Kind;
use machinery::access::{Get as _, object_at};
use machinery::goformat::go_quote;
use machinery::object;
use machinery::status::{Reason, Status};
use serde::Deserialize as _;
use serde_json::Value;

impl Writer {
    /// Refuses a write of a role or binding that would grant more than its author holds.
    pub(super) async fn no_escalation(
        &self,
        call: &Call<'_>,
        new: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let resource = call.kind.resource;
        if resource.group != GROUP || call.context.user.groups.iter().any(|g| g == MASTERS) {
            return Ok(());
        }
        match resource.plural {
            "roles" | "clusterroles" => {
                if self.may(call, "escalate", resource.plural, &call.name).await?
                    || only_for_collection(new, old)
                {
                    return Ok(());
                }
                self.holds(call, new, &rules(new))?;
                let aggregates = |o: &Value| o.present("aggregationRule").is_some();
                if (aggregates(new) || old.is_some_and(aggregates))
                    && self.holds(call, new, &full_authority()).is_err()
                {
                    return Err(Status::forbidden(
                        &call.kind.gr(),
                        object::name(new),
                        "must have cluster-admin privileges to use the aggregationRule",
                    ));
                }
                Ok(())
            }
            "rolebindings" | "clusterrolebindings" => {
                if old.is_some() && only_for_collection(new, old) {
                    return Ok(());
                }
                let (kind, name) = (new.text("roleRef.kind"), new.text("roleRef.name"));
                let (plural, namespace) = match kind {
                    "ClusterRole" => ("clusterroles", ""),
                    "Role" => ("roles", call.namespace.as_str()),
                    other => {
                        let why = format!("unsupported role reference kind: {}", go_quote(other));
                        return Err(Status::failure(500, Reason::Unknown, why));
                    }
                };
                if self.may(call, "bind", plural, name).await? {
                    return Ok(());
                }
                let Some(roles) = Kind::of(GROUP, plural) else { return Ok(()) };
                let role = self.registry.read_required(&roles, namespace, name).await?;
                self.holds(call, new, &rules(&role))
            }
            _ => Ok(()),
        }
    }

    async fn may(&self, call: &Call<'_>, verb: &str, resource: &str, name: &str) -> Result<bool, Status> {
        let info = RequestInfo::any_version(verb, GROUP, resource, &call.namespace, name);
        Ok(matches!(self.registry.front()?.authorize(&call.context.user, &info).await, Decision::Allow(_)))
    }

    fn holds(&self, call: &Call<'_>, new: &Value, wanted: &[PolicyRule]) -> Result<(), Status> {
        let user = &call.context.user;
        let (owned, errors) = self.registry.front()?.rules_of(user, &call.namespace);
        let missing = missing(&owned, wanted);
        if missing.is_empty() {
            return Ok(());
        }
        Err(Status::forbidden(&call.kind.gr(), object::name(new), refusal(user, &missing, &errors)))
    }
}

fn rules(role: &Value) -> Vec<PolicyRule> {
    role.present("rules").and_then(|rules| Vec::deserialize(rules).ok()).unwrap_or_default()
}

/// Does the change touch nothing but what the garbage collector must be able to remove?
fn only_for_collection(new: &Value, old: Option<&Value>) -> bool {
    let Some(old) = old else { return false };
    let bare = |object: &Value| {
        let mut object = object.clone();
        for own in ["ownerReferences", "finalizers", "managedFields"] {
            object_at(&mut object, "metadata").remove(own);
        }
        object
    };
    bare(new) == bare(old)
}
