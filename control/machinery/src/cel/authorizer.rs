//! The `authorizer` variable: what may the one who asks do? Upstream: `apiserver/pkg/cel/library/authz.go`.
//!
//! A check under way is a map with a marker; the library's methods take and give such maps.

use kube_cel::cel::extractors::This;
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::{Context, ExecutionError, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// What is to be decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// A service account's user name, where it is not the one who asks.
    pub account: Option<String>,
    /// `get`
    pub verb: String,
    /// Path of a request that is about no resource.
    pub path: Option<String>,
    /// API group.
    pub group: String,
    /// Plural.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name, or empty.
    pub name: String,
}

/// Whether it is allowed, and why.
pub type Decide = dyn Fn(&Check) -> (bool, String) + Send + Sync;

/// Answers checks.
#[derive(Clone)]
pub struct Authorizer {
    decide: Arc<Decide>,
    request: Check,
}

const MARK: &str = "@authorizer";

fn entries(check: &Check) -> HashMap<Key, Value> {
    let mut map = HashMap::new();
    let mut set = |key: &str, text: &str| {
        map.insert(Key::from(key), Value::String(Arc::new(text.to_owned())));
    };
    for (key, text) in [
        (MARK, "check"),
        ("@group", &check.group),
        ("@resource", &check.resource),
        ("@subresource", &check.subresource),
        ("@namespace", &check.namespace),
        ("@name", &check.name),
    ] {
        set(key, text);
    }
    for (key, text) in [("@account", &check.account), ("@path", &check.path)] {
        if let Some(text) = text {
            set(key, text);
        }
    }
    map
}

fn value(check: &Check) -> Value {
    Value::Map(Map { map: Arc::new(entries(check)) })
}

fn no_overload() -> ExecutionError {
    ExecutionError::NoSuchOverload
}

fn text(map: &Map, key: &str) -> Option<String> {
    match map.map.get(&Key::from(key)) {
        Some(Value::String(text)) => Some(text.to_string()),
        _ => None,
    }
}

fn read(value: &Value) -> Result<Check, ExecutionError> {
    let Value::Map(map) = value else { return Err(no_overload()) };
    text(map, MARK).ok_or_else(no_overload)?;
    let of = |key: &str| text(map, key).unwrap_or_default();
    Ok(Check {
        account: text(map, "@account"),
        verb: String::new(),
        path: text(map, "@path"),
        group: of("@group"),
        resource: of("@resource"),
        subresource: of("@subresource"),
        namespace: of("@namespace"),
        name: of("@name"),
    })
}

impl Authorizer {
    /// Asks `decide`; `request` is what the request at hand would be checked for.
    pub fn new(decide: Arc<Decide>, request: Check) -> Self {
        Authorizer { decide, request }
    }

    pub(super) fn bind(&self, context: &mut Context<'static>) {
        let mut root = entries(&Check::default());
        root.insert(Key::from("requestResource"), value(&self.request));
        context.add_variable_from_value("authorizer", Value::Map(Map { map: Arc::new(root) }));
        type Part = fn(&mut Check, String);
        let parts: [(&str, Part); 6] = [
            ("path", |check, text| check.path = Some(text)),
            ("group", |check, text| check.group = text),
            ("resource", |check, text| check.resource = text),
            ("subresource", |check, text| check.subresource = text),
            ("namespace", |check, text| check.namespace = text),
            ("name", |check, text| check.name = text),
        ];
        for (name, set) in parts {
            context.add_function(
                name,
                move |This(this): This<Value>, text: Arc<String>| -> Result<Value, ExecutionError> {
                    let mut check = read(&this)?;
                    set(&mut check, text.to_string());
                    Ok(value(&check))
                },
            );
        }
        context.add_function(
            "serviceAccount",
            |This(this): This<Value>,
             namespace: Arc<String>,
             name: Arc<String>|
             -> Result<Value, ExecutionError> {
                let mut check = read(&this)?;
                check.account = Some(format!("system:serviceaccount:{namespace}:{name}"));
                Ok(value(&check))
            },
        );
        let decide = self.decide.clone();
        context.add_function(
            "check",
            move |This(this): This<Value>, verb: Arc<String>| -> Result<Value, ExecutionError> {
                let check = Check { verb: verb.to_string(), ..read(&this)? };
                let (allowed, reason) = decide(&check);
                let decision = HashMap::from([
                    (Key::from("@allowed"), Value::Bool(allowed)),
                    (Key::from("@reason"), Value::String(Arc::new(reason))),
                ]);
                Ok(Value::Map(Map { map: Arc::new(decision) }))
            },
        );
        let member = |key: &'static str| {
            move |This(this): This<Value>| -> Result<Value, ExecutionError> {
                let Value::Map(map) = &this else { return Err(no_overload()) };
                map.map.get(&Key::from(key)).cloned().ok_or_else(no_overload)
            }
        };
        context.add_function("allowed", member("@allowed"));
        context.add_function("reason", member("@reason"));
        context.add_function("errored", |This(_): This<Value>| false);
        context.add_function("error", |This(_): This<Value>| Arc::new(String::new()));
    }
}
