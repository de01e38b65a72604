//! Names with dots.

use super::ast::{Expr, Kind};
use super::parts::parts_mut;
use super::types::Type;

/// `a.b` as a name.
pub(super) fn dotted(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.clone()),
        Kind::Select { operand, field, optional: false } => Some(format!("{}.{field}", dotted(operand)?)),
        _ => None,
    }
}

/// Makes one name of `a.b` where a variable is called so.
pub(super) fn qualify(expr: &mut Expr, variables: &[(&str, Type)]) {
    if !variables.iter().any(|(name, _)| name.contains('.')) {
        return;
    }
    if let Kind::Select { .. } = &expr.kind
        && let Some(name) = dotted(expr).filter(|path| variables.iter().any(|(name, _)| name == path))
    {
        expr.kind = Kind::Ident(name);
    }
    parts_mut(expr).into_iter().for_each(|part| qualify(part, variables));
}
