//! The FlowSchemas and PriorityLevelConfigurations every cluster has, and the Dangling condition of all schemas.
//!
//! Woken by changes of either resource, and every minute. Makes what is missing; brings mandatory objects, and suggested ones
//! that are marked to follow, back to what they should be; says of every schema whether its level exists. Upstream:
//! `pkg/registry/flowcontrol/ensurer`, `apiserver/pkg/util/flowcontrol/apf_controller.go`.

use super::reconcile::{self, Read, Round};
use crate::flow::GROUP;
use crate::flow::defaults::{self, AUTO_UPDATE};
use crate::registry::kind::Kind;
use crate::write::Writer;
use machinery::access::{Get as _, set_at};
use machinery::object;
use machinery::status::Status;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How often all is looked at again.
pub(super) const EVERY: Duration = Duration::from_secs(60);

fn kinds() -> Option<(Kind, Kind)> {
    Some((Kind::of(GROUP, "flowschemas")?, Kind::of(GROUP, "prioritylevelconfigurations")?))
}

pub(super) fn reads() -> Option<Vec<Read>> {
    Some(vec![reconcile::all(GROUP, "flowschemas")?, reconcile::all(GROUP, "prioritylevelconfigurations")?])
}

pub(super) fn reconcile(writer: Arc<Writer>) -> Round {
    Box::pin(async move {
        let writer = &*writer;
        let Some((schemas, levels)) = kinds() else { return Ok(()) };
        keep(writer, &levels, defaults::mandatory_levels(), true).await?;
        keep(writer, &levels, defaults::suggested_levels(), false).await?;
        keep(writer, &schemas, defaults::mandatory_schemas(), true).await?;
        keep(writer, &schemas, defaults::suggested_schemas(), false).await?;
        conditions(writer, &schemas, &levels).await
    })
}

/// Does the server decide what this object says?
fn follows(object: &Value) -> bool {
    match object::annotation(object, AUTO_UPDATE) {
        Some(said) => said == "true",
        // Nobody said, and nobody has changed it.
        None => object::generation(object) == 1,
    }
}

async fn keep(writer: &Writer, kind: &Kind, wanted: Vec<Value>, mandatory: bool) -> Result<(), Status> {
    for mut wanted in wanted {
        let name = object::name(&wanted).to_owned();
        kind.default(&mut wanted);
        let Some(present) = writer.registry.lookup(kind, "", &name).await? else {
            writer.ensure(kind, wanted).await?;
            continue;
        };
        // What the exempt level lends is its administrator's choice.
        if let Some(exempt) = present.present("spec.exempt") {
            set_at(&mut wanted, "spec.exempt", exempt.clone());
        }
        let marked = object::annotation(&present, AUTO_UPDATE) == Some("true");
        if !(mandatory || follows(&present)) || (marked && present.get("spec") == wanted.get("spec")) {
            continue;
        }
        let change = |old: &Value| {
            let mut new = old.clone();
            object::set_resource_version(&mut new, "");
            set_at(&mut new, "spec", wanted.get("spec").cloned().unwrap_or_default());
            object::set_annotation(&mut new, AUTO_UPDATE, Some("true"));
            Ok(new)
        };
        writer.amend(kind, "", &name, "", &change).await?;
    }
    Ok(())
}

async fn conditions(writer: &Writer, schemas: &Kind, levels: &Kind) -> Result<(), Status> {
    let levels = writer.registry.cached(levels, "")?;
    let known: BTreeSet<&str> = levels.iter().map(object::name).collect();
    for schema in writer.registry.cached(schemas, "")? {
        let level = schema.text("spec.priorityLevelConfiguration.name");
        let wanted = dangling(level, known.contains(level));
        reconcile::say(writer, schemas, &schema, &wanted).await?;
    }
    Ok(())
}

/// The condition of a schema whose level does or does not exist.
fn dangling(level: &str, exists: bool) -> Value {
    let reference =
        format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = if exists {
        ("False", "Found", format!("{reference} and it exists"))
    } else {
        ("True", "NotFound", format!("{reference} but there is no such object"))
    };
    json!({"type": "Dangling", "status": status, "reason": reason, "message": message})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_marked_or_untouched_follows() {
        let object = |mark: Value, generation: i64| json!({"metadata": {"generation": generation, "annotations": mark}});
        assert!(follows(&object(json!({AUTO_UPDATE: "true"}), 5)));
        assert!(!follows(&object(json!({AUTO_UPDATE: "false"}), 1)));
        assert!(follows(&object(json!({}), 1)) && !follows(&object(json!({}), 2)));
    }
}
