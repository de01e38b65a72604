//! Selectors inside specs, of labels and of nodes.

use serde_json::Map;

use super::cursor::Cursor;
use crate::{labels::Selector, names};

const NEEDS_VALUES: &str = "must be specified when `operator` is 'In' or 'NotIn'";
const NEEDS_NO_VALUES: &str = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
pub(super) const MISMATCH: &str = "`selector` does not match template `labels`";
const NO_OPERATOR: &str = "not a valid selector operator";

impl<'v> Cursor<'v> {
    pub(super) fn label_selector(self) {
        self.field("matchLabels").labels();
        for requirement in self.each("matchExpressions") {
            let (operator, values) = (requirement.field("operator"), requirement.field("values"));
            match (operator.str(), values.is_empty()) {
                ("In" | "NotIn", true) => values.missing(NEEDS_VALUES),
                ("Exists" | "DoesNotExist", false) => values.forbidden(NEEDS_NO_VALUES),
                ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
                (other, _) => operator.invalid_value(other, NO_OPERATOR),
            }
            requirement.field("key").qualified();
            for value in values.items() {
                value.format(names::label_value);
            }
        }
    }

    /// A node selector: one term at least, each a list of requirements.
    pub(super) fn node_selector(self) {
        let terms = self.field("nodeSelectorTerms");
        terms.required_with("must have at least one node selector term");
        terms.items().for_each(Cursor::node_selector_term);
    }

    pub(super) fn node_selector_term(self) {
        for requirement in self.each("matchExpressions") {
            let (operator, values) = (requirement.field("operator"), requirement.field("values"));
            match (operator.str(), values.values().len()) {
                ("In" | "NotIn", 0) => values.missing(NEEDS_VALUES),
                ("Exists" | "DoesNotExist", 1..) => values.forbidden(NEEDS_NO_VALUES),
                ("Gt" | "Lt", 0 | 2..) => {
                    values.missing("must be specified single value when `operator` is 'Lt' or 'Gt'");
                }
                ("In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt", _) => {}
                (other, _) => operator.invalid_value(other, NO_OPERATOR),
            }
            requirement.field("key").qualified();
            if matches!(operator.str(), "In" | "NotIn") {
                for value in values.items() {
                    value.format(names::label_value);
                }
            }
        }
        for requirement in self.each("matchFields") {
            let (operator, values) = (requirement.field("operator"), requirement.field("values"));
            match operator.str() {
                "In" | "NotIn" if values.values().len() != 1 => values.missing(
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
                ),
                "In" | "NotIn" => {}
                other => operator.invalid_value(other, NO_OPERATOR),
            }
            let key = requirement.field("key");
            if key.str() != "metadata.name" {
                key.invalid("not a valid field selector key");
            }
        }
    }

    /// The selector of a workload's spec: valid, not empty, and matching its own template.
    pub(super) fn selects_template(self, kind: &str) {
        let selector = self.field("selector");
        if !selector.is_set() {
            selector.missing("");
            // What is missing selects nothing, this template neither.
            return self.field("template.metadata.labels").invalid(MISMATCH);
        }
        selector.label_selector();
        if selector.field("matchLabels").is_empty() && selector.field("matchExpressions").is_empty() {
            selector.invalid(format!("empty selector is invalid for {kind}"));
        }
        self.matches_template();
    }

    /// Whether a selector that can be read at all matches the labels of the template beside it.
    pub(super) fn matches_template(self) {
        let selector = self.field("selector");
        let Ok(parsed) = Selector::from_label_selector(selector.value) else {
            return selector.invalid("invalid label selector");
        };
        let labels = self.field("template.metadata.labels");
        let empty = Map::new();
        let given = labels.value.as_object().unwrap_or(&empty);
        if !parsed.is_empty() && !parsed.matches(given) {
            labels.invalid(MISMATCH);
        }
    }
}
