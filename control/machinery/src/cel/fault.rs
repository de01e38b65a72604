//! Why an evaluation has no value.

use super::value::Value;

/// Why an evaluation has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The expression's own fault, in cel-go's words: `no such key: a`.
    #[error("{0}")]
    Evaluation(String),
    /// It costs more than it may.
    #[error("operation cancelled: actual cost limit exceeded")]
    Cost,
}

/// A value, or why there is none.
pub(crate) type Evaluated = Result<Value, Error>;

pub(super) fn fail<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::Evaluation(text.into()))
}

pub(super) fn no_overload<T>() -> Result<T, Error> {
    fail("no such overload")
}
