//! An expression as it was parsed.

use super::value::Value;
use std::sync::Arc;

/// A node, and where in the text it begins.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    /// Offset into the text, in characters.
    pub at: usize,
    pub kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Literal(Value),
    Ident(String),
    /// `operand.field`; `optional` for `operand.?field`.
    Select {
        operand: Box<Expr>,
        field: String,
        /// Absent is an empty optional.
        optional: bool,
    },
    /// `has(operand.field)`.
    Has {
        operand: Box<Expr>,
        field: String,
    },
    /// `operand[index]`; `optional` for `operand[?index]`.
    Index {
        operand: Box<Expr>,
        index: Box<Expr>,
        /// Absent is an empty optional.
        optional: bool,
    },
    /// `function(args)` or `target.function(args)`; operators by their names, as `_+_`.
    Call {
        /// What it is called on.
        target: Option<Box<Expr>>,
        function: String,
        args: Vec<Expr>,
    },
    /// `[a, b]`; true for `[?a]`.
    List(Vec<(Expr, bool)>),
    /// `{a: b}`; true for `{?a: b}`.
    Map(Vec<(Expr, Expr, bool)>),
    /// `Name{field: value}`.
    Struct {
        /// `Object.spec`.
        name: Arc<str>,
        /// In the order in which they are written.
        fields: Vec<Field>,
    },
    /// A macro over a list or map.
    Fold(Box<Fold>),
    /// `optMap` and `optFlatMap`: the variable bound to an optional's value.
    Bind {
        operand: Box<Expr>,
        variable: String,
        /// What becomes of it.
        body: Box<Expr>,
        /// The body is an optional itself.
        flat: bool,
    },
    /// `cel.bind`: a name for a value.
    Let {
        variable: String,
        /// What the name stands for.
        value: Box<Expr>,
        /// Where it stands for it.
        body: Box<Expr>,
    },
}

/// `field: value` of a literal; `?field: value`.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    /// Where the colon is, in characters.
    pub at: usize,
    pub name: String,
    pub value: Expr,
    /// An empty optional leaves it out.
    pub optional: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Macro {
    /// Does it hold for each?
    All,
    /// Does it hold for any?
    Exists,
    /// Does it hold for exactly one?
    ExistsOne,
    Map,
    /// Those it holds for.
    Filter,
    /// Two variables: a list of what each becomes.
    TransformList,
    /// Two variables: a map of what each becomes.
    TransformMap,
    /// Two variables: a map of the maps that each becomes.
    TransformMapEntry,
    /// Sorted by what each becomes.
    SortBy,
}

/// A macro over a list or map.
#[derive(Clone, Debug)]
pub(crate) struct Fold {
    pub kind: Macro,
    pub range: Expr,
    /// The item's (or key's, or index's) name.
    pub variable: String,
    /// The value's name, where there are two.
    pub second: Option<String>,
    /// Only where this holds.
    pub filter: Option<Expr>,
    /// What is asked, or made.
    pub body: Expr,
}
