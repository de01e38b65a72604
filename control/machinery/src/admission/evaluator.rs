//! Evaluation within a budget (upstream: `admission/plugin/cel/activation.go`, `composition.go`).

use super::Expression;
use crate::cel::authorizer::Authorizer;
use crate::cel::{Error, Evaluated, PER_CALL, PER_OBJECT, Value, Variables};
use serde_json::Value as Json;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// What the expressions of a policy's binding may cost together (upstream: `RuntimeCELCostBudget`).
pub const BUDGET: u64 = PER_OBJECT;
/// What match conditions may cost together (upstream: `RuntimeCELCostBudgetMatchConditions`).
pub const CONDITIONS_BUDGET: u64 = PER_OBJECT / 4;

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// It fails, by itself.
    #[error("{0}")]
    Failed(String),
    /// All that were evaluated cost more than they may together: no further one is to be evaluated.
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    OutOfBudget,
}

/// Evaluates expressions over one set of variables.
pub struct Evaluator<'e> {
    bound: BTreeMap<&'static str, Value>,
    /// What `variables.x` stands for; the error is why it does not compile.
    composed: BTreeMap<&'e str, Result<&'e Expression, &'e str>>,
    /// Those that were read.
    read: RefCell<BTreeMap<&'e str, Evaluated>>,
    /// What reading them cost, where no expression has paid for it.
    unpaid: Cell<u64>,
    left: u64,
}

impl Default for Evaluator<'_> {
    fn default() -> Self {
        Evaluator {
            bound: BTreeMap::new(),
            composed: BTreeMap::new(),
            read: RefCell::default(),
            unpaid: Cell::new(0),
            left: BUDGET,
        }
    }
}

impl<'e> Evaluator<'e> {
    /// Sets a variable for the expressions evaluated later.
    pub fn bind(&mut self, name: &'static str, value: &Json) {
        self.bound.insert(name, Value::from_json(value));
    }

    /// Declares what `variables.name` stands for: evaluated when it is first read.
    pub fn compose(&mut self, name: &'e str, expression: Result<&'e Expression, &'e str>) {
        self.composed.insert(name, expression);
    }

    /// Binds `authorizer` and `authorizer.requestResource`; none takes them away.
    pub fn authorize(&mut self, authorizer: Option<&Authorizer>) {
        for (name, value) in [
            ("authorizer", authorizer.map(Authorizer::root)),
            ("authorizer.requestResource", authorizer.map(Authorizer::request_resource)),
        ] {
            match value {
                Some(value) => self.bound.insert(name, value),
                None => self.bound.remove(name),
            };
        }
    }

    /// Begins with the next expressions: composed variables are evaluated again when they are read.
    pub fn restart(&mut self, budget: u64) {
        self.read.borrow_mut().clear();
        self.left = budget;
    }

    /// What may still be spent.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The expression's value as JSON: times and durations as text.
    ///
    /// # Errors
    /// Where evaluation fails, or costs too much.
    pub fn evaluate(&mut self, expression: &Expression) -> Result<Json, EvaluationError> {
        let (value, spent) = expression.program.eval(&*self, PER_CALL);
        let spent = spent.saturating_add(self.unpaid.take());
        let left = self.left.checked_sub(spent);
        self.left = left.unwrap_or_default();
        left.ok_or(EvaluationError::OutOfBudget)?;
        let value = value.map_err(|error| EvaluationError::Failed(error.to_string()))?;
        let unsupported = || EvaluationError::Failed(format!("unsupported type {}", value.type_name()));
        value.to_json().ok_or_else(unsupported)
    }
}

impl Variables for Evaluator<'_> {
    fn get(&self, name: &str) -> Option<Value> {
        self.bound.get(name).cloned()
    }

    fn lazy(&self, variable: &str, field: &str) -> Option<Evaluated> {
        let (name, expression) = self.composed.get_key_value(field).filter(|_| variable == "variables")?;
        if let Some(read) = self.read.borrow().get(name) {
            return Some(read.clone());
        }
        // One that names itself has no value while it is made.
        let none = Err(Error::Evaluation(format!("no such key: {name}")));
        self.read.borrow_mut().insert(name, none);
        let failed = |what: &str, why: &str| {
            Err(Error::Evaluation(format!("composited variable {name:?} fails to {what}: {why}")))
        };
        let value = match expression {
            Err(why) => failed("compile", why),
            Ok(expression) => {
                let (value, spent) = expression.program.eval(self, PER_CALL);
                self.unpaid.set(self.unpaid.get().saturating_add(spent));
                value.or_else(|error| failed("evaluate", &error.to_string()))
            }
        };
        self.read.borrow_mut().insert(name, value.clone());
        Some(value)
    }
}
