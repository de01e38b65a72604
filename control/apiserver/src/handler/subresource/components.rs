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

/// What is said of a part: what it `said` itself where it is a program of its own, or whether the `check` of this process passes that
/// speaks for it. One without such a check is as well as this process.
fn condition(said: Option<Result<String, String>>, passes: Option<bool>, check: &str) -> Value {
    match (said, passes) {
        (Some(Ok(said)), _) => json!({"type": "Healthy", "status": "True", "message": said}),
        (Some(Err(why)), _) => json!({"type": "Healthy", "status": "False", "message": why}),
        (None, None | Some(true)) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        (None, Some(false)) => {
            json!({"type": "Healthy", "status": "False", "error": format!("the check {check} failed")})
        }
    }
}

async fn status(x: &Exchange<'_>, name: &str, check: &str) -> Result<Value, Status> {
    let front = x.registry.front()?;
    let condition = condition(front.ask_neighbour(name).await, front.passes(check), check);
    let mut component = json!({"apiVersion": "v1", "kind": "ComponentStatus", "conditions": [condition]});
    set_at(&mut component, "metadata.name", name);
    Ok(component)
}

pub(super) async fn get(x: &Exchange<'_>) -> Result<Response, Status> {
    let accept = x.accept(false)?;
    let asked = x.context.info.name.as_str();
    let Some((name, check)) = COMPONENTS.iter().find(|(name, _)| *name == asked) else {
        return Err(Status::not_found(&Gr::new("", "componentstatus"), asked));
    };
    let component = status(x, name, check).await?;
    Ok(respond::object(StatusCode::OK, &accept, &x.kind, component, Include::parse(x.context)))
}

pub(super) async fn list(x: &Exchange<'_>) -> Result<Response, Status> {
    let accept = x.accept(false)?;
    let mut list = List::default();
    // Each may take its time to answer.
    let asked = COMPONENTS.iter().map(|(name, check)| status(x, name, check));
    for component in futures::future::try_join_all(asked).await? {
        list.items.push(stored::encode(&component).map_err(Status::internal_error)?);
    }
    Ok(respond::list(&accept, &x.kind, &list, Include::parse(x.context)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_asked_must_not_be_answered_for() {
        let says =
            |status: &str, name: &str, text: &str| json!({"type": "Healthy", "status": status, name: text});
        for (said, passes, expected) in [
            (Some(Err("refused".to_owned())), None, says("False", "message", "refused")),
            (Some(Err("refused".to_owned())), Some(true), says("False", "message", "refused")),
            (Some(Ok("fine".to_owned())), Some(false), says("True", "message", "fine")),
            (None, None, says("True", "message", "ok")),
            (None, Some(true), says("True", "message", "ok")),
            (None, Some(false), says("False", "error", "the check c failed")),
        ] {
            assert_eq!(condition(said, passes, "c"), expected);
        }
    }
}
