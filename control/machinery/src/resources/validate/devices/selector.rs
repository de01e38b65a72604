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
/// What an expression may cost at most by its estimate (upstream: `CELSelectorExpressionMaxCost`).
const COST_MAX: u64 = 1_000_000;
/// Attributes and capacities of one device.
const NAMES_MAX: u64 = 32;

/// Characters of an attribute's value.
const VALUE_MAX: u64 = 64;

/// What `device` is to an expression.
static DEVICE: LazyLock<Type> = LazyLock::new(|| {
    let by_name = |value: Type| {
        let inner = Type::Map(Box::new(Type::Text(32)), Box::new(value), NAMES_MAX);
        Type::Map(Box::new(Type::Text(63)), Box::new(inner), NAMES_MAX)
    };
    let fields = [
        ("driver", Type::Text(63)),
        ("allowMultipleAllocations", Type::Bool),
        ("attributes", by_name(Type::Any(VALUE_MAX))),
        ("capacity", by_name(Type::Named("kubernetes.Quantity"))),
    ];
    Type::Object(Arc::new(ObjectType {
        name: "kubernetes.DRADevice".to_owned(),
        fields: fields.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect(),
        open: false,
    }))
});

/// What a device must be like; expressions that were there before are judged again, as upstream judges them: by what they cost and by
/// the functions that any of its versions in use has.
pub(super) fn selectors(selectors: Cursor<'_>) {
    if !fits(selectors, LIST_MAX) {
        return;
    }
    for cel in selectors.items().map(|selector| selector.field("cel")) {
        let expression = cel.field("expression");
        if !cel.is_set() {
            cel.missing("");
        } else if expression.str().len() > EXPRESSION_MAX {
            expression.too_long(EXPRESSION_MAX);
        } else {
            compiles(expression);
        }
    }
}

fn compiles(expression: Cursor<'_>) {
    let variables = [("device", DEVICE.clone())];
    let environment = Environment { devices: true, ..Environment::of(&variables) };
    match Program::compile(expression.str(), &environment) {
        Err(problems) if problems.step() == "compilation" => {
            expression.invalid(format!("compilation failed: {problems}"));
        }
        Err(problems) => expression.internal(&format!("{} failed: {problems}", problems.step())),
        // An attribute may be a truth.
        Ok((_, estimate)) if matches!(estimate.kind, Type::Bool | Type::Any(_)) => {
            if estimate.cost > COST_MAX {
                expression.forbidden("too complex, exceeds cost limit");
            }
        }
        Ok((_, estimate)) => {
            let kind = estimate.kind.declared();
            expression.invalid(format!("must evaluate to bool or the unknown type, not {kind}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an expression costs at most, or what is wrong with it.
    fn cost(text: &str) -> Result<u64, String> {
        let variables = [("device", DEVICE.clone())];
        let environment = Environment { devices: true, ..Environment::of(&variables) };
        Program::compile(text, &environment).map(|(_, estimate)| estimate.cost).map_err(|e| e.to_string())
    }

    /// Seven loops in one another, ten times each.
    fn dear() -> String {
        let ten = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]";
        let innermost = "int('1'.find('[0-9]*')) < 100".to_owned();
        (0..7).fold(innermost, |body, at| format!("{ten}.all(x{at}, {body})"))
    }

    /// Costs as upstream 1.36 has them (`dynamic-resource-allocation/cel`).
    #[test]
    fn an_estimate_must_not_differ_from_upstreams() {
        let of = "device.attributes['d.example.com']";
        for (text, want) in [
            ("true".to_owned(), 0),
            ("'no.example.com' in device.attributes".to_owned(), 3),
            ("device.driver == ''".to_owned(), 2),
            ("device.driver == 'dra.example.com'".to_owned(), 4),
            (format!("{of}.name"), 4),
            (format!("{of}['name']"), 4),
            (format!("cel.bind(dra, {of}, dra.name)"), 15),
            (format!("{of}.name > 0"), 5),
            (format!("{of}.name == 'fish'"), 5),
            (format!("{of}.name.isGreaterThan(semver('0.0.1'))"), 6),
            (format!("{of}.name.isGreaterThan(semver('v0.0.1', true)) && isSemver('v1.0.0', true)"), 7),
            ("device.capacity['d.example.com'].name.isGreaterThan(quantity('1Ki'))".to_owned(), 6),
            ("device.attributes.exists_one(x, x == 'dra.example.com')".to_owned(), 164),
            ("device.capacity.exists_one(x, x == 'dra.example.com')".to_owned(), 164),
            (format!("{of}.exists_one(x, x == 'services')"), 133),
            (format!("{of}.services.split('example').size() >= 2"), 19),
            (format!("{of}.services.matches('[^a]?sym')"), 18),
            ("device.allowMultipleAllocations == true".to_owned(), 3),
            (dear(), 85_555_551),
        ] {
            assert_eq!(cost(&text), Ok(want), "{text}");
        }
    }

    #[test]
    fn a_name_must_not_be_bound_to_anything_but_a_value() {
        let wrong = |text: &str| cost(text).unwrap_err();
        let names = "cel.bind() variable names must be simple identifiers";
        assert!(wrong("cel.bind(device.driver, 'a', true)").contains(names));
        assert!(wrong("cel.bind('a', 'a', true)").contains(names));
        assert!(wrong("cel.bind(a, b, a)").contains("undeclared reference to 'b'"));
        assert!(wrong("cel.bind(a, a, true)").contains("undeclared reference to 'a'"));
        assert!(wrong("cel.bind(a, 1, true) && a == 1").contains("undeclared reference to 'a'"));
        assert!(wrong("cel.bind(a, true)").contains("undeclared reference to 'bind'"));
        let ranged = wrong("device.attributes['d.example.com'].x.exists(y, y == 1)");
        assert!(ranged.contains("expression of type 'any' cannot be range of a comprehension"), "{ranged}");
        assert!(wrong("other.bind(a, 1, true)").contains("undeclared reference to 'bind'"));
        let variables = [("self", Type::Int)];
        let elsewhere = Program::compile("cel.bind(a, self, a == 1)", &Environment::of(&variables));
        assert!(elsewhere.unwrap_err().to_string().contains("undeclared reference to 'bind'"));
    }

    #[test]
    fn a_bound_name_stands_for_its_value() {
        let nested = "cel.bind(a, 'x', cel.bind(b, a + 'y', a + b == 'xxy' && ['xy'].all(a, a == b)))";
        for text in [nested, "cel.bind(a, [1, 2], a.exists(x, x == 2))", "cel.bind(unread, 1 / 0, true)"] {
            let environment = Environment { devices: true, ..Environment::default() };
            let (program, estimate) = Program::compile(text, &environment).unwrap();
            let (outcome, spent) = program.eval(&|_: &str| None, 1000);
            assert_eq!(outcome, Ok(crate::cel::Value::Bool(true)), "{text}");
            assert!(spent <= estimate.cost, "{text}: {spent} of {}", estimate.cost);
        }
    }
}
