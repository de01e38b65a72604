//! `componentstatuses`: the parts of the control plane, as their health checks find them (upstream:
//! `pkg/registry/core/componentstatus`).

use super::super::{Exchange, respond, table::Include};
use crate::context::Response;
use crate::registry::list::List;
use crate::registry::stored;
use http::StatusCode;
use machinery::access::set_at;
use machinery::object::Gr;
use machinery::status::Status;
use serde_json::{Value, json};

/// Each part, and the check that speaks for it.
const COMPONENTS: [(&str, &str); 3] =
    [("controller-manager", "controllers"), ("etcd-0", "etcd"), ("scheduler", "scheduler")];

/// A part without a check of its own is part of this process, and as well as it.
fn status(x: &Exchange<'_>, name: &str, check: &str) -> Result<Value, Status> {
    let healthy = x.registry.front()?.passes(check).unwrap_or(true);
    let mut condition = json!({"type": "Healthy", "status": "True", "message": "ok"});
    if !healthy {
        condition =
            json!({"type": "Healthy", "status": "False", "error": format!("the check {check} failed")});
    }
    let mut component = json!({"apiVersion": "v1", "kind": "ComponentStatus", "conditions": [condition]});
    set_at(&mut component, "metadata.name", name);
    Ok(component)
}

pub(super) fn get(x: &Exchange<'_>) -> Result<Response, Status> {
    let accept = x.accept(false)?;
    let asked = x.context.info.name.as_str();
    let Some((name, check)) = COMPONENTS.iter().find(|(name, _)| *name == asked) else {
        return Err(Status::not_found(&Gr::new("", "componentstatus"), asked));
    };
    let component = status(x, name, check)?;
    Ok(respond::object(StatusCode::OK, &accept, &x.kind, component, Include::parse(x.context)))
}

pub(super) fn list(x: &Exchange<'_>) -> Result<Response, Status> {
    let accept = x.accept(false)?;
    let mut list = List::default();
    for (name, check) in COMPONENTS {
        list.items.push(stored::encode(&status(x, name, check)?).map_err(Status::internal_error)?);
    }
    Ok(respond::list(&accept, &x.kind, &list, Include::parse(x.context)))
}
