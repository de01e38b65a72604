//! The question put to authorizers.

use crate::context::{Context, RequestInfo, User};
use machinery::fields::FieldSelector;
use machinery::labels::{Requirement, Selector};

/// Who wants to do what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Who asks.
    pub user: User,
    /// Verb of the API, or the lower-case method for paths.
    pub verb: String,
    /// False for paths.
    pub is_resource: bool,
    /// API group; empty: the core one.
    pub group: String,
    /// Version within the group.
    pub version: String,
    /// Plural name.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Object name, or empty.
    pub name: String,
    /// The path of a request that is not about a resource.
    pub path: String,
    /// What a list, watch or deletecollection is narrowed to.
    pub fields: FieldSelector,
    /// The same by labels.
    pub labels: Vec<Requirement>,
}

impl Attributes {
    /// The attributes of a request.
    #[must_use]
    pub fn of(info: &RequestInfo, user: &User, query: &[(String, String)]) -> Self {
        let narrowed = matches!(info.verb.as_str(), "list" | "watch" | "deletecollection");
        let selector = |name: &str| crate::query::first(query, name).filter(|_| narrowed);
        let labels = selector("labelSelector").and_then(|text| Selector::parse(text).ok());
        Attributes {
            user: user.clone(),
            verb: info.verb.clone(),
            is_resource: info.is_resource,
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            path: info.path.clone(),
            fields: selector("fieldSelector").and_then(|s| FieldSelector::parse(s).ok()).unwrap_or_default(),
            labels: labels.map(|labels| labels.requirements().to_vec()).unwrap_or_default(),
        }
    }

    /// The attributes of a request past authentication.
    #[must_use]
    pub fn of_context(context: &Context) -> Self {
        Self::of(&context.info, &context.user, &context.query)
    }

    /// `pods` or `pods/exec`.
    #[must_use]
    pub fn combined_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}
