//! Access reviews: what would the authorizer say? Pure functions from the posted object to the answered one.
//! Upstream: `pkg/registry/authorization`.

use super::{Attributes, Authorizer, Decision, Verdict};
use crate::context::User;
use crate::objects::{list, text, texts};
use machinery::access::set_at;
use machinery::field::{FieldError, Path};
use machinery::fields::{FieldSelector, escape};
use machinery::labels::{Operator, Requirement, Selector};
use machinery::object::Gk;
use machinery::status::Status;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// API group of the reviews.
pub const GROUP: &str = "authorization.k8s.io";

/// Answers a `SubjectAccessReview`.
pub async fn subject_access(authorizer: &dyn Authorizer, review: &Value) -> Result<Value, Status> {
    check("SubjectAccessReview", review, true)?;
    Ok(answer(authorizer, review, spec_user(review)).await)
}

/// Answers a `SelfSubjectAccessReview`.
pub async fn self_subject_access(
    authorizer: &dyn Authorizer,
    review: &Value,
    user: &User,
) -> Result<Value, Status> {
    check("SelfSubjectAccessReview", review, false)?;
    Ok(answer(authorizer, review, user.clone()).await)
}

/// Answers a `LocalSubjectAccessReview` posted to `namespace`.
pub async fn local_subject_access(
    authorizer: &dyn Authorizer,
    review: &Value,
    namespace: &str,
) -> Result<Value, Status> {
    let given = text(review, "/metadata/namespace");
    if !given.is_empty() && given != namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let mut review = review.clone();
    set_at(&mut review, "metadata.namespace", namespace);
    let review = &review;
    check("LocalSubjectAccessReview", review, true)?;
    Ok(answer(authorizer, review, spec_user(review)).await)
}

pub(crate) fn self_subject_rules(
    authorizer: &dyn Authorizer,
    review: &Value,
    user: &User,
) -> Result<Value, Status> {
    let namespace = text(review, "/spec/namespace");
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let rules = authorizer.rules_for(user, namespace);
    let resources: Vec<Value> = rules
        .resources
        .iter()
        .map(|r| {
            let mut rule = json!({"verbs": r.verbs});
            for (field, items) in [
                ("apiGroups", &r.api_groups),
                ("resources", &r.resources),
                ("resourceNames", &r.resource_names),
            ] {
                if !items.is_empty() {
                    rule[field] = json!(items);
                }
            }
            rule
        })
        .collect();
    let paths: Vec<Value> =
        rules.paths.iter().map(|p| json!({"verbs": p.verbs, "nonResourceURLs": p.paths})).collect();
    // Upstream answers with a review of its own.
    let mut out = json!({"metadata": {}, "spec": {}});
    for field in ["kind", "apiVersion"] {
        if let Some(own) = review.get(field) {
            out[field] = own.clone();
        }
    }
    out["status"] =
        json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": rules.incomplete});
    if !rules.errors.is_empty() {
        out["status"]["evaluationError"] = super::aggregate(&rules.errors).into();
    }
    Ok(out)
}

/// Answers a `SelfSubjectReview`: who am I?
#[must_use]
pub fn self_subject(review: &Value, user: &User) -> Value {
    let mut out = review.clone();
    out["status"] = json!({"userInfo": user_info(user)});
    out
}

/// A user as `authentication.k8s.io/v1` `UserInfo`.
#[must_use]
pub fn user_info(user: &User) -> Value {
    let mut info = json!({});
    if !user.name.is_empty() {
        info["username"] = user.name.clone().into();
    }
    if !user.uid.is_empty() {
        info["uid"] = user.uid.clone().into();
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn spec_user(review: &Value) -> User {
    let extra: BTreeMap<String, Vec<String>> = review
        .pointer("/spec/extra")
        .and_then(Value::as_object)
        .map(|m| {
            // Extra keys are lower case everywhere, as they travel in headers.
            m.iter().map(|(k, v)| (k.to_lowercase(), texts(v, ""))).collect()
        })
        .unwrap_or_default();
    User {
        name: text(review, "/spec/user").to_owned(),
        uid: text(review, "/spec/uid").to_owned(),
        groups: texts(review, "/spec/groups"),
        extra,
    }
}

fn check(kind: &str, review: &Value, subject: bool) -> Result<(), Status> {
    let spec = Path::new("spec");
    let mut errors = Vec::new();
    let set = |pointer: &str| review.pointer(pointer).is_some_and(|v| !v.is_null());
    match (set("/spec/resourceAttributes"), set("/spec/nonResourceAttributes")) {
        (true, true) => errors.push(FieldError::invalid(
            &spec.child("nonResourceAttributes"),
            printed(&review["spec"]["nonResourceAttributes"]),
            "cannot be specified in combination with resourceAttributes",
        )),
        (false, false) => errors.push(FieldError::invalid(
            &spec.child("resourceAttributes"),
            review["spec"]["resourceAttributes"].clone(),
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => {}
    }
    if subject && text(review, "/spec/user").is_empty() && list(review, "/spec/groups").is_empty() {
        errors.push(FieldError::invalid(
            &spec.child("user"),
            text(review, "/spec/user"),
            "at least one of user or group must be specified",
        ));
    }
    selectors(review, &mut errors);
    let local = kind == "LocalSubjectAccessReview";
    metadata(review, local, &mut errors);
    let namespace = text(review, "/spec/resourceAttributes/namespace");
    if local && set("/spec/resourceAttributes") && namespace != text(review, "/metadata/namespace") {
        let path = spec.child("resourceAttributes").child("namespace");
        errors.push(FieldError::invalid(&path, namespace, "must match metadata.namespace"));
    }
    if local && set("/spec/nonResourceAttributes") {
        errors.push(FieldError::invalid(
            &spec.child("nonResourceAttributes"),
            printed(&review["spec"]["nonResourceAttributes"]),
            "disallowed on this kind of request",
        ));
    }
    // Upstream has forgotten the kind by then.
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&Gk::new(GROUP, ""), "", &errors)) }
}

/// As upstream prints its internal type, whose fields have Go's names.
fn printed(attributes: &Value) -> Value {
    json!({"Path": text(attributes, "/path"), "Verb": text(attributes, "/verb")})
}

/// A review is stored nowhere, and so is called nothing. What the server sets itself is not looked at.
fn metadata(review: &Value, local: bool, errors: &mut Vec<FieldError>) {
    const OWN: [&str; 7] = [
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "managedFields",
        "namespace",
        "selfLink",
        "uid",
    ];
    let given = review["metadata"].as_object().into_iter().flatten();
    let shown: serde_json::Map<String, Value> = given
        .filter(|(key, value)| !OWN.contains(&key.as_str()) && !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if !shown.is_empty() {
        let why = if local { "must be empty except for namespace" } else { "must be empty" };
        errors.push(FieldError::invalid(&Path::new("metadata"), Value::Object(shown), why));
    }
}

/// Selectors say one thing, and in one way. Operators nobody here knows are let through.
fn selectors(review: &Value, errors: &mut Vec<FieldError>) {
    for which in ["fieldSelector", "labelSelector"] {
        let selector = &review["spec"]["resourceAttributes"][which];
        if !selector.is_object() {
            continue;
        }
        let path = Path::new("spec.resourceAttributes").child(which);
        let (raw, requirements) = (text(selector, "/rawSelector"), list(selector, "/requirements"));
        if !raw.is_empty() && !requirements.is_empty() {
            let why = "may not specified at the same time as requirements";
            errors.push(FieldError::invalid(&path.child("rawSelector"), raw, why));
        }
        if raw.is_empty() && requirements.is_empty() {
            let why = format!("when {path} is specified, requirements or rawSelector is required");
            errors.push(FieldError::required(&path.child("requirements"), why));
        }
        for (index, requirement) in requirements.iter().enumerate() {
            let at = path.child("requirements").index(index);
            let (key, values) = (text(requirement, "/key"), list(requirement, "/values"));
            if which == "fieldSelector" && key.is_empty() {
                errors.push(FieldError::required(&at.child("key"), "must be specified"));
            }
            match text(requirement, "/operator") {
                "In" | "NotIn" if values.is_empty() => {
                    let why = "must be specified when `operator` is 'In' or 'NotIn'";
                    errors.push(FieldError::required(&at.child("values"), why));
                }
                "Exists" | "DoesNotExist" if !values.is_empty() => {
                    let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    errors.push(FieldError::forbidden(&at.child("values"), why));
                }
                _ => {}
            }
            if which == "labelSelector" {
                let wrong = machinery::names::qualified_name(key).into_iter();
                errors.extend(wrong.map(|why| FieldError::invalid(&at.child("key"), key, why)));
            }
        }
    }
}

async fn answer(authorizer: &dyn Authorizer, review: &Value, user: User) -> Value {
    let decision = authorizer.decide(&attributes(review, user)).await;
    let mut out = review.clone();
    out["status"] = status(&decision);
    out
}

fn attributes(review: &Value, user: User) -> Attributes {
    if let Some(path) = review.pointer("/spec/nonResourceAttributes").filter(|v| !v.is_null()) {
        return Attributes {
            user,
            verb: text(path, "/verb").to_owned(),
            path: text(path, "/path").to_owned(),
            ..Attributes::default()
        };
    }
    let r = &review["spec"]["resourceAttributes"];
    let get = |field: &str| text(r, field).to_owned();
    Attributes {
        user,
        verb: get("/verb"),
        is_resource: true,
        group: get("/group"),
        version: get("/version"),
        resource: get("/resource"),
        subresource: get("/subresource"),
        namespace: get("/namespace"),
        name: get("/name"),
        path: String::new(),
        fields: selector(r),
        labels: labels(r),
    }
}

/// The same of labels.
fn labels(resource: &Value) -> Vec<Requirement> {
    let raw = text(resource, "/labelSelector/rawSelector");
    if !raw.is_empty() {
        return Selector::parse(raw).map(|selector| selector.requirements().to_vec()).unwrap_or_default();
    }
    let requirements = list(resource, "/labelSelector/requirements").iter().filter_map(|r| {
        let operator = Operator::of_expression(text(r, "/operator"))?;
        Requirement::new(text(r, "/key"), operator, texts(r, "/values")).ok()
    });
    requirements.collect()
}

/// The selector of a review; one that does not parse narrows nothing.
fn selector(resource: &Value) -> FieldSelector {
    let raw = text(resource, "/fieldSelector/rawSelector");
    let terms = list(resource, "/fieldSelector/requirements").iter().filter_map(|r| {
        let [value] = list(r, "/values") else { return None };
        let operator = match text(r, "/operator") {
            "In" => "=",
            "NotIn" => "!=",
            _ => return None,
        };
        Some(format!("{}{operator}{}", text(r, "/key"), escape(value.as_str()?)))
    });
    let text = if raw.is_empty() { terms.collect::<Vec<_>>().join(",") } else { raw.to_owned() };
    FieldSelector::parse(&text).unwrap_or_default()
}

fn status(decision: &Decision) -> Value {
    let mut status = json!({"allowed": decision.verdict == Verdict::Allow});
    if decision.verdict == Verdict::Deny {
        status["denied"] = true.into();
    }
    if !decision.reason.is_empty() {
        status["reason"] = decision.reason.clone().into();
    }
    if !decision.error.is_empty() {
        status["evaluationError"] = decision.error.clone().into();
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::policy::Policy;
    use crate::authz::{Masters, Union, bootstrap, rbac::Rbac};
    use std::sync::Arc;

    fn authorizer() -> Union {
        let policy = Policy::default();
        bootstrap::objects().iter().for_each(|o| policy.put(o));
        Union::new(vec![Arc::new(Masters), Arc::new(Rbac(policy))])
    }

    #[tokio::test]
    async fn a_review_answers_as_the_authorizer() {
        let review = json!({"spec": {"user": "system:kube-scheduler", "resourceAttributes": {"verb": "create", "resource": "pods", "subresource": "binding", "namespace": "a"}}});
        let out = subject_access(&authorizer(), &review).await.unwrap();
        assert_eq!(out["status"]["allowed"], true);
        assert_eq!(out["spec"], review["spec"]);
        assert!(out["status"]["reason"].as_str().unwrap().starts_with("RBAC: allowed by ClusterRoleBinding"));
        let review =
            json!({"spec": {"user": "x", "nonResourceAttributes": {"verb": "get", "path": "/metrics"}}});
        assert_eq!(
            subject_access(&authorizer(), &review).await.unwrap()["status"],
            json!({"allowed": false})
        );
    }

    #[tokio::test]
    async fn a_malformed_review_is_invalid() {
        let error = subject_access(&authorizer(), &json!({"spec": {}})).await.unwrap_err();
        assert_eq!(error.code, 422);
        assert!(
            error.message.contains("at least one of user or group must be specified"),
            "{}",
            error.message
        );
        assert!(subject_access(&authorizer(), &json!(3)).await.is_err());
        let local = json!({"spec": {"user": "x", "resourceAttributes": {"namespace": "b"}}});
        // Upstream: `pkg/apis/authorization/validation`, whose errors come before the storage's own check.
        assert_eq!(
            local_subject_access(&authorizer(), &local, "a").await.unwrap_err().message,
            ".authorization.k8s.io \"\" is invalid: spec.resourceAttributes.namespace: Invalid value: \"b\": must match metadata.namespace"
        );
    }

    #[tokio::test]
    async fn a_review_must_not_be_named_nor_select_in_two_ways() {
        let refused = async |review: Value| {
            let error = subject_access(&authorizer(), &review).await.unwrap_err();
            error.message.replace(".authorization.k8s.io \"\" is invalid: ", "")
        };
        let attributes = json!({"verb": "get", "resource": "pods"});
        assert_eq!(
            refused(
                json!({"metadata": {"name": "x", "uid": "u"}, "spec": {"user": "x", "resourceAttributes": attributes}})
            ).await,
            "metadata: Invalid value: {\"name\":\"x\"}: must be empty"
        );
        let mut twice = attributes.clone();
        twice["fieldSelector"] =
            json!({"rawSelector": "a=b", "requirements": [{"key": "a", "operator": "In"}]});
        assert_eq!(
            refused(json!({"spec": {"user": "x", "resourceAttributes": twice}})).await,
            "[spec.resourceAttributes.fieldSelector.rawSelector: Invalid value: \"a=b\": may not specified at the same time as \
             requirements, spec.resourceAttributes.fieldSelector.requirements[0].values: Required value: must be specified when \
             `operator` is 'In' or 'NotIn']"
        );
        let mut none = attributes;
        none["labelSelector"] = json!({});
        assert_eq!(
            refused(json!({"spec": {"user": "x", "resourceAttributes": none}})).await,
            "spec.resourceAttributes.labelSelector.requirements: Required value: when spec.resourceAttributes.labelSelector is \
             specified, requirements or rawSelector is required"
        );
    }

    #[test]
    fn rules_reviews_need_a_namespace() {
        let user = User { groups: vec!["system:authenticated".into()], ..User::default() };
        assert_eq!(
            self_subject_rules(&authorizer(), &json!({}), &user).unwrap_err().message,
            "no namespace on request"
        );
        let out = self_subject_rules(&authorizer(), &json!({"spec": {"namespace": "a"}}), &user).unwrap();
        assert_eq!(out["status"]["incomplete"], false);
        assert!(out["status"]["resourceRules"].as_array().unwrap().len() >= 2);
    }

    #[test]
    fn masters_are_told_of_their_rules_once() {
        let user = User { groups: vec!["system:masters".into()], ..User::default() };
        let out = self_subject_rules(&authorizer(), &json!({"spec": {"namespace": "a"}}), &user).unwrap();
        assert_eq!(out["status"]["nonResourceRules"], json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]));
        assert_eq!(
            out["status"]["resourceRules"],
            json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}])
        );
    }

    #[test]
    fn whoami_lists_what_is_known() {
        let user = User { name: "alice".into(), groups: vec!["g".into()], ..User::default() };
        assert_eq!(
            self_subject(&json!({"kind": "SelfSubjectReview"}), &user)["status"]["userInfo"],
            json!({"username": "alice", "groups": ["g"]})
        );
    }
}
