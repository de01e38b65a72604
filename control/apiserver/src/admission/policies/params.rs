//! The parameters a binding gives its policy. Upstream: `CollectParams` in `policy/generic/policy_dispatcher.go`.

use super::definition::{Binding, Policy};
use crate::registry::Registry;
use crate::registry::kind::Kind;
use machinery::access::Get as _;
use machinery::labels::Selector;
use machinery::object::{self, parse_api_version};
use serde_json::{Map, Value};

/// The kind of the policy's parameters, if it has any.
pub(super) fn kind(registry: &Registry, policy: &Policy) -> Result<Option<Kind>, String> {
    let Some((api_version, kind)) = &policy.param_kind else { return Ok(None) };
    let found = parse_api_version(api_version)
        .and_then(|(group, version)| registry.by_kind(group, version, kind))
        .ok_or_else(|| {
            format!("failed to find resource referenced by paramKind: '{api_version}, Kind={kind}'")
        })?;
    Ok(Some(found))
}

/// Every parameter object to evaluate the policy with, null for none; the error is a misconfiguration. Without any entry the
/// policy is not evaluated at all.
pub(super) async fn collect(
    registry: &Registry,
    kind: Option<Kind>,
    binding: &Binding,
    namespace: &str,
) -> Result<Vec<Value>, String> {
    let (Some(kind), Some(reference)) = (kind, &binding.params) else { return Ok(vec![Value::Null]) };
    let given = reference.text("namespace");
    let namespace = match (kind.resource.namespaced, given) {
        (false, "") => "",
        (false, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
        }
        (true, "") if namespace.is_empty() => {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                    .to_owned(),
            );
        }
        (true, "") => namespace,
        (true, given) => given,
    };
    let name = reference.text("name");
    let mut found = Vec::new();
    if !name.is_empty() {
        found.extend(registry.lookup(&kind, namespace, name).await.map_err(|e| e.message)?);
    } else if let Some(selector) = reference.present("selector") {
        let selector = Selector::from_label_selector(selector).map_err(|e| e.to_string())?;
        let empty = Map::new();
        registry.filled(&kind).await.map_err(|e| e.message)?;
        let all = registry.cached(&kind, namespace).map_err(|e| e.message)?;
        found.extend(all.into_iter().filter(|o| selector.matches(object::labels(o).unwrap_or(&empty))));
    }
    if found.is_empty() && reference.text("parameterNotFoundAction") == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    let mut params = Vec::with_capacity(found.len());
    for object in found {
        let mut object = registry.present(&kind, object).await.map_err(|e| e.message)?;
        kind.to_client(&mut object);
        params.push(object);
    }
    Ok(params)
}
