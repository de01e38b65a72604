//! What expressions may name (upstream: `admission/plugin/cel/compile.go`, `composition.go`).

use crate::cel::authorizer::{AUTHORIZER_TYPE, RESOURCE_TYPE};
use crate::cel::{ObjectType, Type, patches};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What may follow `variables.`, and its types.
pub type Variables = BTreeMap<String, Type>;

/// What an expression may name beside `object`, `oldObject`, `request` and `namespaceObject`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Declarations<'a> {
    /// Whether there is `params`.
    pub params: bool,
    /// Whether there are `authorizer` and `authorizer.requestResource`.
    pub authorizer: bool,
    /// What may follow `variables.`; none where there is no `variables`.
    pub variables: Option<&'a Variables>,
    /// Whether there are `Object{...}`, `JSONPatch{...}` and `jsonpatch.escapeKey`.
    pub patches: bool,
}

/// The type of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultType {
    /// `bool`
    Bool,
    /// `string`
    String,
    /// `null_type`
    Null,
    /// `Object`
    Object,
    /// `list(JSONPatch)`
    Patches,
}

impl ResultType {
    /// Whether it is exactly that type: a value of any type is not.
    pub(super) fn is(self, kind: &Type) -> bool {
        match self {
            ResultType::Bool => *kind == Type::Bool,
            ResultType::String => matches!(kind, Type::Text(_)),
            ResultType::Null => *kind == Type::Null,
            ResultType::Object => patches::is_object(kind),
            ResultType::Patches => patches::is_patch_list(kind),
        }
    }
}

impl fmt::Display for ResultType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ResultType::Bool => "bool",
            ResultType::String => "string",
            ResultType::Null => "null_type",
            ResultType::Object => "Object",
            ResultType::Patches => "list(JSONPatch)",
        })
    }
}

/// The variables of expressions whose objects may be of any kind.
pub(super) fn variables(declarations: &Declarations<'_>) -> Vec<(&'static str, Type)> {
    let mut variables = vec![("object", Type::Dyn), ("oldObject", Type::Dyn)];
    variables.extend(fixed());
    if declarations.params {
        variables.push(("params", Type::Dyn));
    }
    if declarations.authorizer {
        variables.push(("authorizer", AUTHORIZER_TYPE));
        variables.push(("authorizer.requestResource", RESOURCE_TYPE));
    }
    variables.extend(declarations.variables.map(|composed| ("variables", variables_type(composed))));
    variables
}

/// `variables` as a type.
pub(super) fn variables_type(composed: &Variables) -> Type {
    object("kubernetes.variables", composed.iter().map(|(name, kind)| (name.as_str(), kind.clone())))
}

/// `request` and `namespaceObject`.
pub(super) fn fixed() -> [(&'static str, Type); 2] {
    [("request", request()), ("namespaceObject", namespace())]
}

/// The type of a variable whose expression is of a type: upstream keeps scalars, lists and maps.
pub(super) fn composed(kind: &Type) -> Type {
    match kind {
        Type::List(item, most) => Type::List(Box::new(composed(item)), *most),
        Type::Map(key, value, most) => Type::Map(Box::new(composed(key)), Box::new(composed(value)), *most),
        Type::Object(_) | Type::Optional(_) | Type::Type | Type::Named(_) => Type::Dyn,
        scalar => scalar.clone(),
    }
}

fn object<'n>(name: &str, fields: impl IntoIterator<Item = (&'n str, Type)>) -> Type {
    let fields = fields.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect();
    Type::Object(Arc::new(ObjectType { name: name.to_owned(), fields, open: false }))
}

fn texts(names: &[&'static str]) -> Vec<(&'static str, Type)> {
    names.iter().map(|name| (*name, Type::text())).collect()
}

fn request() -> Type {
    let kind = object("kubernetes.GroupVersionKind", texts(&["group", "version", "kind"]));
    let resource = object("kubernetes.GroupVersionResource", texts(&["group", "version", "resource"]));
    let mut user = texts(&["username", "uid"]);
    user.push(("groups", Type::list(Type::text())));
    user.push(("extra", Type::map(Type::list(Type::text()))));
    let mut fields = texts(&["subResource", "requestSubResource", "name", "namespace", "operation"]);
    fields.extend([
        ("kind", kind.clone()),
        ("resource", resource.clone()),
        ("requestKind", kind),
        ("requestResource", resource),
        ("userInfo", object("kubernetes.UserInfo", user)),
        ("dryRun", Type::Bool),
        ("options", Type::Dyn),
    ]);
    object("kubernetes.AdmissionRequest", fields)
}

fn namespace() -> Type {
    let mut metadata = texts(&["name", "generateName", "namespace", "UID", "resourceVersion"]);
    metadata.extend([
        ("labels", Type::map(Type::text())),
        ("annotations", Type::map(Type::text())),
        ("creationTimestamp", Type::time()),
        ("deletionTimestamp", Type::time()),
        ("deletionGracePeriodSeconds", Type::Int),
        ("generation", Type::Int),
        ("finalizers", Type::list(Type::text())),
    ]);
    let mut condition = texts(&["status", "type", "message", "reason"]);
    condition.push(("lastTransitionTime", Type::time()));
    let conditions = Type::list(object("kubernetes.NamespaceCondition", condition));
    let status = [("conditions", conditions), ("phase", Type::text())];
    let spec = [("finalizers", Type::list(Type::text()))];
    object(
        "kubernetes.Namespace",
        [
            ("metadata", object("kubernetes.NamespaceMetadata", metadata)),
            ("spec", object("kubernetes.NamespaceSpec", spec)),
            ("status", object("kubernetes.NamespaceStatus", status)),
        ],
    )
}
