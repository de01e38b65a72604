//! Expressions about devices (upstream: `dynamic-resource-allocation/cel`).

use std::sync::{Arc, LazyLock};

use super::parts::fits;
use crate::{
    cel::{Environment, ObjectType, Program, Type},
    resources::validate::cursor::Cursor,
};

/// Selectors of one holder.
pub(super) const LIST_MAX: usize = 32;
/// Bytes of an expression.
const EXPRESSION_MAX: usize = 10 * 1024;
/// A macro of cel-go's extensions that is not known here: what uses it is not judged.
const BIND: &str = "cel.bind";
/// Attributes and capacities of one device.
const NAMES_MAX: u64 = 32;

/// What `device` is to an expression.
static DEVICE: LazyLock<Type> = LazyLock::new(|| {
    let by_name = |value: Type| {
        let inner = Type::Map(Box::new(Type::Text(32)), Box::new(value), NAMES_MAX);
        Type::Map(Box::new(Type::Text(63)), Box::new(inner), NAMES_MAX)
    };
    let fields = [
        ("driver", Type::Text(63)),
        ("allowMultipleAllocations", Type::Bool),
        ("attributes", by_name(Type::Dyn)),
        ("capacity", by_name(Type::Named("kubernetes.Quantity"))),
    ];
    Type::Object(Arc::new(ObjectType {
        name: "kubernetes.DRADevice".to_owned(),
        fields: fields.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect(),
        open: false,
    }))
});

/// What a device must be like; expressions that were there before are not judged again.
pub(super) fn selectors(selectors: Cursor<'_>, stored: bool) {
    if !fits(selectors, LIST_MAX) {
        return;
    }
    for cel in selectors.items().map(|selector| selector.field("cel")) {
        let expression = cel.field("expression");
        if !cel.is_set() {
            cel.missing("");
        } else if expression.str().len() > EXPRESSION_MAX {
            expression.too_long(EXPRESSION_MAX);
        } else if !stored && !expression.str().contains(BIND) {
            compiles(expression);
        }
    }
}

fn compiles(expression: Cursor<'_>) {
    let variables = [("device", DEVICE.clone())];
    let environment = Environment { variables: &variables, patches: false };
    match Program::compile(expression.str(), &environment) {
        Err(problems) => expression.invalid(format!("compilation failed: {problems}")),
        // An attribute may be a truth.
        Ok((_, estimate)) if matches!(estimate.kind, Type::Bool | Type::Dyn) => {}
        Ok((_, estimate)) => {
            let kind = estimate.kind.declared();
            expression.invalid(format!("must evaluate to bool or the unknown type, not {kind}"));
        }
    }
}
