//! Which requests a webhook or policy means: rules, scope, selectors of namespaces and objects, equivalent versions.
//! Upstream: `apiserver/pkg/admission/plugin/webhook/{generic,predicates}`.

use super::{Attributes, Operation};
use crate::registry::Registry;
use crate::registry::kind::Kind;
use machinery::access::Get as _;
use machinery::labels::Selector;
use machinery::object;
use machinery::status::Status;
use serde_json::{Map, Value};

/// What a rule is compared with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub operation: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    /// Empty for cluster scope; its own name for a Namespace.
    pub namespace: &'a str,
    pub name: &'a str,
}

impl<'a> Target<'a> {
    /// The request, were it made in the version `kind` has.
    pub(super) fn of(a: &'a Attributes<'_>, kind: &Kind) -> Self {
        Target {
            operation: a.operation.text(),
            group: kind.resource.group,
            version: kind.version,
            resource: kind.resource.plural,
            subresource: a.request_subresource(),
            namespace: a.request_namespace(),
            name: &a.name,
        }
    }
}

/// A `RuleWithOperations`, and the names a policy's rule may add.
#[derive(Clone, Debug, Default)]
pub(super) struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    /// Any, where empty.
    names: Vec<String>,
    scope: String,
}

fn listed(list: &[String], wanted: &str) -> bool {
    list.iter().any(|entry| entry == "*" || entry == wanted)
}

impl Rule {
    pub(super) fn parse(rule: &Value) -> Self {
        let texts = |name: &str| {
            rule.items(name).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect::<Vec<_>>()
        };
        Rule {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources"),
            names: texts("resourceNames"),
            scope: rule.text("scope").to_owned(),
        }
    }

    pub(super) fn matches(&self, target: &Target<'_>) -> bool {
        self.in_scope(target)
            && listed(&self.operations, target.operation)
            && listed(&self.groups, target.group)
            && listed(&self.versions, target.version)
            && self.resources.iter().any(|entry| {
                let (resource, subresource) = entry.split_once('/').unwrap_or((entry, ""));
                (resource == "*" || resource == target.resource)
                    && (subresource == "*" || subresource == target.subresource)
            })
            && (self.names.is_empty() || self.names.iter().any(|name| name == target.name))
    }

    fn in_scope(&self, target: &Target<'_>) -> bool {
        let is_namespace = (target.group, target.version, target.resource) == ("", "v1", "namespaces");
        match self.scope.as_str() {
            "" | "*" => true,
            "Namespaced" => !is_namespace && !target.namespace.is_empty(),
            "Cluster" => is_namespace || target.namespace.is_empty(),
            _ => false,
        }
    }
}

/// Everything that decides whether a request is meant, but for conditions in CEL.
#[derive(Clone, Debug)]
pub(super) struct Criteria {
    pub rules: Vec<Rule>,
    pub excluded: Vec<Rule>,
    /// Where there are no rules: are all requests meant?
    pub all_without_rules: bool,
    pub equivalent: bool,
    pub namespaces: Result<Selector, String>,
    pub objects: Result<Selector, String>,
}

/// A `LabelSelector`; one that is missing selects everything.
fn selector(value: Option<&Value>) -> Result<Selector, String> {
    match value {
        None => Ok(Selector::everything()),
        Some(value) => Selector::from_label_selector(value).map_err(|e| e.to_string()),
    }
}

impl Criteria {
    /// From what webhooks and policies have alike; `rules` names the member with the rules.
    pub(super) fn parse(from: &Value, rules: &str) -> Self {
        let parse_rules = |name: &str| from.items(name).iter().map(Rule::parse).collect();
        Criteria {
            rules: parse_rules(rules),
            excluded: parse_rules("excludeResourceRules"),
            all_without_rules: false,
            equivalent: from.text("matchPolicy") == "Equivalent",
            namespaces: selector(from.present("namespaceSelector")),
            objects: selector(from.present("objectSelector")),
        }
    }

    /// The version in which the request is meant, if it is.
    pub(super) async fn find(&self, registry: &Registry, a: &Attributes<'_>) -> Result<Option<Kind>, Status> {
        let Some(kind) = self.find_rule(a) else { return Ok(None) };
        // A selector that says no wins over one that cannot say.
        let namespace = self.selects_namespace(registry, a).await;
        if matches!(namespace, Ok(false)) {
            return Ok(None);
        }
        if !self.selects_object(a)? {
            return Ok(None);
        }
        namespace.map(|_| Some(kind))
    }

    fn find_rule(&self, a: &Attributes<'_>) -> Option<Kind> {
        if matching(&self.excluded, self.equivalent, a).is_some() {
            return None;
        }
        if self.rules.is_empty() && self.all_without_rules {
            return Some(a.kind);
        }
        matching(&self.rules, self.equivalent, a)
    }

    fn selects_object(&self, a: &Attributes<'_>) -> Result<bool, Status> {
        let selector = self.objects.as_ref().map_err(Status::internal_error)?;
        if selector.is_empty() {
            return Ok(true);
        }
        let empty = Map::new();
        let selected = |object: &Option<Value>| {
            object.as_ref().is_some_and(|o| selector.matches(object::labels(o).unwrap_or(&empty)))
        };
        Ok(selected(&a.object) || selected(&a.old))
    }

    async fn selects_namespace(&self, registry: &Registry, a: &Attributes<'_>) -> Result<bool, Status> {
        let name = a.request_namespace();
        if name.is_empty() && a.kind.resource.plural != "namespaces" {
            // What lives in no namespace is never exempted by one.
            return Ok(true);
        }
        let selector = self.namespaces.as_ref().map_err(Status::internal_error)?;
        if selector.is_empty() {
            return Ok(true);
        }
        let empty = Map::new();
        let writes = matches!(a.operation, Operation::Create | Operation::Update);
        if a.kind.is("", "namespaces") && a.subresource.is_empty() && writes {
            return Ok(selector.matches(object::labels(a.new_object()).unwrap_or(&empty)));
        }
        let Some(namespaces) = Kind::of("", "namespaces") else { return Ok(true) };
        let namespace = registry
            .lookup(&namespaces, "", name)
            .await?
            .ok_or_else(|| Status::not_found(&namespaces.gr(), name))?;
        Ok(selector.matches(object::labels(&namespace).unwrap_or(&empty)))
    }
}

/// The version in which one of `rules` means the request: its own first, then equivalent ones in the order of the rules.
pub(super) fn matching(rules: &[Rule], equivalent: bool, a: &Attributes<'_>) -> Option<Kind> {
    let own = Target::of(a, &a.kind);
    if rules.iter().any(|rule| rule.matches(&own)) {
        return Some(a.kind);
    }
    if !equivalent {
        return None;
    }
    rules.iter().find_map(|rule| {
        a.kind.equivalents(a.request_subresource()).find(|kind| rule.matches(&Target::of(a, kind)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(value: Value) -> Rule {
        Rule::parse(&value)
    }

    fn target<'a>(resource: &'a str, subresource: &'a str, namespace: &'a str) -> Target<'a> {
        Target { operation: "CREATE", group: "", version: "v1", resource, subresource, namespace, name: "x" }
    }

    #[test]
    fn resources_match_with_their_subresources() {
        let of = |resources: Value| {
            rule(
                json!({"operations": ["*"], "apiGroups": [""], "apiVersions": ["*"], "resources": resources}),
            )
        };
        for (resources, pods, status) in [
            (json!(["pods"]), true, false),
            (json!(["*"]), true, false),
            (json!(["pods/*"]), true, true),
            (json!(["*/*"]), true, true),
            (json!(["*/status"]), false, true),
            (json!(["pods/exec"]), false, false),
        ] {
            let rule = of(resources.clone());
            assert_eq!(rule.matches(&target("pods", "", "a")), pods, "{resources}");
            assert_eq!(rule.matches(&target("pods", "status", "a")), status, "{resources}");
        }
    }

    #[test]
    fn a_namespace_is_cluster_scoped_though_it_is_in_itself() {
        let scoped = |scope: &str| {
            rule(
                json!({"operations": ["CREATE"], "apiGroups": ["*"], "apiVersions": ["v1"], "resources": ["*"], "scope": scope}),
            )
        };
        for (resource, namespace, cluster) in
            [("namespaces", "a", true), ("nodes", "", true), ("pods", "a", false)]
        {
            assert_eq!(scoped("Cluster").matches(&target(resource, "", namespace)), cluster);
            assert_eq!(scoped("Namespaced").matches(&target(resource, "", namespace)), !cluster);
            assert!(scoped("*").matches(&target(resource, "", namespace)));
        }
    }

    #[test]
    fn names_restrict_a_rule() {
        let mut rule = rule(
            json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "resourceNames": ["y"]}),
        );
        assert!(!rule.matches(&target("pods", "", "a")));
        rule.names.push("x".into());
        assert!(rule.matches(&target("pods", "", "a")));
    }
}
