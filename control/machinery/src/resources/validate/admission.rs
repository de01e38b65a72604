//! Admission webhooks, and what they share with admission policies: rules, selectors, conditions.
//! Upstream: `pkg/apis/admissionregistration/validation`, `apiserver/pkg/util/webhook`.

pub(super) mod policy;

use serde_json::Value;

use super::{Errors, rules, selector};
use crate::{
    admission::{Declarations, Expression, ResultType, compile},
    field::{FieldError, Path},
    names,
    resources::access::Get,
};

const CONDITIONS_MAX: usize = 64;
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

pub(super) fn webhooks(configuration: &Value, errors: &mut Errors) {
    let hooks = configuration.items("webhooks");
    for (index, hook) in hooks.iter().enumerate() {
        let path = Path::new("webhooks").index(index);
        webhook(&path, hook, errors);
        review_versions(&path.child("admissionReviewVersions"), hook, errors);
        let name = hook.text("name");
        if !name.is_empty() && hooks.iter().take(index).any(|other| other.text("name") == name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
    }
}

/// A webhook's name is a domain of three parts at least.
fn fully_qualified(path: &Path, name: &str, errors: &mut Errors) {
    if !rules::required(path, name, errors) {
        return;
    }
    let messages = names::dns1123_subdomain(name);
    if !messages.is_empty() {
        errors.push(FieldError::invalid(path, name, messages.join(",")));
    } else if name.split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(path, name, detail));
    }
}

fn webhook(path: &Path, hook: &Value, errors: &mut Errors) {
    fully_qualified(&path.child("name"), hook.text("name"), errors);
    for (index, rule) in hook.items("rules").iter().enumerate() {
        rule_with_operations(&path.child("rules").index(index), rule, errors);
    }
    for (key, supported) in [
        ("failurePolicy", &["Fail", "Ignore"]),
        ("matchPolicy", &["Equivalent", "Exact"]),
        ("reinvocationPolicy", &["IfNeeded", "Never"]),
    ] {
        rules::supported_or_empty(&path.child(key), hook.text(key), supported, errors);
    }
    match hook.text("sideEffects") {
        "" => {
            let detail = "must specify one of None, NoneOnDryRun";
            errors.push(FieldError::required(&path.child("sideEffects"), detail));
        }
        effect => {
            rules::supported_or_empty(&path.child("sideEffects"), effect, &["None", "NoneOnDryRun"], errors);
        }
    }
    if let Some(seconds) = hook.int("timeoutSeconds").filter(|seconds| !(1..=30).contains(seconds)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(&path.child("timeoutSeconds"), seconds, detail));
    }
    for key in ["namespaceSelector", "objectSelector"] {
        selector::label_selector(&path.child(key), hook.at(key), errors);
    }
    client_config(&path.child("clientConfig"), hook.at("clientConfig"), errors);
    let conditions = hook.items("matchConditions");
    match_conditions(&path.child("matchConditions"), conditions, false, errors);
}

fn review_versions(path: &Path, hook: &Value, errors: &mut Errors) {
    let versions = hook.items("admissionReviewVersions");
    if versions.is_empty() {
        let detail = format!("must specify one of {}", REVIEW_VERSIONS.join(", "));
        errors.push(FieldError::required(path, detail));
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        if versions.iter().take(index).any(|other| other == version) {
            errors.push(FieldError::invalid(&path.index(index), version.clone(), "duplicate version"));
            continue;
        }
        let version = version.as_str().unwrap_or_default();
        rules::text(&path.index(index), version, names::dns1035_label(version), errors);
    }
    if !versions.iter().any(|version| REVIEW_VERSIONS.iter().any(|known| version == known)) {
        let detail = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.push(FieldError::invalid(path, hook.at("admissionReviewVersions").clone(), detail));
    }
}

/// A list whose wildcard stands alone.
fn alone(path: &Path, list: &Value, what: &str, errors: &mut Errors) {
    let values = list.as_array().map(Vec::as_slice).unwrap_or_default();
    if values.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    if values.len() > 1 && values.iter().any(|value| value == "*") {
        let detail = format!("if '*' is present, must not specify other {what}");
        errors.push(FieldError::invalid(path, list.clone(), detail));
    }
}

fn rule_with_operations(path: &Path, rule: &Value, errors: &mut Errors) {
    alone(&path.child("operations"), rule.at("operations"), "operations", errors);
    for (index, operation) in rule.items("operations").iter().enumerate() {
        let operation = operation.as_str().unwrap_or_default();
        let supported = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
        if !supported.contains(&operation) {
            let path = path.child("operations").index(index);
            errors.push(FieldError::not_supported(&path, operation, &supported));
        }
    }
    alone(&path.child("apiGroups"), rule.at("apiGroups"), "API groups", errors);
    alone(&path.child("apiVersions"), rule.at("apiVersions"), "API versions", errors);
    for (index, version) in rule.items("apiVersions").iter().enumerate() {
        if version == "" {
            errors.push(FieldError::required(&path.child("apiVersions").index(index), ""));
        }
    }
    resources(&path.child("resources"), rule.at("resources"), errors);
    let scopes = ["*", "Cluster", "Namespaced"];
    rules::supported_or_empty(&path.child("scope"), rule.text("scope"), &scopes, errors);
}

/// `pods`, `pods/*`, `*/status`: none of them made superfluous by an earlier one.
fn resources(path: &Path, list: &Value, errors: &mut Errors) {
    let values: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if values.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    let (mut whole, mut every) = (Vec::new(), Vec::new());
    let (mut double, mut single, mut plain) = (false, false, false);
    for (index, entry) in values.iter().enumerate() {
        if entry.is_empty() {
            errors.push(FieldError::required(&path.index(index), ""));
            continue;
        }
        double |= *entry == "*/*";
        single |= *entry == "*";
        let Some((resource, subresource)) = entry.split_once('/') else {
            plain = *entry != "*";
            continue;
        };
        if whole.contains(&resource) {
            let detail = format!("if '{resource}/*' is present, must not specify {entry}");
            errors.push(FieldError::invalid(&path.index(index), *entry, detail));
        }
        if every.contains(&subresource) {
            let detail = format!("if '*/{subresource}' is present, must not specify {entry}");
            errors.push(FieldError::invalid(&path.index(index), *entry, detail));
        }
        if subresource == "*" {
            whole.push(resource);
        }
        if resource == "*" {
            every.push(subresource);
        }
    }
    if values.len() > 1 && double {
        let detail = "if '*/*' is present, must not specify other resources";
        errors.push(FieldError::invalid(path, list.clone(), detail));
    }
    if single && plain {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.push(FieldError::invalid(path, list.clone(), detail));
    }
}

/// Conditions in CEL: named once each, and none empty. Those of policies may have `params`.
fn match_conditions(path: &Path, conditions: &[Value], params: bool, errors: &mut Errors) {
    if conditions.len() > CONDITIONS_MAX {
        errors.push(FieldError::too_many(path, conditions.len(), CONDITIONS_MAX));
    }
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        let expression = condition.text("expression").trim();
        if rules::required(&path.child("expression"), expression, errors) {
            let declarations = Declarations { params, authorizer: true, ..Declarations::default() };
            compiles(&path.child("expression"), expression, &declarations, &[ResultType::Bool], errors);
        }
        let name = condition.text("name");
        if rules::required(&path.child("name"), name, errors) {
            rules::text(&path.child("name"), name, names::qualified_name(name), errors);
            if conditions.iter().take(index).any(|other| other.text("name") == name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
        }
    }
}

/// An expression, or why it is none.
fn compiles(
    path: &Path,
    expression: &str,
    declarations: &Declarations<'_>,
    results: &[ResultType],
    errors: &mut Errors,
) -> Option<Expression> {
    compile(expression, declarations, results)
        .map_err(|error| errors.push(FieldError::invalid(path, expression, error.to_string())))
        .ok()
}

/// Where a webhook is: at a URL or behind a service, not both.
fn client_config(path: &Path, config: &Value, errors: &mut Errors) {
    match (config.has("url"), config.has("service")) {
        (true, false) => url(&path.child("url"), config.text("url"), errors),
        (false, true) => service(&path.child("service"), config.at("service"), errors),
        _ => errors.push(FieldError::required(path, "exactly one of url or service is required")),
    }
}

fn url(path: &Path, url: &str, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme != "https" {
        let detail = format!("'https' is the only allowed URL scheme{FORM}");
        errors.push(FieldError::invalid(path, scheme, detail));
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or_default() };
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(u, h)| (Some(u), h));
    if host.is_empty() {
        errors.push(FieldError::invalid(path, host, format!("host must be specified{FORM}")));
    }
    if let Some(user) = user {
        errors.push(FieldError::invalid(path, user, "user information is not permitted in the URL"));
    }
    if !fragment.is_empty() {
        errors.push(FieldError::invalid(path, fragment, "fragments are not permitted in the URL"));
    }
    if !query.is_empty() {
        errors.push(FieldError::invalid(path, query, "query parameters are not permitted in the URL"));
    }
}

fn service(path: &Path, service: &Value, errors: &mut Errors) {
    rules::required(&path.child("name"), service.text("name"), errors);
    rules::required(&path.child("namespace"), service.text("namespace"), errors);
    let port = service.int("port").unwrap_or_default();
    let messages = names::port_number(port);
    if !messages.is_empty() {
        let detail = format!("port is not valid: {}", messages.join(", "));
        errors.push(FieldError::invalid(&path.child("port"), port, detail));
    }
    let (path, url_path) = (path.child("path"), service.text("path"));
    match url_path {
        "" | "/" => return,
        "//" => {
            errors.push(FieldError::invalid(&path, url_path, "segment[0] may not be empty"));
            return;
        }
        _ => {}
    }
    if !url_path.starts_with('/') {
        errors.push(FieldError::invalid(&path, url_path, "must start with a '/'"));
    }
    let mut first = url_path.chars();
    first.next();
    let rest = first.as_str();
    for (index, segment) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if segment.is_empty() {
            let detail = format!("segment[{index}] may not be empty");
            errors.push(FieldError::invalid(&path, url_path, detail));
            continue;
        }
        for message in names::dns1123_subdomain(segment) {
            errors.push(FieldError::invalid(&path, url_path, format!("segment[{index}]: {message}")));
        }
    }
}

#[cfg(test)]
mod tests;
