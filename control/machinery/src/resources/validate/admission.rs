//! Admission webhooks, and what they share with admission policies: rules, selectors, conditions.
//! Upstream: `pkg/apis/admissionregistration/validation`, `apiserver/pkg/util/webhook`.

pub(super) mod policy;

use std::collections::BTreeSet;

use super::cursor::Cursor;
use crate::{
    admission::{Declarations, Expression, ResultType, compile},
    names,
};

const CONDITIONS_MAX: usize = 64;
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

pub(super) fn webhooks(configuration: Cursor<'_>) {
    let mut seen = BTreeSet::new();
    for hook in configuration.each("webhooks") {
        webhook(hook);
        review_versions(hook.field("admissionReviewVersions"));
        let name = hook.field("name");
        if !name.is_empty() && !seen.insert(name.str()) {
            name.duplicate();
        }
    }
}

fn webhook(hook: Cursor<'_>) {
    // A webhook's name is a domain of three parts at least.
    let name = hook.field("name");
    if name.required()
        && name.format_at_once(name.str(), names::dns1123_subdomain, ",")
        && name.str().split('.').count() < 3
    {
        name.invalid("should be a domain with at least three segments separated by dots");
    }
    hook.each("rules").for_each(rule_with_operations);
    hook.plain(&["failurePolicy", "matchPolicy", "reinvocationPolicy"]);
    let effects = hook.field("sideEffects");
    if effects.required_with("must specify one of None, NoneOnDryRun") {
        effects.one_of(&["None", "NoneOnDryRun"]);
    }
    let timeout = hook.field("timeoutSeconds");
    if timeout.number().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
        timeout.invalid("the timeout value must be between 1 and 30 seconds");
    }
    hook.field("namespaceSelector").label_selector();
    hook.field("objectSelector").label_selector();
    client_config(hook.field("clientConfig"));
    match_conditions(hook.field("matchConditions"), false);
}

fn review_versions(versions: Cursor<'_>) {
    let known = REVIEW_VERSIONS.join(", ");
    if !versions.required_with(&format!("must specify one of {known}")) {
        return;
    }
    let mut seen = BTreeSet::new();
    for version in versions.items() {
        if seen.insert(version.str()) {
            version.format(names::dns1035_label);
        } else {
            version.invalid("duplicate version");
        }
    }
    if !REVIEW_VERSIONS.iter().any(|version| seen.contains(version)) {
        versions.invalid(format!("must include at least one of {known}"));
    }
}

/// A list whose wildcard stands alone.
fn alone(list: Cursor<'_>, what: &str) {
    list.required();
    if list.values().len() > 1 && list.strs().contains(&"*") {
        list.invalid(format!("if '*' is present, must not specify other {what}"));
    }
}

fn rule_with_operations(rule: Cursor<'_>) {
    alone(rule.field("operations"), "operations");
    rule.each("operations").for_each(Cursor::enumerated);
    alone(rule.field("apiGroups"), "API groups");
    alone(rule.field("apiVersions"), "API versions");
    rule.each("apiVersions").for_each(|version| {
        version.required();
    });
    resources(rule.field("resources"));
    rule.plain(&["scope"]);
}

/// `pods`, `pods/*`, `*/status`: none of them made superfluous by an earlier one.
fn resources(list: Cursor<'_>) {
    list.required();
    let (mut whole, mut every) = (Vec::new(), Vec::new());
    let (mut double, mut single, mut plain) = (false, false, false);
    for entry in list.items().filter(|entry| entry.required()) {
        double |= entry.str() == "*/*";
        single |= entry.str() == "*";
        let Some((resource, subresource)) = entry.str().split_once('/') else {
            plain = entry.str() != "*";
            continue;
        };
        let superfluous = |present: String| {
            entry.invalid(format!("if '{present}' is present, must not specify {}", entry.str()));
        };
        if whole.contains(&resource) {
            superfluous(format!("{resource}/*"));
        }
        if every.contains(&subresource) {
            superfluous(format!("*/{subresource}"));
        }
        if subresource == "*" {
            whole.push(resource);
        }
        if resource == "*" {
            every.push(subresource);
        }
    }
    if list.values().len() > 1 && double {
        list.invalid("if '*/*' is present, must not specify other resources");
    }
    if single && plain {
        list.invalid("if '*' is present, must not specify other resources without subresources");
    }
}

/// Conditions in CEL: named once each, and none empty. Those of policies may have `params`.
fn match_conditions(conditions: Cursor<'_>, params: bool) {
    let count = conditions.values().len();
    if count > CONDITIONS_MAX {
        conditions.too_many(count, CONDITIONS_MAX);
    }
    let mut seen = BTreeSet::new();
    for condition in conditions.items() {
        let (expression, name) = (condition.field("expression"), condition.field("name"));
        if expression.str().trim().is_empty() {
            expression.missing("");
        } else {
            let declarations = Declarations { params, authorizer: true, ..Declarations::default() };
            compiles(expression, expression.str().trim(), &declarations, &[ResultType::Bool]);
        }
        if name.required() {
            name.qualified();
            if !seen.insert(name.str()) {
                name.duplicate();
            }
        }
    }
}

/// An expression, or why it is none.
fn compiles(
    source: Cursor<'_>,
    text: &str,
    declarations: &Declarations<'_>,
    results: &[ResultType],
) -> Option<Expression> {
    compile(text, declarations, results).map_err(|error| source.invalid_value(text, error.to_string())).ok()
}

/// Where a webhook is: at a URL or behind a service, not both.
fn client_config(config: Cursor<'_>) {
    let (url, service) = (config.field("url"), config.field("service"));
    match (url.is_set(), service.is_set()) {
        (true, false) => self::url(url),
        (false, true) => self::service(service),
        _ => config.missing("exactly one of url or service is required"),
    }
}

fn url(url: Cursor<'_>) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.str().split_once("://").unwrap_or(("", url.str()));
    if scheme != "https" {
        url.invalid_value(scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or_default() };
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(u, h)| (Some(u), h));
    if host.is_empty() {
        url.invalid_value(host, format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        url.invalid_value(user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        url.invalid_value(fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        url.invalid_value(query, "query parameters are not permitted in the URL");
    }
}

fn service(service: Cursor<'_>) {
    service.field("name").required();
    service.field("namespace").required();
    let number = service.int("port");
    let messages = names::port_number(number);
    if !messages.is_empty() {
        let detail = format!("port is not valid: {}", messages.join(", "));
        service.field("port").invalid_value(number, detail);
    }
    let path = service.field("path");
    match path.str() {
        "" | "/" => return,
        "//" => return path.invalid("segment[0] may not be empty"),
        _ => {}
    }
    if !path.str().starts_with('/') {
        path.invalid("must start with a '/'");
    }
    let mut first = path.str().chars();
    first.next();
    let rest = first.as_str();
    for (index, segment) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if segment.is_empty() {
            path.invalid(format!("segment[{index}] may not be empty"));
            continue;
        }
        for message in names::dns1123_subdomain(segment) {
            path.invalid(format!("segment[{index}]: {message}"));
        }
    }
}

#[cfg(test)]
mod tests;
