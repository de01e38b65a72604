//! Asking the authorizer (upstream: `apiserver/pkg/cel/library/authz.go`).

use super::super::authorizer::{AUTHORIZER, Authorization, Check, DECISION, GROUP, PATH, RESOURCE, Stage};
use super::super::cost::Cost;
use super::super::fault::{Evaluated, fail, no_overload};
use super::super::overload::{Body, Overload, Sig, body, member};
use super::super::value::Value;
use crate::names;

/// Cost of a check, as upstream's: an expression can afford two.
const ASK: Cost = Cost::Fixed(350_000);

fn given(what: &str, text: &str, next: impl FnOnce() -> Value) -> Evaluated {
    if text.trim().is_empty() { fail(format!("{what} must not be empty")) } else { Ok(next()) }
}

fn account(of: &Authorization, namespace: &str, name: &str) -> Evaluated {
    if !names::dns1123_subdomain(name).is_empty() {
        return fail("Invalid service account name");
    }
    if !names::dns1123_label(namespace).is_empty() {
        return fail("Invalid service account namespace");
    }
    let user = format!("system:serviceaccount:{namespace}:{name}");
    Ok(of.step(Stage::Authorizer, |check| check.account = Some(user)))
}

/// A resource check with one thing more said.
fn narrowed(args: &[Value], set: fn(&mut Check, String)) -> Evaluated {
    match args {
        [Value::Authorization(of), Value::Text(text)] => {
            Ok(of.step(Stage::Resource, |check| set(check, text.to_string())))
        }
        _ => no_overload(),
    }
}

/// What a decision says.
fn said(args: &[Value], say: fn(bool, &str) -> Value) -> Evaluated {
    match args {
        [Value::Authorization(of)] => match &of.stage {
            Stage::Decision { allowed, reason } => Ok(say(*allowed, reason)),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

pub(super) fn all() -> Vec<Overload> {
    use Sig::{Bool, Named, Text};
    use Value::{Authorization as A, Text as T};
    const ONE: Cost = Cost::Fixed(1);
    let mut out = vec![
        member(
            "path",
            vec![Named(AUTHORIZER), Text],
            Named(PATH),
            ONE,
            body!([A(of), T(path)] => given("path", path, || of.step(Stage::Path, |c| c.path = Some(path.to_string())))),
        ),
        member(
            "group",
            vec![Named(AUTHORIZER), Text],
            Named(GROUP),
            ONE,
            body!([A(of), T(group)] => Ok(of.step(Stage::Group, |c| c.group = group.to_string()))),
        ),
        member(
            "serviceAccount",
            vec![Named(AUTHORIZER), Text, Text],
            Named(AUTHORIZER),
            ONE,
            body!([A(of), T(namespace), T(name)] => account(of, namespace, name)),
        ),
        member(
            "resource",
            vec![Named(GROUP), Text],
            Named(RESOURCE),
            ONE,
            body!([A(of), T(resource)] => given("resource", resource, || of.step(Stage::Resource, |c| c.resource = resource.to_string()))),
        ),
    ];
    let narrowing: [(&'static str, Cost, Body); 5] = [
        ("subresource", ONE, |args| narrowed(args, |check, text| check.subresource = text)),
        ("namespace", ONE, |args| narrowed(args, |check, text| check.namespace = text)),
        ("name", ONE, |args| narrowed(args, |check, text| check.name = text)),
        ("fieldSelector", Cost::Selector, |args| narrowed(args, |check, text| check.fields = text)),
        ("labelSelector", Cost::Selector, |args| narrowed(args, |_, _| {})),
    ];
    for (name, cost, body) in narrowing {
        out.push(member(name, vec![Named(RESOURCE), Text], Named(RESOURCE), cost, body));
    }
    for of in [PATH, RESOURCE] {
        let ask: Body = body!([A(of), T(verb)] => Ok(of.ask(verb)));
        out.push(member("check", vec![Named(of), Text], Named(DECISION), ASK, ask));
    }
    // No authorizer here fails to decide.
    let decided: [(&'static str, Sig, Body); 4] = [
        ("allowed", Bool, |args| said(args, |allowed, _| Value::Bool(allowed))),
        ("reason", Text, |args| said(args, |_, reason| Value::text_of(reason))),
        ("errored", Bool, |args| said(args, |_, _| Value::Bool(false))),
        ("error", Text, |args| said(args, |_, _| Value::text_of(""))),
    ];
    for (name, gives, body) in decided {
        out.push(member(name, vec![Named(DECISION)], gives, ONE, body));
    }
    out
}
