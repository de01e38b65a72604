//! Whether a toleration tolerates a taint (upstream: `Toleration.ToleratesTaint`).

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Whether `toleration` tolerates `taint`. An empty effect or key stands for all; `Lt` and `Gt` compare whole numbers, the taint's with the
/// toleration's.
#[must_use]
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned();
    let covers = |wanted: &Option<String>, given: &str| {
        wanted.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted == given)
    };
    if !covers(&toleration.effect, &taint.effect) || !covers(&toleration.key, &taint.key) {
        return false;
    }
    let (bound, value) = (text(&toleration.value), text(&taint.value));
    let numbers = || Some((number(&value)?, number(&bound)?));
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => bound == value,
        "Exists" => true,
        "Lt" => numbers().is_some_and(|(value, bound)| value < bound),
        "Gt" => numbers().is_some_and(|(value, bound)| value > bound),
        _ => false,
    }
}

/// Whether one of the tolerations tolerates the taint.
#[must_use]
pub fn any_tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

/// A decimal without sign or leading zeros other than `-`: what upstream's validation lets through.
fn number(text: &str) -> Option<i64> {
    text.parse().ok().filter(|number: &i64| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn tolerated(toleration: Value, taint: Value) -> bool {
        tolerates(&serde_json::from_value(toleration).unwrap(), &serde_json::from_value(taint).unwrap())
    }

    #[test]
    fn operators_values_and_effects_decide() {
        let taint = json!({ "key": "k", "value": "5", "effect": "NoExecute" });
        let table = [
            (json!({ "operator": "Exists" }), true),
            (json!({ "key": "k", "operator": "Exists" }), true),
            (json!({ "key": "other", "operator": "Exists" }), false),
            (json!({ "key": "k", "value": "5" }), true),
            (json!({ "key": "k", "operator": "Equal", "value": "6" }), false),
            (json!({ "key": "k" }), false),
            (json!({ "key": "k", "operator": "Exists", "effect": "NoSchedule" }), false),
            (json!({ "key": "k", "value": "5", "effect": "NoExecute" }), true),
            (json!({ "key": "k", "operator": "Lt", "value": "6" }), true),
            (json!({ "key": "k", "operator": "Lt", "value": "5" }), false),
            (json!({ "key": "k", "operator": "Gt", "value": "4" }), true),
            (json!({ "key": "k", "operator": "Gt", "value": "x" }), false),
            (json!({ "key": "k", "operator": "Gt", "value": "04" }), false),
            (json!({ "key": "k", "operator": "Like", "value": "5" }), false),
        ];
        for (toleration, want) in table {
            assert_eq!(tolerated(toleration.clone(), taint.clone()), want, "{toleration}");
        }
        assert!(
            tolerated(json!({ "key": "k" }), json!({ "key": "k", "effect": "NoSchedule" })),
            "no value on either side"
        );
    }
}
