//! Quantities (upstream: `cel/library/quantity.go`).

use super::super::cost::Cost;
use super::super::fault::{Evaluated, fail};
use super::super::overload::{Overload, Sig, body, global, member};
use super::super::value::Value;
use crate::quantity::{Format, Quantity};

fn parse(text: &str) -> Evaluated {
    Quantity::parse(text).map(Value::Quantity).or_else(|error| fail(error.to_string()))
}

fn whole(n: i64) -> Quantity {
    Quantity::new(n, Format::DecimalSi)
}

pub(super) fn all() -> Vec<Overload> {
    use Sig::{Bool, Double, Int, Text};
    use Value::Quantity as Q;
    const ONE: Cost = Cost::Fixed(1);
    let quantity = || Sig::Named("kubernetes.Quantity");
    let two = || vec![quantity(), quantity()];
    vec![
        global("quantity", vec![Text], quantity(), Cost::Text(1), body!([Value::Text(text)] => parse(text))),
        global(
            "isQuantity",
            vec![Text],
            Bool,
            Cost::Text(1),
            body!([Value::Text(text)] => Ok(Value::Bool(Quantity::parse(text).is_ok()))),
        ),
        // Upstream declares this one as no method.
        global("sign", vec![quantity()], Int, ONE, body!([Q(of)] => Ok(Value::Int(i64::from(of.sign()))))),
        member(
            "isInteger",
            vec![quantity()],
            Bool,
            ONE,
            body!([Q(of)] => Ok(Value::Bool(of.as_i64().is_some()))),
        ),
        member(
            "asInteger",
            vec![quantity()],
            Int,
            ONE,
            body!([Q(of)] => of.as_i64().map_or_else(|| fail("cannot convert value to integer"), |n| Ok(Value::Int(n)))),
        ),
        member(
            "asApproximateFloat",
            vec![quantity()],
            Double,
            ONE,
            body!([Q(of)] => Ok(Value::Double(of.as_f64()))),
        ),
        member("isGreaterThan", two(), Bool, ONE, body!([Q(a), Q(b)] => Ok(Value::Bool(a.cmp(b).is_gt())))),
        member("isLessThan", two(), Bool, ONE, body!([Q(a), Q(b)] => Ok(Value::Bool(a.cmp(b).is_lt())))),
        member("compareTo", two(), Int, ONE, body!([Q(a), Q(b)] => Ok(Value::Int(a.cmp(b) as i64)))),
        member("add", two(), quantity(), ONE, body!([Q(a), Q(b)] => Ok(Q(a.add(b))))),
        member(
            "add",
            vec![quantity(), Int],
            quantity(),
            ONE,
            body!([Q(a), Value::Int(n)] => Ok(Q(a.add(&whole(*n))))),
        ),
        member("sub", two(), quantity(), ONE, body!([Q(a), Q(b)] => Ok(Q(a.sub(b))))),
        member(
            "sub",
            vec![quantity(), Int],
            quantity(),
            ONE,
            body!([Q(a), Value::Int(n)] => Ok(Q(a.sub(&whole(*n))))),
        ),
    ]
}
