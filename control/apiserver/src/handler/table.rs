//! What else than the object itself may be asked for: `meta.k8s.io` tables, which `kubectl get` prints, and metadata alone.

use crate::context::Context;
use crate::registry::kind::Kind;
use machinery::object;
use machinery::resources;
use serde_json::{Value, json};

/// What each row carries of its object (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    #[default]
    Metadata,
    Object,
}

impl Include {
    pub(crate) fn parse(context: &Context) -> Self {
        match context.query("includeObject") {
            Some("None") => Include::None,
            Some("Object") => Include::Object,
            _ => Include::Metadata,
        }
    }
}

/// The list metadata of a table of one object.
pub(crate) fn single_meta(object: &Value) -> Value {
    json!({"resourceVersion": object::resource_version(object)})
}

/// `metadata` alone.
pub(crate) fn partial(version: &str, object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

/// The columns of a kind's table.
pub(crate) fn columns(kind: &Kind) -> Value {
    kind.rules().columns()
}

pub(crate) fn row(kind: &Kind, version: &str, object: &Value, include: Include) -> Value {
    let mut row = kind.rules().row(object, jiff::Timestamp::now());
    match include {
        Include::None => {}
        Include::Metadata => row["object"] = partial(version, object),
        Include::Object => {
            let mut object = object.clone();
            kind.to_client(&mut object);
            row["object"] = object;
        }
    }
    row
}

/// A table of one Scale, which is no resource's own kind.
pub(crate) fn of_scale(version: &str, scale: &Value, include: Include) -> Value {
    let (group, kind) = ("autoscaling", "Scale");
    let columns: Value =
        resources::table::columns_of(group, kind).iter().map(resources::table::Column::definition).collect();
    let mut row = json!({"cells": resources::table::cells_of(group, kind, scale, jiff::Timestamp::now())});
    match include {
        Include::None => {}
        Include::Metadata => row["object"] = partial(version, scale),
        Include::Object => row["object"] = scale.clone(),
    }
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": single_meta(scale),
        "columnDefinitions": columns,
        "rows": [row],
    })
}

/// A table of objects of the stored version.
pub(crate) fn of(kind: &Kind, version: &str, objects: &[Value], meta: Value, include: Include) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": meta,
        "columnDefinitions": columns(kind),
        "rows": objects.iter().map(|o| row(kind, version, o, include)).collect::<Vec<_>>(),
    })
}
