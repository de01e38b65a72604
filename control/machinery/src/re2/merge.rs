//! Alternatives that are sets of characters become one set.

use super::node::{Flags, Node, Op};
use super::set;
use regex_syntax::hir::ClassUnicode;
use std::sync::Arc;

/// How complex a set of characters is.
pub(super) fn rank(op: &Op) -> u8 {
    match op {
        Op::Class(_) => 1,
        Op::Dot => 2,
        Op::Any => 3,
        _ => 0,
    }
}

/// The set that a part is, where it is one.
fn set_of(node: &Node) -> Option<ClassUnicode> {
    match &node.op {
        Op::Literal(runes) => match runes.as_slice() {
            [rune] if node.flags.has(Flags::FOLD) => Some(set::orbit(*rune)),
            [rune] => Some(set::range(*rune, *rune)),
            _ => None,
        },
        Op::Class(set) => Some((**set).clone()),
        Op::Dot => Some(set::negated(&set::range(0xA, 0xA))),
        _ => None,
    }
}

/// Adds a set to one that is as complex or more.
pub(super) fn merge(into: &mut Node, from: &Node) {
    if into.op == Op::Any || (into.op == from.op && into.flags == from.flags) {
        return;
    }
    if from.op == Op::Any {
        into.op = Op::Any;
        return;
    }
    let (Some(mut set), Some(more)) = (set_of(into), set_of(from)) else { return };
    set.union(&more);
    into.op = if into.op == Op::Dot {
        if set::any(&set) == Some(true) { Op::Any } else { Op::Dot }
    } else {
        Op::Class(Arc::new(set))
    };
}

/// Sets of all characters, or of all but the end of a line, are known as such.
pub(super) fn clean(node: &mut Node) {
    if let Op::Class(set) = &node.op
        && let Some(all) = set::any(set)
    {
        node.op = if all { Op::Any } else { Op::Dot };
    }
}
