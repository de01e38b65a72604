//! `matchConditions`: expressions that must all hold before a webhook is called or a policy evaluated.
//! Upstream: `apiserver/pkg/admission/plugin/webhook/matchconditions`.

use crate::registry::metadata::text;
use machinery::cel::{Declarations, Evaluator, Expression, ResultType, compile};
use serde_json::Value;

/// An expression ready for use, or why it is none.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    pub source: String,
    expression: Result<Expression, String>,
}

impl Compiled {
    pub(super) fn new(source: &str, declarations: &Declarations<'_>, wanted: &[ResultType]) -> Self {
        let source = source.trim();
        let expression = compile(source, declarations, wanted).map_err(|e| e.to_string());
        Compiled { source: source.to_owned(), expression }
    }

    pub(super) fn expression(&self) -> Option<&Expression> {
        self.expression.as_ref().ok()
    }

    /// Its value; the error is upstream's text.
    pub(super) fn evaluate(&self, evaluator: &mut Evaluator<'_>) -> Result<Value, String> {
        let expression = self.expression.as_ref().map_err(|e| format!("compilation error: {e}"))?;
        evaluator
            .evaluate(expression)
            .map_err(|e| format!("expression '{}' resulted in error: {e}", self.source))
    }
}

/// What conditions may name; policies with parameters `params`, too.
pub(super) const VARIABLES: [&str; 6] =
    ["object", "oldObject", "request", "namespaceObject", "authorizer", "params"];

/// The conditions of a webhook or policy.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions(Vec<Compiled>);

impl Conditions {
    pub(super) fn parse(conditions: &[Value]) -> Self {
        let declarations = Declarations { variables: &VARIABLES, ..Declarations::default() };
        let compiled =
            |c: &Value| Compiled::new(text(c, &["expression"]), &declarations, &[ResultType::Bool]);
        Conditions(conditions.iter().map(compiled).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Do all hold? One that does not outweighs others that fail; where some fail, `ignores_failure` takes them for not met.
    pub(super) fn hold(&self, evaluator: &mut Evaluator<'_>, ignores_failure: bool) -> Result<bool, String> {
        let mut errors = Vec::new();
        for condition in &self.0 {
            match condition.evaluate(evaluator) {
                Ok(Value::Bool(true)) => {}
                Ok(_) => return Ok(false),
                Err(e) => errors.push(e),
            }
        }
        match errors.as_slice() {
            [] => Ok(true),
            _ if ignores_failure => Ok(false),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hold(expressions: &[&str], ignores_failure: bool) -> Result<bool, String> {
        let conditions: Vec<Value> =
            expressions.iter().map(|e| json!({"name": "c", "expression": e})).collect();
        let mut evaluator = Evaluator::default();
        evaluator.bind("object", &json!({"a": 1}));
        Conditions::parse(&conditions).hold(&mut evaluator, ignores_failure)
    }

    #[test]
    fn one_condition_not_met_outweighs_others_that_fail() {
        assert_eq!(hold(&["object.a == 1", "object.a > 0"], false), Ok(true));
        assert_eq!(hold(&["object.b == 1", "object.a > 1"], false), Ok(false));
        assert_eq!(
            hold(&["object.b == 1"], false),
            Err("expression 'object.b == 1' resulted in error: no such key: b".into())
        );
        assert_eq!(hold(&["object.b == 1"], true), Ok(false));
    }
}
