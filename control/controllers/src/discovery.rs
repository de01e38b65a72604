//! What the API server serves, by its aggregated discovery: every kind in every version, and which version of a kind is the one to use.

use kube::Client;
use kube::api::ApiResource;
use kube::core::discovery::v2::{APIGroupDiscovery, APIResourceDiscovery};
use std::collections::HashSet;

/// A kind in one version.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    /// How it is reached.
    pub(crate) resource: ApiResource,
    /// Its objects have namespaces.
    pub(crate) namespaced: bool,
    verbs: Vec<String>,
    /// Its group prefers this version, or serves the kind in none it prefers more.
    pub(crate) preferred: bool,
}

/// All that is served.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    pub(crate) kinds: Vec<Offer>,
    /// Group versions of other servers that do not answer: what they have is not known.
    stale: Vec<String>,
}

/// Asks the API server.
///
/// # Errors
/// It does not answer.
pub(crate) async fn discover(client: &Client) -> Result<Offers, kube::Error> {
    let core = client.list_core_api_versions_aggregated().await?;
    let others = client.list_api_groups_aggregated().await?;
    Ok(Offers::of(core.items.into_iter().chain(others.items)))
}

impl Offer {
    fn new(group: &str, version: &str, resource: APIResourceDiscovery) -> Self {
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        Self {
            resource: ApiResource {
                group: group.to_owned(),
                version: version.to_owned(),
                api_version,
                kind: resource.response_kind.and_then(|kind| kind.kind).unwrap_or_default(),
                plural: resource.resource.unwrap_or_default(),
            },
            namespaced: resource.scope.as_deref() == Some("Namespaced"),
            verbs: resource.verbs,
            preferred: false,
        }
    }

    /// Whether all of these can be done to its objects.
    pub(crate) fn allows(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.iter().any(|v| v == verb))
    }
}

impl Offers {
    /// The kinds of these groups, whose versions stand in the order of preference.
    fn of(groups: impl Iterator<Item = APIGroupDiscovery>) -> Self {
        let mut offers = Self::default();
        for group in groups {
            let name = group.metadata.and_then(|m| m.name).unwrap_or_default();
            let mut seen = HashSet::new();
            for version in group.versions {
                let of = version.version.unwrap_or_default();
                if version.freshness.as_deref() == Some("Stale") {
                    offers.stale.push(if name.is_empty() { of } else { format!("{name}/{of}") });
                    continue;
                }
                for resource in version.resources {
                    let mut offer = Offer::new(&name, &of, resource);
                    offer.preferred = seen.insert(offer.resource.plural.clone());
                    offers.kinds.push(offer);
                }
            }
        }
        offers
    }

    /// Each kind in the version to use (upstream's `ServerPreferredResources`).
    pub(crate) fn preferred(&self) -> impl Iterator<Item = &Offer> {
        self.kinds.iter().filter(|offer| offer.preferred)
    }

    /// Why these are not all the kinds there are, if so.
    pub(crate) fn incomplete(&self) -> Option<String> {
        let mut each: Vec<String> =
            self.stale.iter().map(|of| format!("{of}: stale GroupVersion discovery: {of}")).collect();
        each.sort();
        let count = each.len();
        (count > 0).then(|| {
            format!(
                "Discovery failed for some groups, {count} failing: unable to retrieve the complete list of server APIs: {}",
                each.join(", ")
            )
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A group whose versions serve these kinds; without kinds they do not answer.
    pub(crate) fn group(name: &str, versions: &[(&str, &[&str])]) -> Value {
        let resource = |plural: &&str| {
            json!({ "resource": plural, "responseKind": { "group": "", "version": "", "kind": plural },
                "scope": "Namespaced", "verbs": ["list", "watch", "delete"] })
        };
        let version = |(version, kinds): &(&str, &[&str])| {
            let freshness = if kinds.is_empty() { "Stale" } else { "Current" };
            json!({ "version": version, "freshness": freshness,
                "resources": kinds.iter().map(resource).collect::<Vec<_>>() })
        };
        json!({ "metadata": { "name": name }, "versions": versions.iter().map(version).collect::<Vec<_>>() })
    }

    fn offers(group: Value) -> Offers {
        let group: APIGroupDiscovery = serde_json::from_value(group).unwrap();
        Offers::of([group].into_iter())
    }

    #[test]
    fn a_kind_that_the_preferred_version_lacks_must_not_be_overlooked() {
        let offers =
            offers(group("g.io", &[("v1", &["as"]), ("v2", &["as", "bs"]), ("v1beta1", &["bs", "cs"])]));
        let used = offers.preferred().map(|o| (o.resource.plural.as_str(), o.resource.api_version.as_str()));
        assert_eq!(used.collect::<Vec<_>>(), [("as", "g.io/v1"), ("bs", "g.io/v2"), ("cs", "g.io/v1beta1")]);
        assert_eq!((offers.kinds.len(), offers.incomplete()), (5, None));
    }

    #[test]
    fn a_version_that_does_not_answer_must_not_pass_for_one_that_has_nothing() {
        let offers = offers(group("g.io", &[("v1", &[]), ("v1beta1", &["as"])]));
        let used: Vec<_> = offers.preferred().map(|o| o.resource.version.as_str()).collect();
        assert_eq!(used, ["v1beta1"]);
        let why = "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: \
            g.io/v1: stale GroupVersion discovery: g.io/v1";
        assert_eq!(offers.incomplete().as_deref(), Some(why));
    }
}
