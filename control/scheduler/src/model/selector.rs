//! Label selectors of typed API objects, compiled.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use machinery::labels::{Operator, Requirement, Selector};

/// A label selector; none selects nothing. One that does not parse (the API server refuses it) selects nothing either.
pub fn compile(selector: Option<&meta::LabelSelector>) -> Selector {
    let Some(selector) = selector else { return Selector::Nothing };
    let equal = selector.match_labels.iter().flatten();
    let equal = equal.map(|(k, v)| Requirement::new(k, Operator::Equals, vec![v.clone()]).ok());
    let listed = selector.match_expressions.iter().flatten();
    let listed = listed.map(|e| requirement(&e.key, &e.operator, e.values.as_deref().unwrap_or_default()));
    match equal.chain(listed).collect::<Option<Vec<_>>>() {
        Some(requirements) => Selector::new(requirements),
        None => Selector::Nothing,
    }
}

fn requirement(key: &str, operator: &str, values: &[String]) -> Option<Requirement> {
    Requirement::new(key, Operator::of_expression(operator)?, values.to_vec()).ok()
}

/// `selector` narrowed to the values `labels` has for `keys` (`matchLabelKeys`), or away from them (`mismatchLabelKeys`). Keys the
/// labels lack are ignored. The API server may have merged them already; twice is no different from once.
pub(crate) fn narrowed<'a>(
    selector: Selector,
    labels: &std::collections::BTreeMap<String, String>,
    keys: impl Iterator<Item = &'a String>,
    operator: Operator,
) -> Selector {
    let Selector::All(mut requirements) = selector else { return selector };
    for key in keys {
        if let Some(value) = labels.get(key) {
            requirements.extend(Requirement::new(key, operator, vec![value.clone()]));
        }
    }
    Selector::new(requirements)
}
