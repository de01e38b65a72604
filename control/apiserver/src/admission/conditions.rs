//! `matchConditions`: expressions that must all hold before a webhook is called or a policy evaluated.
//! Upstream: `apiserver/pkg/admission/plugin/webhook/matchconditions`.

use machinery::access::Get as _;
use machinery::admission::{
    CONDITIONS_BUDGET, Declarations, EvaluationError, Evaluator, Expression, ResultType, compile,
};
use serde_json::Value;

/// An expression ready for use, or why it is none.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    pub source: String,
    expression: Result<Expression, String>,
}

impl Compiled {
    pub(super) fn new(source: &str, declarations: &Declarations<'_>, results: &[ResultType]) -> Self {
        let expression = compile(source, declarations, results).map_err(|e| e.to_string());
        Compiled { source: source.to_owned(), expression }
    }

    /// The expression, or why it is none.
    pub(super) fn expression(&self) -> Result<&Expression, &str> {
        self.expression.as_ref().map_err(String::as_str)
    }

    /// Its value; the error is upstream's text.
    pub(super) fn evaluate(&self, evaluator: &mut Evaluator<'_>) -> Result<Value, EvaluationError> {
        let failed = |e: &str| EvaluationError::Failed(format!("compilation error: {e}"));
        let value = evaluator.evaluate(self.expression().map_err(failed)?);
        value.map_err(|e| match e {
            EvaluationError::Failed(e) => {
                EvaluationError::Failed(format!("expression '{}' resulted in error: {e}", self.source))
            }
            EvaluationError::OutOfBudget => e,
        })
    }
}

/// The conditions of a webhook or policy.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions(Vec<Compiled>);

impl Conditions {
    /// `params`: whether they may name the parameters of a policy.
    pub(super) fn parse(conditions: &[Value], params: bool) -> Self {
        let declarations = Declarations { params, authorizer: true, ..Declarations::default() };
        let compiled = |c: &Value| Compiled::new(c.text("expression"), &declarations, &[ResultType::Bool]);
        Conditions(conditions.iter().map(compiled).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Do all hold? One that does not outweighs others that fail; where some fail, `ignores_failure` takes them for not met.
    /// All are evaluated, and the evaluator's budget is theirs.
    pub(super) fn hold(&self, evaluator: &mut Evaluator<'_>, ignores_failure: bool) -> Result<bool, String> {
        evaluator.restart(CONDITIONS_BUDGET);
        let (mut errors, mut met) = (Vec::new(), true);
        for condition in &self.0 {
            match condition.evaluate(evaluator) {
                Ok(value) => met &= value == Value::Bool(true),
                Err(EvaluationError::Failed(e)) => errors.push(e),
                Err(_) if ignores_failure => return Ok(false),
                Err(e) => return Err(e.to_string()),
            }
        }
        match errors.as_slice() {
            _ if !met => Ok(false),
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
        Conditions::parse(&conditions, false).hold(&mut evaluator, ignores_failure)
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

    #[test]
    fn conditions_together_must_not_cost_more_than_their_budget() {
        let ask = "lists.range(90000).all(x, x >= 0)";
        assert_eq!(hold(&[ask], false), Ok(true));
        let over =
            "validation failed due to running out of cost budget, no further validation rules will be run";
        assert_eq!(hold(&["object.a == 2", ask, ask, ask, ask, ask, ask, ask, ask], false), Err(over.into()));
        assert_eq!(hold(&[ask, ask, ask, ask, ask, ask, ask, ask], true), Ok(false));
    }

    #[test]
    fn a_condition_that_is_no_expression_must_not_hold() {
        let but = "compilation error: must evaluate to bool but got dyn";
        assert_eq!(hold(&["object.a"], false), Err(but.into()));
        assert!(hold(&["params.a == 1"], false).unwrap_err().contains("undeclared reference to 'params'"));
    }
}
