//! The options of each verb, from the query (and, for deletes, the body).

use super::kind::Kind;
use super::operation::Operation;
use crate::context::Context;
use machinery::access::{Get as _, object_at};
use machinery::fields::FieldSelector;
use machinery::labels::Selector;
use machinery::status::Status;
use serde_json::{Map, Value, json};
use std::time::Duration;
use store::Revision;

/// The group version options are sent as.
const META: &str = "meta.k8s.io/v1";

fn flag(context: &Context, name: &str) -> bool {
    matches!(context.query(name), Some("" | "1" | "true" | "True" | "TRUE" | "t" | "T"))
}

fn number(context: &Context, name: &str) -> Result<Option<i64>, Status> {
    match context.query(name) {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            Status::bad_request(format!(
                "unable to decode query parameter {name}: strconv.ParseInt: parsing {text:?}: invalid syntax"
            ))
        }),
    }
}

fn revision(context: &Context) -> Result<Option<Revision>, Status> {
    match context.query("resourceVersion") {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            Status::bad_request(format!(
                "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
            ))
        }),
    }
}

/// How strictly unknown and duplicate fields are met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// Options of create, update and patch.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    pub field_validation: FieldValidation,
    /// `force`, of apply.
    pub force: Option<bool>,
    /// The change is an apply: it brings its owners with it.
    pub applies: bool,
    /// Of these, what the client gave, as admission webhooks are shown it.
    pub given: Map<String, Value>,
}

impl WriteOptions {
    pub(crate) fn parse(context: &Context) -> Result<Self, Status> {
        let mut dry_run = false;
        for (_, value) in context.query.iter().filter(|(n, _)| n == "dryRun") {
            match value.as_str() {
                "All" => dry_run = true,
                "" => {}
                other => {
                    return Err(Status::bad_request(format!(
                        "dryRun: Unsupported value: {other:?}: supported values: \"All\""
                    )));
                }
            }
        }
        let field_validation = match context.query("fieldValidation") {
            None | Some("") => FieldValidation::default(),
            Some("Ignore") => FieldValidation::Ignore,
            Some("Warn") => FieldValidation::Warn,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                return Err(Status::bad_request(format!(
                    "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
                )));
            }
        };
        let mut given = Map::new();
        if dry_run {
            given.insert("dryRun".to_owned(), json!(["All"]));
        }
        for name in ["fieldManager", "fieldValidation"] {
            if let Some(text) = context.query(name).filter(|text| !text.is_empty()) {
                given.insert(name.to_owned(), text.into());
            }
        }
        let field_manager = match context.query("fieldManager") {
            Some(manager) if !manager.is_empty() => manager.to_owned(),
            // Upstream: the user agent up to the first slash.
            _ => context.user_agent.split('/').next().unwrap_or_default().to_owned(),
        };
        Ok(WriteOptions {
            dry_run,
            field_manager,
            field_validation,
            applies: false,
            force: context.query("force").map(|f| matches!(f, "true" | "1" | "")),
            given,
        })
    }

    /// `CreateOptions` or `UpdateOptions`; an update by patch has the latter, too.
    pub(crate) fn as_sent(&self, operation: Operation) -> Value {
        let kind = if operation == Operation::Create { "CreateOptions" } else { "UpdateOptions" };
        let mut sent = self.given.clone();
        sent.insert("kind".to_owned(), kind.into());
        sent.insert("apiVersion".to_owned(), META.into());
        Value::Object(sent)
    }
}

/// How a list's resourceVersion is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    NotOlderThan,
    Exact,
}

/// Options of list, watch and deletecollection.
#[derive(Clone, Debug)]
pub(crate) struct ListOptions {
    pub labels: Selector,
    pub fields: FieldSelector,
    pub limit: usize,
    pub continue_token: String,
    pub revision: Option<Revision>,
    pub revision_match: Option<Match>,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
    pub timeout: Option<Duration>,
}

impl ListOptions {
    /// Reads and checks the options of a list or watch of `kind`.
    pub(crate) fn parse(context: &Context, kind: &Kind, watch: bool) -> Result<Self, Status> {
        let labels = match context.query("labelSelector") {
            None | Some("") => Selector::everything(),
            Some(text) => Selector::parse(text).map_err(|e| Status::bad_request(e.to_string()))?,
        };
        let fields = match context.query("fieldSelector") {
            None | Some("") => FieldSelector::everything(),
            Some(text) => FieldSelector::parse(text).map_err(|e| Status::bad_request(e.to_string()))?,
        };
        for term in fields.terms() {
            if !kind.resource.selects_by(&term.field) {
                return Err(Status::bad_request(kind.unknown_field_label(&term.field)));
            }
        }
        let options = ListOptions {
            labels,
            fields,
            limit: number(context, "limit")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
            continue_token: context.query("continue").unwrap_or_default().to_owned(),
            revision: revision(context)?,
            revision_match: match context.query("resourceVersionMatch") {
                None | Some("") => None,
                Some("NotOlderThan") => Some(Match::NotOlderThan),
                Some("Exact") => Some(Match::Exact),
                Some(other) => {
                    return Err(Status::bad_request(format!(
                        "resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""
                    )));
                }
            },
            bookmarks: flag(context, "allowWatchBookmarks"),
            send_initial_events: context
                .query("sendInitialEvents")
                .map(|_| flag(context, "sendInitialEvents")),
            timeout: number(context, "timeoutSeconds")?
                .and_then(|s| u64::try_from(s).ok())
                .filter(|s| *s > 0)
                .map(Duration::from_secs),
        };
        options.check(context, watch)?;
        Ok(options)
    }

    /// Upstream: `apimachinery/pkg/apis/meta/internalversion/validation`.
    fn check(&self, context: &Context, watch: bool) -> Result<(), Status> {
        let has_match = self.revision_match.is_some();
        let text = context.query("resourceVersion").unwrap_or_default();
        let forbidden = |field: &str, why: &str| {
            Err(Status::failure(
                422,
                machinery::status::Reason::Invalid,
                format!("ListOptions.meta.k8s.io \"\" is invalid: {field}: Forbidden: {why}"),
            ))
        };
        if watch {
            return match (self.send_initial_events, self.revision_match) {
                (Some(_), None) => forbidden(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ),
                (Some(_), Some(Match::Exact)) => forbidden(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ),
                (None, Some(_)) => forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ),
                _ => Ok(()),
            };
        }
        if self.send_initial_events.is_some() {
            return forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
        }
        if has_match && text.is_empty() {
            return forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            );
        }
        if has_match && !self.continue_token.is_empty() {
            return forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden when continue is provided",
            );
        }
        if self.revision_match == Some(Match::Exact) && text == "0" {
            return forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            );
        }
        Ok(())
    }
}

/// What becomes of an object's dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// Options of delete and deletecollection.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub grace: Option<i64>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub orphan: Option<bool>,
    pub propagation: Option<Propagation>,
    pub dry_run: bool,
}

impl DeleteOptions {
    /// The `DeleteOptions` object that says the same.
    pub(crate) fn as_sent(&self) -> Value {
        let mut sent = json!({"kind": "DeleteOptions", "apiVersion": META});
        if let Some(grace) = self.grace {
            sent["gracePeriodSeconds"] = grace.into();
        }
        if let Some(orphan) = self.orphan {
            sent["orphanDependents"] = orphan.into();
        }
        if let Some(propagation) = self.propagation {
            sent["propagationPolicy"] = format!("{propagation:?}").into();
        }
        for (name, value) in [("uid", &self.uid), ("resourceVersion", &self.resource_version)] {
            if let Some(value) = value {
                object_at(&mut sent, "preconditions").insert(name.to_owned(), value.clone().into());
            }
        }
        if self.dry_run {
            sent["dryRun"] = json!(["All"]);
        }
        sent
    }

    /// From the body (null where there is none; it wins) and the query.
    pub(crate) fn parse(context: &Context, body: &Value) -> Result<Self, Status> {
        let mut options = DeleteOptions::default();
        let dry_run: Vec<&str>;
        let propagation;
        if body.is_object() {
            options.grace = body.get("gracePeriodSeconds").and_then(Value::as_i64);
            options.orphan = body.get("orphanDependents").and_then(Value::as_bool);
            let precondition = |name| {
                body.get("preconditions").and_then(|p| p.get(name)).and_then(Value::as_str).map(str::to_owned)
            };
            options.uid = precondition("uid");
            options.resource_version = precondition("resourceVersion");
            propagation = body.get("propagationPolicy").and_then(Value::as_str);
            dry_run = body.items("dryRun").iter().filter_map(Value::as_str).collect();
        } else {
            options.grace = number(context, "gracePeriodSeconds")?;
            options.orphan = context.query("orphanDependents").map(|_| flag(context, "orphanDependents"));
            propagation = context.query("propagationPolicy");
            dry_run = context.query.iter().filter(|(n, _)| n == "dryRun").map(|(_, v)| v.as_str()).collect();
        }
        let invalid = |text: String| {
            Status::failure(
                422,
                machinery::status::Reason::Invalid,
                format!("DeleteOptions.meta.k8s.io \"\" is invalid: {text}"),
            )
        };
        options.propagation = match propagation {
            None | Some("") => None,
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                return Err(invalid(format!(
                    "propagationPolicy: Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
                )));
            }
        };
        if options.propagation.is_some() && options.orphan.is_some() {
            return Err(invalid(
                "propagationPolicy: Invalid value: \"orphanDependents and deletionPropagation cannot be both set\""
                    .to_owned(),
            ));
        }
        options.dry_run = match dry_run.as_slice() {
            [] | [""] => false,
            all if all.iter().all(|d| *d == "All") => true,
            other => {
                return Err(invalid(format!(
                    "dryRun: Unsupported value: {:?}: supported values: \"All\"",
                    other.first().copied().unwrap_or_default()
                )));
            }
        };
        Ok(options)
    }
}
