//! What can be done at which path: a table that both dialects render.

use crate::discovery::{Resource, Subresource, Version};
use machinery::object::{Gvk, format_api_version};
use machinery::patch;

/// One operation at one path.
#[derive(Clone, Debug)]
pub struct Operation {
    /// `/api/v1/namespaces/{namespace}/pods/{name}`.
    pub path: String,
    /// `get`, `put`, `post`, `patch` or `delete`.
    pub method: &'static str,
    /// `x-kubernetes-action`.
    pub action: &'static str,
    /// `operationId`, unique in the document.
    pub id: String,
    /// Group, version and kind it is about.
    pub gvk: (String, String, String),
    pub query: Vec<&'static str>,
    /// `apiVersion` and kind of the body.
    pub body: Option<(String, String)>,
    /// `apiVersion` and kind of the answer.
    pub answer: Option<(String, String)>,
}

const LIST: [&str; 10] = [
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
const WRITE: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];
const DELETE: [&str; 4] = ["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"];

/// verb, method, action, name of the operation, on the collection
const VERBS: [(&str, &str, &str, &str, bool); 7] = [
    ("list", "get", "list", "list", true),
    ("create", "post", "post", "create", true),
    ("deletecollection", "delete", "deletecollection", "deleteCollection", true),
    ("get", "get", "get", "read", false),
    ("update", "put", "put", "replace", false),
    ("patch", "patch", "patch", "patch", false),
    ("delete", "delete", "delete", "delete", false),
];

/// The type of a query parameter.
#[must_use]
pub fn parameter_type(name: &str) -> &'static str {
    match name {
        "limit" | "timeoutSeconds" | "gracePeriodSeconds" => "integer",
        "watch" | "allowWatchBookmarks" | "sendInitialEvents" | "orphanDependents" | "force" => "boolean",
        _ => "string",
    }
}

/// Every operation of a group version.
#[must_use]
pub fn of_version(group: &str, version: &Version) -> Vec<Operation> {
    let mut out = Vec::new();
    for resource in &version.resources {
        let place = Place::new(group, &version.name, resource);
        for (verb, method, action, name, collection) in VERBS {
            if resource.verbs.iter().any(|v| v == verb) {
                out.push(place.operation(verb, method, action, name, collection));
            }
        }
        if resource.namespaced && resource.verbs.iter().any(|v| v == "list") {
            out.push(place.list_everywhere());
        }
        for subresource in &resource.subresources {
            out.extend(place.subresource(subresource));
        }
    }
    out
}

impl Operation {
    /// The media types of its body. Clients choose the format of their patches by them.
    #[must_use]
    pub fn consumes(&self) -> &'static [&'static str] {
        let (group, version, kind) = &self.gvk;
        match self.method {
            "patch" => patch::media_types(&Gvk::new(group, version, kind)),
            _ => &["*/*"],
        }
    }
}

struct Place<'a> {
    group: &'a str,
    version: &'a str,
    resource: &'a Resource,
    root: String,
    collection: String,
}

impl<'a> Place<'a> {
    fn new(group: &'a str, version: &'a str, resource: &'a Resource) -> Self {
        let root =
            if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let space = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("{root}{space}/{}", resource.plural);
        Place { group, version, resource, root, collection }
    }

    fn api_version(&self) -> String {
        format_api_version(self.group, self.version)
    }

    fn id(&self, name: &str, rest: &str) -> String {
        let group = match self.group.split('.').next().unwrap_or_default() {
            "" => "Core".to_owned(),
            group => capital(group),
        };
        let space = if self.resource.namespaced { "Namespaced" } else { "" };
        format!("{name}{group}{}{space}{}{rest}", capital(self.version), self.resource.kind)
    }

    fn operation(
        &self,
        verb: &str,
        method: &'static str,
        action: &'static str,
        name: &str,
        collection: bool,
    ) -> Operation {
        let kind = self.resource.kind.clone();
        let object = (self.api_version(), kind.clone());
        let list = (self.api_version(), self.resource.lists());
        let status = ("v1".to_owned(), "Status".to_owned());
        let options = ("v1".to_owned(), "DeleteOptions".to_owned());
        let patch = ("v1".to_owned(), "Patch".to_owned());
        let (query, body, answer): (Vec<&'static str>, _, _) = match verb {
            "list" => (LIST.to_vec(), None, list),
            "create" | "update" => (WRITE.to_vec(), Some(object.clone()), object),
            "patch" => ([&WRITE[..], &["force"]].concat(), Some(patch), object),
            "delete" => (DELETE.to_vec(), Some(options), status),
            "deletecollection" => ([&LIST[..], &DELETE[..]].concat(), Some(options), status),
            _ => (Vec::new(), None, object),
        };
        let path = if collection { self.collection.clone() } else { format!("{}/{{name}}", self.collection) };
        Operation {
            path,
            method,
            action,
            id: self.id(name, ""),
            gvk: (self.group.to_owned(), self.version.to_owned(), kind),
            query,
            body,
            answer: Some(answer),
        }
    }

    fn list_everywhere(&self) -> Operation {
        let mut operation = self.operation("list", "get", "list", "list", true);
        operation.path = format!("{}/{}", self.root, self.resource.plural);
        operation.id = format!("{}ForAllNamespaces", self.id("list", "").replacen("Namespaced", "", 1));
        operation
    }

    fn subresource(&self, sub: &Subresource) -> Vec<Operation> {
        let (group, version) =
            sub.group_version.clone().unwrap_or_else(|| (self.group.to_owned(), self.version.to_owned()));
        let object = (format_api_version(&group, &version), sub.kind.clone());
        let connects = ["exec", "attach", "portforward", "proxy"].contains(&sub.name.as_str());
        let mut out = Vec::new();
        for (verb, method, action, name, _) in VERBS {
            if verb == "list" || verb == "deletecollection" || !sub.verbs.iter().any(|v| v == verb) {
                continue;
            }
            let (action, name) = if connects { ("connect", connect_name(method)) } else { (action, name) };
            let writes = matches!(verb, "create" | "update" | "patch") && !connects;
            let body = match verb {
                "patch" => Some(("v1".to_owned(), "Patch".to_owned())),
                "create" | "update" => Some(object.clone()),
                _ => None,
            };
            let mut query = if writes { WRITE.to_vec() } else { Vec::new() };
            if writes && verb == "patch" {
                query.push("force");
            }
            out.push(Operation {
                path: format!("{}/{{name}}/{}", self.collection, sub.name),
                method,
                action,
                id: self.id(name, &capital(&sub.name)),
                gvk: (group.clone(), version.clone(), sub.kind.clone()),
                query,
                body: body.filter(|_| writes),
                answer: (!connects && sub.name != "log").then(|| object.clone()),
            });
        }
        out
    }
}

fn connect_name(method: &str) -> &'static str {
    match method {
        "get" => "connectGet",
        "post" => "connectPost",
        "put" => "connectPut",
        "patch" => "connectPatch",
        _ => "connectDelete",
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
