//! `spec.conversion`.

use super::{Errors, Lenience};
use crate::access::Get as _;
use crate::field::{FieldError, Path};
use crate::names;
use base64::Engine as _;
use serde_json::Value;

/// Whether a stored bundle is none.
pub(super) fn bad_bundle(spec: &Value) -> bool {
    let bundle = spec.text("conversion.webhook.clientConfig.caBundle");
    !bundle.is_empty() && !is_pem(bundle)
}

fn is_pem(bundle: &str) -> bool {
    let bytes = base64::engine::general_purpose::STANDARD.decode(bundle).unwrap_or_default();
    String::from_utf8_lossy(&bytes).contains("-----BEGIN CERTIFICATE-----")
}

pub(super) fn conversion(spec: &Value, lenience: Lenience, path: &Path, errors: &mut Errors) {
    let of = spec.at("conversion");
    if !of.is_object() {
        return;
    }
    let strategy = of.text("strategy");
    if strategy != "None" && !strategy.is_empty() && spec.flag("preserveUnknownFields") {
        let why = "must be None if spec.preserveUnknownFields is true";
        errors.push(FieldError::invalid(&path.child("strategy"), strategy, why));
    }
    match strategy {
        "" => errors.push(FieldError::required(&path.child("strategy"), "")),
        "None" | "Webhook" => {}
        other => {
            errors.push(FieldError::not_supported(&path.child("strategy"), other, &["None", "Webhook"]));
        }
    }
    let (client, versions) = (of.at("webhook.clientConfig"), of.items("webhook.conversionReviewVersions"));
    let (client_path, versions_path) =
        (path.child("webhookClientConfig"), path.child("conversionReviewVersions"));
    if strategy != "Webhook" {
        if client.is_object() {
            let why = "should not be set when strategy is not set to Webhook";
            errors.push(FieldError::forbidden(&client_path, why));
        }
        if !versions.is_empty() {
            let why = "should not be set when strategy is not set to Webhook";
            errors.push(FieldError::forbidden(&versions_path, why));
        }
        return;
    }
    if client.is_object() {
        client_config(client, lenience, &client_path, errors);
    } else {
        errors.push(FieldError::required(&client_path, "required when strategy is set to Webhook"));
    }
    review_versions(versions, lenience, &versions_path, errors);
}

fn client_config(client: &Value, lenience: Lenience, path: &Path, errors: &mut Errors) {
    match (client.has("url"), client.has("service")) {
        (true, false) => url(client.text("url"), &path.child("url"), errors),
        (false, true) => service(client.at("service"), &path.child("service"), errors),
        _ => errors.push(FieldError::required(path, "exactly one of url or service is required")),
    }
    let bundle = client.text("caBundle");
    if !bundle.is_empty() && !lenience.ca_bundle && !is_pem(bundle) {
        let why = "unable to load root certificates: unable to parse bytes as PEM block";
        errors.push(FieldError::invalid(&path.child("caBundle"), bundle, why));
    }
}

fn url(text: &str, path: &Path, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let mut refuse = |why: String| errors.push(FieldError::invalid(path, text, why));
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    if scheme != "https" {
        refuse(format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() {
        refuse(format!("host must be specified{FORM}"));
    }
    if host.contains('@') {
        refuse("user information is not permitted in the URL".to_owned());
    }
    if rest.contains('#') {
        refuse("fragments are not permitted in the URL".to_owned());
    }
    if rest.contains('?') {
        refuse("query parameters are not permitted in the URL".to_owned());
    }
}

fn service(of: &Value, path: &Path, errors: &mut Errors) {
    for key in ["name", "namespace"] {
        if of.text(key).is_empty() {
            errors.push(FieldError::required(&path.child(key), &format!("service {key} is required")[..]));
        }
    }
    if let Some(port) = of.int("port") {
        for wrong in names::port_number(port) {
            let why = format!("port is not valid: {wrong}");
            errors.push(FieldError::invalid(&path.child("port"), port, why));
        }
    }
    let url_path = of.text("path");
    if !of.has("path") || url_path == "/" {
        return;
    }
    let path = path.child("path");
    let mut refuse = |why: String| errors.push(FieldError::invalid(&path, url_path, why));
    let Some(steps) = url_path.strip_prefix('/') else {
        return refuse("must start with a '/'".to_owned());
    };
    let steps = steps.strip_suffix('/').unwrap_or(steps);
    for (i, step) in steps.split('/').enumerate() {
        if step.is_empty() {
            refuse(format!("segment[{i}] may not be empty"));
            continue;
        }
        for wrong in names::dns1123_subdomain(step) {
            refuse(format!("segment[{i}]: {wrong}"));
        }
    }
}

fn review_versions(versions: &[Value], lenience: Lenience, path: &Path, errors: &mut Errors) {
    if versions.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    for (i, version) in versions.iter().enumerate() {
        let name = version.as_str().unwrap_or_default();
        if versions[..i].contains(version) {
            errors.push(FieldError::invalid(&path.index(i), name, "duplicate version"));
            continue;
        }
        for wrong in names::dns1035_label(name) {
            errors.push(FieldError::invalid(&path.index(i), name, wrong));
        }
    }
    let known = versions.iter().any(|v| v == "v1" || v == "v1beta1");
    if !known && !lenience.conversion_versions {
        let why = "must include at least one of v1, v1beta1";
        errors.push(FieldError::invalid(path, Value::Array(versions.to_vec()), why));
    }
}
