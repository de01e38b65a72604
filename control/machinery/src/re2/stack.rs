//! The stack an expression is built on, and the limits it keeps: the counts, and when they are looked at, are upstream's.

use super::factor;
use super::fault::Code;
use super::node::{Flags, Node, Op, Rune};
use super::set;
use regex_syntax::hir::ClassUnicode;
use std::mem;
use std::sync::Arc;

/// Parts within parts.
const MOST_HEIGHT: usize = 1000;
/// Instructions: 128 MiB of 40 bytes each.
const MOST_SIZE: u64 = (128 << 20) / 40;
/// Ends of ranges in sets of characters: 128 MiB of 4 bytes each.
const MOST_RUNES: usize = (128 << 20) / 4;
/// Copies of one part.
const MOST_COPIES: u32 = 1000;

#[derive(Debug)]
pub(super) struct Stack {
    nodes: Vec<Node>,
    /// Parts that upstream would have in memory, those among them that it would use again, and ends of ranges.
    made: usize,
    spare: usize,
    runes: usize,
    /// The product of all repetitions.
    repeats: u64,
    /// Whether sizes and heights are measured yet.
    sizes: bool,
    heights: bool,
}

/// What is wrong, the expression as a whole being to blame.
type Checked = Result<(), Code>;

impl Stack {
    pub(super) fn new() -> Stack {
        let nodes = Vec::new();
        Stack { nodes, made: 0, spare: 0, runes: 0, repeats: 1, sizes: false, heights: false }
    }

    /// Counts a part that is made.
    pub(super) fn make(&mut self) {
        if self.spare > 0 {
            self.spare -= 1;
        } else {
            self.made += 1;
        }
    }

    /// Counts a part that is no more.
    pub(super) fn spare(&mut self) {
        self.spare += 1;
    }

    pub(super) fn check(&mut self, node: &mut Node) -> Checked {
        if self.runes > MOST_RUNES {
            return Err(Code::Large);
        }
        self.check_size(node)?;
        self.check_height(node)
    }

    fn check_size(&mut self, node: &mut Node) -> Checked {
        if !self.sizes {
            if let Op::Repeat { least, most } = node.op {
                let count = u64::from(most.unwrap_or(least).max(1));
                self.repeats =
                    if count > MOST_SIZE / self.repeats { MOST_SIZE } else { self.repeats * count };
            }
            if (self.made as u64) < MOST_SIZE / self.repeats {
                return Ok(());
            }
            self.sizes = true;
            if self.nodes.iter_mut().any(|node| node.measure() > MOST_SIZE) {
                return Err(Code::Large);
            }
        }
        if node.measure() > MOST_SIZE { Err(Code::Large) } else { Ok(()) }
    }

    fn check_height(&mut self, node: &mut Node) -> Checked {
        if self.made < MOST_HEIGHT {
            return Ok(());
        }
        if !mem::replace(&mut self.heights, true)
            && self.nodes.iter_mut().any(|node| node.measure_height() > MOST_HEIGHT)
        {
            return Err(Code::NestingDepth);
        }
        if node.measure_height() > MOST_HEIGHT { Err(Code::NestingDepth) } else { Ok(()) }
    }

    /// Sets of one character, or of one that differs by case only, become literals.
    pub(super) fn push(&mut self, mut node: Node, flags: Flags) -> Checked {
        self.runes += match &node.op {
            Op::Literal(runes) => runes.len(),
            Op::Class(set) => 2 * set.ranges().len(),
            _ => 0,
        };
        let single = if let Op::Class(set) = &node.op { set::single(set) } else { None };
        if let Some((rune, fold)) = single {
            let flags = flags.with(Flags::FOLD, fold);
            if self.join(Some((rune, flags))) {
                return Ok(());
            }
            node.op = Op::Literal(vec![rune]);
            node.flags = flags;
        } else {
            self.join(None);
        }
        self.check(&mut node)?;
        self.nodes.push(node);
        Ok(())
    }

    pub(super) fn op(&mut self, op: Op, flags: Flags) -> Checked {
        self.make();
        self.push(Node::new(op, flags, Vec::new()), flags)
    }

    pub(super) fn literal(&mut self, rune: Rune, flags: Flags) -> Checked {
        let rune = if flags.has(Flags::FOLD) { set::least(rune) } else { rune };
        self.op(Op::Literal(vec![rune]), flags)
    }

    pub(super) fn class(&mut self, set: ClassUnicode, flags: Flags) -> Checked {
        self.op(Op::Class(Arc::new(set)), flags)
    }

    /// Makes the two topmost literals one, to which no operator can be applied any more. `next` takes the place of the upper one; says
    /// whether it did.
    fn join(&mut self, next: Option<(Rune, Flags)>) -> bool {
        let [.., below, top] = self.nodes.as_mut_slice() else { return false };
        if below.flags.has(Flags::FOLD) != top.flags.has(Flags::FOLD) {
            return false;
        }
        let (Op::Literal(runes), Op::Literal(more)) = (&mut below.op, &mut top.op) else { return false };
        runes.append(more);
        if let Some((rune, flags)) = next {
            more.push(rune);
            top.flags = flags;
            return true;
        }
        self.nodes.pop();
        self.spare();
        false
    }

    /// Repeats the topmost part.
    ///
    /// # Errors
    /// Where there is none, and for too many copies, the operator being to blame; for a limit.
    pub(super) fn repeat(&mut self, op: Op, flags: Flags) -> Checked {
        let Some(part) = self.nodes.pop_if(|node| !node.is_pseudo()) else {
            return Err(Code::MissingRepeatArgument);
        };
        self.make();
        let many = matches!(op, Op::Repeat { least, most } if least.max(most.unwrap_or(0)) >= 2);
        let mut node = Node::new(op, flags, vec![part]);
        self.check(&mut node)?;
        if many && node.copies() > MOST_COPIES {
            return Err(Code::RepeatSize);
        }
        self.nodes.push(node);
        Ok(())
    }

    /// The parts above the topmost open group or bar.
    fn above(&mut self) -> Vec<Node> {
        let at = self.nodes.iter().rposition(Node::is_pseudo).map_or(0, |at| at + 1);
        self.nodes.split_off(at)
    }

    pub(super) fn concat(&mut self, flags: Flags) -> Checked {
        self.join(None);
        let parts = self.above();
        let node = if parts.is_empty() {
            self.make();
            Node::new(Op::Empty, Flags::default(), parts)
        } else {
            self.collapse(parts, Op::Concat)?
        };
        self.push(node, flags)
    }

    /// Ends the alternatives of a group or of the whole.
    pub(super) fn alternate(&mut self, flags: Flags) -> Checked {
        self.concat(flags)?;
        if self.swap_bar() {
            self.nodes.pop();
        }
        let mut parts = self.above();
        if let Some(last) = parts.last_mut() {
            clean(last);
        }
        let node = self.collapse(parts, Op::Alternate)?;
        self.push(node, flags)
    }

    /// Ends an alternative; another follows.
    pub(super) fn bar(&mut self, flags: Flags) -> Checked {
        self.concat(flags)?;
        if self.swap_bar() { Ok(()) } else { self.op(Op::Bar, flags) }
    }

    /// A concatenation or alternation, never of others of its kind.
    pub(super) fn collapse(&mut self, mut parts: Vec<Node>, op: Op) -> Result<Node, Code> {
        if parts.len() == 1
            && let Some(only) = parts.pop()
        {
            return Ok(only);
        }
        self.make();
        let mut flat = Vec::with_capacity(parts.len());
        for part in parts {
            if part.op == op {
                flat.extend(part.parts);
                self.spare();
            } else {
                flat.push(part);
            }
        }
        if op == Op::Alternate {
            flat = factor::factored(self, flat)?;
            if flat.len() == 1
                && let Some(only) = flat.pop()
            {
                self.spare();
                return Ok(only);
            }
        }
        Ok(Node::new(op, Flags::default(), flat))
    }

    /// Puts the topmost alternative below the bar it is above of, merged with the one before where both are sets. Says whether there
    /// was a bar.
    fn swap_bar(&mut self) -> bool {
        if let [.., third, second, first] = self.nodes.as_mut_slice()
            && second.op == Op::Bar
        {
            if first.is_char() && third.is_char() {
                if rank(&first.op) > rank(&third.op) {
                    mem::swap(first, third);
                }
                merge(third, first);
                self.nodes.pop();
                self.spare();
                return true;
            }
            clean(third);
        }
        match self.nodes.as_mut_slice() {
            [.., second, first] if second.op == Op::Bar => {
                mem::swap(first, second);
                true
            }
            _ => false,
        }
    }

    /// Closes a group; the flags that were set when it was opened.
    ///
    /// # Errors
    /// Where none is open, and for a limit.
    pub(super) fn close(&mut self, flags: Flags) -> Result<Flags, Code> {
        self.alternate(flags)?;
        let inner = self.nodes.pop().ok_or(Code::UnexpectedParen)?;
        let open = self.nodes.pop().ok_or(Code::UnexpectedParen)?;
        let Op::Open { counts } = open.op else { return Err(Code::UnexpectedParen) };
        let flags = open.flags;
        let node = if counts { Node::new(Op::Capture, flags, vec![inner]) } else { inner };
        self.push(node, flags)?;
        Ok(flags)
    }

    /// The whole expression; none where a group is open.
    pub(super) fn whole(&mut self) -> Option<Node> {
        let whole = self.nodes.pop();
        whole.filter(|_| self.nodes.is_empty())
    }
}

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
