//! The options of each verb, from the query (and, for deletes, the body).

use super::kind::Kind;
use super::operation::Operation;
use crate::context::Context;
use crate::query;
use machinery::access::{Get as _, object_at};
use machinery::field::{FieldError, Path};
use machinery::fields::FieldSelector;
use machinery::goformat::{go_quote, is_unprintable};
use machinery::labels::Selector;
use machinery::object::Gk;
use machinery::status::Status;
use serde_json::{Map, Value, json};
use std::num::{IntErrorKind, ParseIntError};
use std::time::Duration;
use store::Revision;

/// The group version options are sent as.
const META: &str = "meta.k8s.io/v1";

fn flag(context: &Context, name: &str) -> bool {
    query::flag(&context.query, name)
}

/// Where it is given at all.
fn optional_flag(context: &Context, name: &str) -> Option<bool> {
    context.query(name).map(|_| flag(context, name))
}

fn number(context: &Context, name: &str) -> Result<Option<i64>, Status> {
    let Some(text) = context.query(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|e: ParseIntError| {
        let why = match e.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        Status::bad_request(format!("strconv.ParseInt: parsing {}: {why}", go_quote(text)))
    })
}

/// 422 of options of this kind, where there is anything wrong with them.
fn valid(kind: &str, errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&Gk::new("meta.k8s.io", kind), "", errors)) }
}

/// All there is wrong with `dryRun`: one value that is not `All` is reported with the others.
fn check_dry_run(values: &[&str], errors: &mut Vec<FieldError>) {
    if values.iter().any(|value| *value != "All") {
        errors.push(FieldError::not_supported(&Path::new("dryRun"), json!(values), &["All"]));
    }
}

/// The longest name of a field manager, in bytes.
const MANAGER_MAX: usize = 128;

fn check_manager(manager: &str, errors: &mut Vec<FieldError>) {
    let path = Path::new("fieldManager");
    if manager.len() > MANAGER_MAX {
        errors.push(FieldError::too_long(&path, MANAGER_MAX));
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| is_unprintable(*c)) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.push(FieldError::invalid(&path, manager, why));
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
    /// `applies`: the request is an apply, which must say who applies.
    pub(crate) fn parse(context: &Context, applies: bool) -> Result<Self, Status> {
        let kind = match context.info.verb.as_str() {
            "create" => "CreateOptions",
            "update" => "UpdateOptions",
            "patch" => "PatchOptions",
            // Deletes and connects have options of their own.
            _ => return Ok(WriteOptions::default()),
        };
        let all = context.query.iter().filter(|(name, _)| name == "dryRun");
        let dry_run: Vec<&str> = all.map(|(_, value)| value.as_str()).collect();
        let manager = context.query("fieldManager").unwrap_or_default();
        let validation = context.query("fieldValidation").unwrap_or_default();
        let force = optional_flag(context, "force").filter(|_| kind == "PatchOptions");
        let mut errors = Vec::new();
        if applies && manager.is_empty() {
            let why = "is required for apply patch";
            errors.push(FieldError::required(&Path::new("fieldManager"), why));
        }
        if !applies && force.is_some() {
            let why = "may not be specified for non-apply patch";
            errors.push(FieldError::forbidden(&Path::new("force"), why));
        }
        check_manager(manager, &mut errors);
        check_dry_run(&dry_run, &mut errors);
        let field_validation = match validation {
            "Ignore" => FieldValidation::Ignore,
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            other => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                errors.push(FieldError::not_supported(&Path::new("fieldValidation"), other, &supported));
                FieldValidation::default()
            }
        };
        valid(kind, &errors)?;
        let dry_run = !dry_run.is_empty();
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
            _ => match context.user_agent.split('/').next() {
                None | Some("") => "unknown".to_owned(),
                Some(agent) => agent.to_owned(),
            },
        };
        Ok(WriteOptions { dry_run, field_manager, field_validation, applies: false, force, given })
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
    /// No such way; the options are refused.
    Unknown,
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
                Some(_) => Some(Match::Unknown),
            },
            bookmarks: flag(context, "allowWatchBookmarks"),
            send_initial_events: optional_flag(context, "sendInitialEvents"),
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
        let (text, field) = (context.query("resourceVersion").unwrap_or_default(), "resourceVersionMatch");
        let given = context.query(field).unwrap_or_default();
        let mut errors = Vec::new();
        let mut forbid = |field: &str, why: &str| errors.push(FieldError::forbidden(&Path::new(field), why));
        let unsupported =
            |supported: &[&str]| FieldError::not_supported_as_listed(&Path::new(field), given, supported);
        const AFTER_CONTINUE: &str = "resourceVersionMatch is forbidden when continue is provided";
        if watch {
            let starts = self.send_initial_events.is_some();
            if starts && self.revision_match != Some(Match::NotOlderThan) {
                forbid(field, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
            }
            if let Some(wanted) = self.revision_match {
                if !starts {
                    forbid(
                        field,
                        "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                    );
                }
                let continued = !self.continue_token.is_empty();
                if wanted != Match::NotOlderThan {
                    errors.push(unsupported(&["NotOlderThan"]));
                }
                if continued {
                    errors.push(FieldError::forbidden(&Path::new(field), AFTER_CONTINUE));
                }
            }
            return valid("ListOptions", &errors);
        }
        if let Some(wanted) = self.revision_match {
            if text.is_empty() {
                forbid(field, "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if !self.continue_token.is_empty() {
                forbid(field, AFTER_CONTINUE);
            }
            if wanted == Match::Unknown {
                errors.push(unsupported(&["Exact", "NotOlderThan", ""]));
            }
            if wanted == Match::Exact && text == "0" {
                let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                errors.push(FieldError::forbidden(&Path::new(field), why));
            }
        }
        if self.send_initial_events.is_some() {
            let path = Path::new("sendInitialEvents");
            errors.push(FieldError::forbidden(&path, "sendInitialEvents is forbidden for list"));
        }
        valid("ListOptions", &errors)
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
    /// Nobody collects dependents: the server's own word, not the client's.
    pub uncollected: bool,
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
            options.orphan = optional_flag(context, "orphanDependents");
            propagation = context.query("propagationPolicy");
            dry_run = context.query.iter().filter(|(n, _)| n == "dryRun").map(|(_, v)| v.as_str()).collect();
        }
        let path = Path::new("propagationPolicy");
        let mut errors = Vec::new();
        if let (Some(policy), Some(_)) = (propagation, options.orphan) {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid(&path, policy, why));
        }
        options.propagation = match propagation {
            None => None,
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(FieldError::not_supported_as_listed(&path, other, &supported));
                None
            }
        };
        check_dry_run(&dry_run, &mut errors);
        valid("DeleteOptions", &errors)?;
        options.dry_run = !dry_run.is_empty();
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(verb: &str, query: &str) -> Context {
        let mut context = Context { query: query::parse(query), ..Context::default() };
        context.info.verb = verb.to_owned();
        context
    }

    #[test]
    fn invalid_options_must_not_be_a_bad_request_without_causes() {
        let refused = |verb: &str, query: &str, applies: bool| {
            let status = WriteOptions::parse(&asked(verb, query), applies).unwrap_err();
            (status.code, status.message)
        };
        let invalid = |kind: &str, why: &str| (422, format!("{kind}.meta.k8s.io \"\" is invalid: {why}"));
        assert_eq!(
            refused("create", "dryRun=All&dryRun=x", false),
            invalid("CreateOptions", "dryRun: Unsupported value: [\"All\",\"x\"]: supported values: \"All\"")
        );
        assert_eq!(
            refused("update", "fieldValidation=x", false),
            invalid(
                "UpdateOptions",
                "fieldValidation: Unsupported value: \"x\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
            )
        );
        assert_eq!(
            refused("patch", "force=true&fieldManager=a%01", false),
            invalid(
                "PatchOptions",
                "[force: Forbidden: may not be specified for non-apply patch, \
                 fieldManager: Invalid value: \"a\\x01\": invalid character U+0001 (at position 1)]"
            )
        );
        let long = format!("fieldManager={}", "a".repeat(129));
        assert_eq!(
            refused("patch", &long, true),
            invalid("PatchOptions", "fieldManager: Too long: may not be more than 128 bytes")
        );
        assert_eq!(
            refused("patch", "", true),
            invalid("PatchOptions", "fieldManager: Required value: is required for apply patch")
        );
        assert!(WriteOptions::parse(&asked("delete", "dryRun=x"), false).is_ok(), "a delete's are its own");
    }

    #[test]
    fn a_client_without_a_name_must_not_write_in_the_servers() {
        let manager = |agent: &str, query: &str| {
            let mut context = asked("create", query);
            agent.clone_into(&mut context.user_agent);
            WriteOptions::parse(&context, false).unwrap().field_manager
        };
        assert_eq!(manager("", ""), "unknown");
        assert_eq!(manager("/1.0", ""), "unknown");
        assert_eq!(manager("kubectl/v1.36 (linux)", ""), "kubectl");
        assert_eq!(manager("", "fieldManager=me"), "me");
    }

    #[test]
    fn a_delete_must_not_be_told_of_another_policy_than_it_asked_for() {
        let refused = |body: Value| DeleteOptions::parse(&asked("delete", ""), &body).unwrap_err().message;
        assert_eq!(
            refused(json!({"propagationPolicy": "Orphan", "orphanDependents": true, "dryRun": ["x"]})),
            "DeleteOptions.meta.k8s.io \"\" is invalid: [propagationPolicy: Invalid value: \"Orphan\": orphanDependents and \
             deletionPropagation cannot be both set, dryRun: Unsupported value: [\"x\"]: supported values: \"All\"]"
        );
        assert_eq!(
            refused(json!({"propagationPolicy": "x"})),
            "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"x\": supported values: \
             \"Foreground\", \"Background\", \"Orphan\", \"nil\""
        );
        let error = DeleteOptions::parse(&asked("delete", "gracePeriodSeconds=x"), &Value::Null).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (400, "strconv.ParseInt: parsing \"x\": invalid syntax")
        );
    }

    #[test]
    fn a_list_must_not_be_told_one_fault_of_two() {
        let Some(kind) = Kind::of("", "configmaps") else { panic!("no config maps") };
        let refused = |query: &str, watch| {
            let error = ListOptions::parse(&asked("list", query), &kind, watch).unwrap_err();
            error.message.replace("ListOptions.meta.k8s.io \"\" is invalid: ", "")
        };
        assert_eq!(
            refused("resourceVersionMatch=x&resourceVersion=1&sendInitialEvents=true", false),
            "[resourceVersionMatch: Unsupported value: \"x\": supported values: \"Exact\", \"NotOlderThan\", \"\", \
             sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list]"
        );
        assert_eq!(
            refused("resourceVersionMatch=Exact&sendInitialEvents=false", true),
            "[resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan, \
             resourceVersionMatch: Unsupported value: \"Exact\": supported values: \"NotOlderThan\"]"
        );
        assert_eq!(
            refused("limit=99999999999999999999", false),
            "strconv.ParseInt: parsing \"99999999999999999999\": value out of range"
        );
    }
}
