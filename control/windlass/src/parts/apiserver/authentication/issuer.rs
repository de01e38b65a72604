//! One issuer of the configuration: what is wrong with it, and what it becomes.

use super::remotes::Remotes;
use super::text;
use apiserver::jwt::Issuer;
use apiserver::jwt::mapping::{Mapping, Rule, Source};
use machinery::admission::Expression;
use machinery::entry;
use machinery::field::{FieldError, Path};
use machinery::names;
use serde_json::Value;
use std::collections::BTreeMap;

type Errors = Vec<FieldError>;

/// The issuer of an item at `at`; `None` where something in it is wrong.
pub(super) fn of(
    item: &Value,
    at: &Path,
    algorithms: &[String],
    own: &[String],
    remotes: &Remotes,
    errors: &mut Errors,
) -> Option<Issuer> {
    let before = errors.len();
    let issuer = &item["issuer"];
    let url = text(issuer, "url");
    let place = at.child("issuer");
    let discovery = Some(text(issuer, "discoveryURL")).filter(|url| !url.is_empty());
    addresses(url, discovery, own, &place, errors);
    let audiences = audiences(issuer, &place, errors);
    let authority = Some(text(issuer, "certificateAuthority")).filter(|pem| !pem.is_empty());
    let keys = match remotes.of(url, discovery, authority) {
        Ok(keys) => Some(keys),
        Err(error) => {
            let detail = supervise::chain(&error);
            errors.push(FieldError::invalid(&place.child("certificateAuthority"), "<omitted>", detail));
            None
        }
    };
    let (required, claim_rules) = claim_rules(item, &at.child("claimValidationRules"), errors);
    let mapping = mapping(item, &at.child("claimMappings"), errors);
    let user_rules = user_rules(item, &at.child("userValidationRules"), errors);
    let (keys, mapping) = (keys?, mapping?);
    (errors.len() == before).then(|| Issuer {
        url: url.to_owned(),
        audiences,
        algorithms: algorithms.to_vec(),
        keys,
        mapping,
        required,
        claim_rules,
        user_rules,
    })
}

fn items<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn addresses(url: &str, discovery: Option<&str>, own: &[String], at: &Path, errors: &mut Errors) {
    let field = at.child("url");
    if url.is_empty() {
        errors.push(FieldError::required(&field, ""));
    } else {
        if own.iter().any(|ours| ours == url) {
            let detail = format!("URL must not overlap with disallowed issuers: [{}]", own.join(" "));
            errors.push(FieldError::invalid(&field, url, detail));
        }
        address(url, &field, errors);
    }
    if let Some(discovery) = discovery {
        let field = at.child("discoveryURL");
        if url.trim_end_matches('/') == discovery.trim_end_matches('/') {
            errors.push(FieldError::invalid(&field, discovery, "discoveryURL must be different from URL"));
        }
        address(discovery, &field, errors);
    }
}

fn address(url: &str, at: &Path, errors: &mut Errors) {
    let mut wrong = |detail: &str| errors.push(FieldError::invalid(at, url, detail));
    let (url, fragment) = url.split_once('#').map_or((url, false), |(url, _)| (url, true));
    match url.parse::<http::Uri>() {
        Err(error) => wrong(&error.to_string()),
        Ok(uri) => {
            if uri.scheme_str() != Some("https") {
                wrong("URL scheme must be https");
            }
            if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
                wrong("URL must not contain a username or password");
            }
            if uri.query().is_some_and(|query| !query.is_empty()) {
                wrong("URL must not contain a query");
            }
            if fragment {
                wrong("URL must not contain a fragment");
            }
        }
    }
}

fn audiences(issuer: &Value, at: &Path, errors: &mut Errors) -> Vec<String> {
    let field = at.child("audiences");
    let all: Vec<String> =
        items(issuer, "audiences").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if all.is_empty() {
        errors.push(FieldError::required(&field, format!("at least one {field} is required")));
    }
    for (index, audience) in all.iter().enumerate() {
        if audience.is_empty() {
            errors.push(FieldError::required(&field.index(index), ""));
        }
        if all[..index].contains(audience) {
            errors.push(FieldError::duplicate(&field.index(index), audience.as_str()));
        }
    }
    let policy = text(issuer, "audienceMatchPolicy");
    let field = at.child("audienceMatchPolicy");
    match (all.len(), policy) {
        (_, "MatchAny") | (0 | 1, "") => {}
        (0 | 1, _) => {
            let detail = "audienceMatchPolicy must be empty or MatchAny for single audience";
            errors.push(FieldError::invalid(&field, policy, detail));
        }
        _ => {
            let detail = "audienceMatchPolicy must be MatchAny for multiple audiences";
            errors.push(FieldError::invalid(&field, policy, detail));
        }
    }
    all
}

/// The claims that must be certain texts, and the rules that are expressions.
fn claim_rules(item: &Value, at: &Path, errors: &mut Errors) -> (BTreeMap<String, String>, Vec<Rule>) {
    let (mut required, mut rules): (BTreeMap<String, String>, Vec<Rule>) = Default::default();
    for (index, item) in items(item, "claimValidationRules").iter().enumerate() {
        let at = at.index(index);
        let (claim, source) = (text(item, "claim"), text(item, "expression"));
        let (value, message) = (text(item, "requiredValue"), text(item, "message"));
        match (claim, source) {
            ("", "") => errors.push(FieldError::required(&at, "claim or expression is required")),
            (claim, "") => {
                if !message.is_empty() {
                    let detail = "may not be specified when claim is set";
                    errors.push(FieldError::invalid(&at.child("message"), message, detail));
                }
                if required.insert(claim.to_owned(), value.to_owned()).is_some() {
                    errors.push(FieldError::duplicate(&at.child("claim"), claim));
                }
            }
            ("", source) => {
                if !value.is_empty() {
                    let detail = "may not be specified when expression is set";
                    errors.push(FieldError::invalid(&at.child("requiredValue"), value, detail));
                }
                let compile = |source: &str| entry::on_claims(source, true);
                rules.extend(rule(source, message, &rules, compile, &at.child("expression"), errors));
            }
            (claim, _) => {
                errors.push(FieldError::invalid(&at, claim, "claim and expression can't both be set"));
            }
        }
    }
    (required, rules)
}

fn user_rules(item: &Value, at: &Path, errors: &mut Errors) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for (index, item) in items(item, "userValidationRules").iter().enumerate() {
        let (at, source) = (at.index(index).child("expression"), text(item, "expression"));
        if source.is_empty() {
            errors.push(FieldError::required(&at, ""));
            continue;
        }
        rules.extend(rule(source, text(item, "message"), &rules, entry::on_user, &at, errors));
    }
    rules
}

fn rule(
    source: &str,
    message: &str,
    before: &[Rule],
    compile: impl Fn(&str) -> Result<Expression, machinery::admission::CompileError>,
    at: &Path,
    errors: &mut Errors,
) -> Option<Rule> {
    if before.iter().any(|rule| rule.source == source) {
        errors.push(FieldError::duplicate(at, source));
        return None;
    }
    match compile(source) {
        Ok(expression) => Some(Rule { source: source.to_owned(), expression, message: message.to_owned() }),
        Err(error) => {
            errors.push(FieldError::invalid(at, source, error.to_string()));
            None
        }
    }
}

fn mapping(item: &Value, at: &Path, errors: &mut Errors) -> Option<Mapping> {
    let mappings = &item["claimMappings"];
    let name = &mappings["username"];
    let username = source(name, &at.child("username"), true, errors);
    if username.is_none() && text(name, "claim").is_empty() && text(name, "expression").is_empty() {
        errors.push(FieldError::required(&at.child("username"), "claim or expression is required"));
    }
    let groups = source(&mappings["groups"], &at.child("groups"), true, errors);
    let uid = source(&mappings["uid"], &at.child("uid"), false, errors);
    let extra = extra(mappings, &at.child("extra"), errors);
    let named = text(name, "expression");
    let verifies = |source: &str| entry::reads_claim(source, "email_verified");
    let rules = items(item, "claimValidationRules").iter().map(|rule| text(rule, "expression"));
    let extras = items(mappings, "extra").iter().map(|extra| text(extra, "valueExpression"));
    if entry::reads_claim(named, "email") && !std::iter::once(named).chain(rules).chain(extras).any(verifies)
    {
        let detail = "claims.email_verified must be used in claimMappings.username.expression or \
            claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in \
            claimMappings.username.expression";
        errors.push(FieldError::invalid(&at.child("username").child("expression"), named, detail));
    }
    Some(Mapping { username: username?, groups, uid, extra })
}

/// A claim or an expression; `prefixed`: a claim says what is put before its value.
fn source(value: &Value, at: &Path, prefixed: bool, errors: &mut Errors) -> Option<Source> {
    let (claim, expression) = (text(value, "claim"), text(value, "expression"));
    let prefix = value["prefix"].as_str();
    match (claim, expression) {
        ("", "") => None,
        (claim, "") => {
            if prefixed && prefix.is_none() {
                let detail = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                errors.push(FieldError::required(&at.child("prefix"), detail));
            }
            Some(Source::Claim { name: claim.to_owned(), prefix: prefix.unwrap_or_default().to_owned() })
        }
        ("", expression) => {
            if let Some(prefix) = prefix {
                let detail = "may not be specified when expression is set";
                errors.push(FieldError::invalid(&at.child("prefix"), prefix, detail));
            }
            compiled(expression, &at.child("expression"), errors).map(Source::Expression)
        }
        _ => {
            errors.push(FieldError::invalid(at, "", "claim and expression can't both be set"));
            None
        }
    }
}

fn compiled(source: &str, at: &Path, errors: &mut Errors) -> Option<Expression> {
    entry::on_claims(source, false)
        .map_err(|error| errors.push(FieldError::invalid(at, source, error.to_string())))
        .ok()
}

fn extra(mappings: &Value, at: &Path, errors: &mut Errors) -> Vec<(String, Expression)> {
    let mut all: Vec<(String, Expression)> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, item) in items(mappings, "extra").iter().enumerate() {
        let at = at.index(index);
        let (field, key) = (at.child("key"), text(item, "key"));
        if key.is_empty() {
            errors.push(FieldError::required(&field, ""));
        } else {
            let wrong = names::domain_path(key).into_iter();
            errors.extend(wrong.map(|(part, why)| FieldError::invalid(&field, part, why)));
        }
        if key != key.to_lowercase() {
            errors.push(FieldError::invalid(&field, key, "must be lowercase"));
        }
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        let reserved = |ours: &str| domain == ours || domain.ends_with(&format!(".{ours}"));
        if reserved("kubernetes.io") || reserved("k8s.io") {
            let detail = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
            errors.push(FieldError::invalid(&field, key, detail));
        }
        if seen.contains(&key) {
            errors.push(FieldError::duplicate(&field, key));
            continue;
        }
        seen.push(key);
        let (field, source) = (at.child("valueExpression"), text(item, "valueExpression"));
        if source.is_empty() {
            errors.push(FieldError::required(&field, ""));
            continue;
        }
        all.extend(compiled(source, &field, errors).map(|expression| (key.to_owned(), expression)));
    }
    all
}
