//! PodSecurity: a namespace's labels say how much its pods may ask of the node, and what becomes of those that ask more.
//!
//! `enforce` refuses pods; `warn` tells the author, `audit` the audit log, of workloads too. Upstream:
//! `k8s.io/pod-security-admission`. What is judged is [`machinery::pod_security`].

use super::{Attributes, Operation, Verdict};
use crate::registry::Registry;
use crate::registry::kind::Kind;
use machinery::access::Get as _;
use machinery::goformat::aggregate;
use machinery::object;
use machinery::pod_security::checks::{reasons, violations};
use machinery::pod_security::policy::{Level, Policy, Rule};
use machinery::status::Status;
use serde_json::Value;
use std::collections::BTreeMap;

/// Pods looked at when a namespace becomes stricter, as upstream.
const MOST_PODS: usize = 3000;

/// Where workloads keep their pods' template.
const TEMPLATES: [(&str, &str, &str); 8] = [
    ("", "replicationcontrollers", "spec.template"),
    ("", "podtemplates", "template"),
    ("apps", "replicasets", "spec.template"),
    ("apps", "deployments", "spec.template"),
    ("apps", "statefulsets", "spec.template"),
    ("apps", "daemonsets", "spec.template"),
    ("batch", "jobs", "spec.template"),
    ("batch", "cronjobs", "spec.jobTemplate.spec.template"),
];

pub(super) fn check<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if a.operation == Operation::Delete {
            return Ok(());
        }
        if a.is("", "namespaces", "") {
            return namespace(registry, a);
        }
        if a.is("", "pods", "") || a.is("", "pods", "ephemeralcontainers") || a.is("", "pods", "resize") {
            if a.old.as_ref().is_some_and(|old| !is_significant(a.new_object(), old)) {
                return Ok(());
            }
            if is_exempt(registry, a, a.new_object()) {
                return Ok(());
            }
            let policy = policy_of(registry, a).await?;
            let enforced = "pod-security.kubernetes.io/enforce-policy";
            a.audit.annotate(enforced, || policy.enforce.to_string());
            audit(a, &policy.audit, a.new_object());
            let found = violations(&policy.enforce, a.new_object());
            if !found.is_empty() {
                let why =
                    format!("violates PodSecurity {:?}: {}", policy.enforce.to_string(), found.join(", "));
                return Err(a.forbidden(why));
            }
            warn(a, &policy.warn, a.new_object());
            return Ok(());
        }
        let template = TEMPLATES.iter().find(|(group, plural, _)| a.is(group, plural, ""));
        if let Some(pod) = template.and_then(|(_, _, path)| a.new_object().present(path))
            && !is_exempt(registry, a, pod)
        {
            let policy = policy_of(registry, a).await?;
            audit(a, &policy.audit, pod);
            warn(a, &policy.warn, pod);
        }
        Ok(())
    })
}

/// Whether the configuration exempts a pod from being judged; the audit log is told.
fn is_exempt(registry: &Registry, a: &Attributes<'_>, pod: &Value) -> bool {
    let configuration = &registry.config.pod_security;
    let class = || {
        let class = pod.text("spec.runtimeClassName");
        configuration.exempts_class(class).then_some("runtimeClass")
    };
    let why = configuration.exempts(&a.namespace, &a.user.name).or_else(class);
    if let Some(why) = why {
        a.audit.annotate("pod-security.kubernetes.io/exempt", || why.to_owned());
    }
    why.is_some()
}

async fn policy_of(registry: &Registry, a: &Attributes<'_>) -> Result<Policy, Status> {
    let namespace = &a.namespace;
    let failed = || Status::internal_error(format!("failed to lookup namespace {namespace}"));
    let kind = Kind::of("", "namespaces").ok_or_else(failed)?;
    let found = registry.lookup(&kind, "", namespace).await.ok().flatten().ok_or_else(failed)?;
    let (policy, errors) = Policy::read(&found, &registry.config.pod_security.defaults);
    if !errors.is_empty() {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let why = || format!("Failed to parse policy: {}", aggregate(&errors));
        a.audit.annotate("pod-security.kubernetes.io/error", why);
    }
    Ok(policy)
}

/// What the audit log says of a pod that asks for more than it is audited for.
fn audit(a: &Attributes<'_>, rule: &Rule, pod: &Value) {
    a.audit.annotate_if("pod-security.kubernetes.io/audit-violations", || {
        let found = violations(rule, pod);
        let text = || format!("would violate PodSecurity {:?}: {}", rule.to_string(), found.join(", "));
        (!found.is_empty()).then(text)
    });
}

fn warn(a: &Attributes<'_>, rule: &Rule, pod: &Value) {
    let found = violations(rule, pod);
    if !found.is_empty() {
        let text = format!("would violate PodSecurity {:?}: {}", rule.to_string(), found.join(", "));
        a.warnings.lock().push(text);
    }
}

/// A namespace's labels must be readable; one that becomes stricter is told which of its pods would be refused.
fn namespace(registry: &Registry, a: &Attributes<'_>) -> Result<(), Status> {
    let configuration = &registry.config.pod_security;
    let read = |namespace: &Value| Policy::read(namespace, &configuration.defaults);
    let (new, errors) = read(a.new_object());
    let (old, old_errors) = a.old.as_ref().map(read).unwrap_or_default();
    if !errors.is_empty() && (a.old.is_none() || errors != old_errors) {
        return Err(Status::invalid(&a.kind.gk(), &a.name, &errors));
    }
    let relaxed = new.enforce.version == old.enforce.version && new.enforce.level <= old.enforce.level;
    if a.old.is_some() && (new.enforce.level == Level::Privileged || relaxed) {
        return Ok(());
    }
    if configuration.namespaces.contains(&a.name) {
        a.warnings.lock().extend(exempt_warning(a, &new, &configuration.defaults));
        return Ok(());
    }
    if a.old.is_none() {
        return Ok(());
    }
    let Some(pods) = Kind::of("", "pods") else { return Ok(()) };
    let mut all = registry.cached(&pods, &a.name)?;
    all.retain(|pod| !configuration.exempts_class(pod.text("spec.runtimeClassName")));
    a.warnings.lock().extend(existing(&a.name, &new.enforce, &all));
    Ok(())
}

/// What is said to labels of a namespace that is exempt: of those that ask for anything.
fn exempt_warning(a: &Attributes<'_>, policy: &Policy, defaults: &Policy) -> Option<String> {
    let rules = [("enforce", &policy.enforce), ("audit", &policy.audit), ("warn", &policy.warn)];
    if rules.iter().all(|(_, rule)| rule.level == Level::Privileged) || policy == defaults {
        return None;
    }
    let labels = a.new_object().fields("metadata.labels");
    let is_set = |mode: &str| {
        let keys = [mode.to_owned(), format!("{mode}-version")];
        let mut keys = keys.iter().map(|key| format!("pod-security.kubernetes.io/{key}"));
        labels.is_some_and(|labels| keys.any(|key| labels.contains_key(&key)))
    };
    let set = rules.iter().filter(|(mode, rule)| rule.level != Level::Privileged && is_set(mode));
    let set: Vec<String> = set.map(|(mode, rule)| format!("{mode}={rule}")).collect();
    let (name, set) = (&a.name, set.join(", "));
    Some(format!("namespace {name:?} is exempt from Pod Security, and the policy ({set}) will be ignored"))
}

/// The warnings about pods that are there already.
fn existing(namespace: &str, rule: &Rule, pods: &[Value]) -> Vec<String> {
    let mut by_reason: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    for pod in pods.iter().take(MOST_PODS) {
        let found = reasons(rule, pod);
        if !found.is_empty() {
            let name = object::name(pod);
            let (first, count) = by_reason.entry(found.join(", ")).or_insert((name, 0));
            *first = name.min(first);
            *count += 1;
        }
    }
    let mut out = Vec::new();
    if pods.len() > MOST_PODS {
        out.push(format!(
            "new PodSecurity enforce level only checked against the first {MOST_PODS} of {} existing pods",
            pods.len()
        ));
    }
    if !by_reason.is_empty() {
        let rule = rule.to_string();
        out.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level {rule:?}"
        ));
    }
    let mut lines: Vec<String> = by_reason
        .into_iter()
        .map(|(reason, (name, count))| match count {
            1 => format!("{name}: {reason}"),
            2 => format!("{name} (and 1 other pod): {reason}"),
            n => format!("{name} (and {} other pods): {reason}", n - 1),
        })
        .collect();
    lines.sort();
    out.extend(lines);
    out
}

/// Does an update of a pod touch what is judged? Images may change, containers come and go.
fn is_significant(new: &Value, old: &Value) -> bool {
    ["containers", "initContainers", "ephemeralContainers"].iter().any(|list| {
        let images = |pod: &Value| {
            let all = pod.at("spec").items(list).iter();
            all.map(|c| (c.text("name").to_owned(), c.text("image").to_owned())).collect::<Vec<_>>()
        };
        images(new) != images(old)
    })
}
