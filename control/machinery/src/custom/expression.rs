//! A rule's expression, parsed when it is first asked for: most rules of a cluster's definitions are never evaluated.

use crate::cel::{Error, Program, Value, Variables};
use std::sync::OnceLock;

/// The text of an expression, and what it says.
#[derive(Clone, Debug)]
pub struct Expression {
    text: Box<str>,
    /// None where the text is no expression.
    program: OnceLock<Option<Program>>,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Expression {
    /// None where there is no text.
    pub(super) fn of(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Expression { text: text.into(), program: OnceLock::new() })
    }

    fn program(&self) -> Option<&Program> {
        self.program.get_or_init(|| Program::parse(&self.text).ok()).as_ref()
    }

    /// Whether the expression reads a variable.
    pub(super) fn mentions(&self, variable: &str) -> bool {
        self.program().is_some_and(|program| program.mentions(variable))
    }

    /// What it comes to, and its cost. What is no expression (it was accepted by another release) is true, and costs nothing.
    pub(super) fn eval(&self, variables: &dyn Variables, limit: u64) -> (Result<Value, Error>, u64) {
        match self.program() {
            Some(program) => program.eval(variables, limit),
            None => (Ok(Value::Bool(true)), 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_must_not_be_parsed_before_it_is_asked() {
        let expression = Expression::of(" 1 + 1 == 2 ").unwrap();
        assert!(expression.program.get().is_none() && Expression::of(" ").is_none());
        let nothing = |_: &str| None;
        assert!(matches!(expression.eval(&nothing, 100).0, Ok(Value::Bool(true))));
        assert!(expression.program.get().is_some());
    }

    #[test]
    fn what_is_no_expression_must_not_refuse_anything() {
        let expression = Expression::of("1 +").unwrap();
        let nothing = |_: &str| None;
        assert!(matches!(expression.eval(&nothing, 100), (Ok(Value::Bool(true)), 0)));
        assert!(!expression.mentions("self"));
    }
}
