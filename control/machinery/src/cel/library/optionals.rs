//! Optionals (upstream: version 2 of cel-go's optional library).

use super::super::cost::Cost;
use super::super::fault::{Evaluated, fail};
use super::super::overload::{Overload, Sig, body, global, list, member, optional};
use super::super::value::Value;
use std::sync::Arc;

fn some(value: Option<&Value>) -> Evaluated {
    Ok(Value::Optional(value.map(|v| Arc::new(v.clone()))))
}

fn unwrap(items: &[Value]) -> Evaluated {
    let mut out = Vec::new();
    for item in items {
        match item {
            Value::Optional(inner) => out.extend(inner.as_deref().cloned()),
            other => return fail(format!("value {} is not optional", other.text())),
        }
    }
    Ok(Value::list_of(out))
}

pub(super) fn all() -> Vec<Overload> {
    use Sig::{A, Bool};
    use Value::{List as L, Optional as O};
    const ONE: Cost = Cost::Fixed(1);
    vec![
        global("optional.of", vec![A], optional(A), ONE, body!([value] => some(Some(value)))),
        global(
            "optional.ofNonZeroValue",
            vec![A],
            optional(A),
            ONE,
            body!([value] => some((!value.is_zero()).then_some(value))),
        ),
        global("optional.none", vec![], optional(A), ONE, |_| Ok(O(None))),
        global("optional.unwrap", vec![list(optional(A))], list(A), ONE, body!([L(items)] => unwrap(items))),
        member("unwrapOpt", vec![list(optional(A))], list(A), ONE, body!([L(items)] => unwrap(items))),
        member(
            "value",
            vec![optional(A)],
            A,
            ONE,
            body!([O(Some(inner))] => Ok((**inner).clone()), [O(None)] => fail("optional.none() dereference")),
        ),
        member(
            "hasValue",
            vec![optional(A)],
            Bool,
            ONE,
            body!([O(inner)] => Ok(Value::Bool(inner.is_some()))),
        ),
        member(
            "or",
            vec![optional(A), optional(A)],
            optional(A),
            ONE,
            body!([O(None), other] => Ok(other.clone()), [of, _] => Ok(of.clone())),
        ),
        member(
            "orValue",
            vec![optional(A), A],
            A,
            ONE,
            body!([O(None), other] => Ok(other.clone()), [O(Some(inner)), _] => Ok((**inner).clone())),
        ),
        member("first", vec![list(A)], optional(A), ONE, body!([L(items)] => some(items.first()))),
        member("last", vec![list(A)], optional(A), ONE, body!([L(items)] => some(items.last()))),
    ]
}
