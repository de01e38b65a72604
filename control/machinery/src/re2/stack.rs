//! The stack an expression is built on.

use super::factor;
use super::fault::Code;
use super::held::{Held, MOST_COPIES};
use super::merge::{clean, merge, rank};
use super::node::{Flags, Node, Op, Rune};
use super::set;
use regex_syntax::hir::ClassUnicode;
use std::mem;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Stack(Held);

/// What is wrong, the expression as a whole being to blame where nothing else is said.
type Checked = Result<(), Code>;

impl Stack {
    /// Counts a part that upstream makes before it looks whether it needs one, and then uses for the next.
    pub(super) fn glance(&mut self) {
        self.0.make();
        self.0.spare();
    }

    /// Sets of one character, or of one that differs by case only, become literals.
    pub(super) fn push(&mut self, mut node: Node, flags: Flags) -> Checked {
        self.0.runes += match &node.op {
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
        self.0.check(&mut node)?;
        self.0.nodes.push(node);
        Ok(())
    }

    pub(super) fn op(&mut self, op: Op, flags: Flags) -> Checked {
        self.0.make();
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
        let [.., below, top] = self.0.nodes.as_mut_slice() else { return false };
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
        self.0.nodes.pop();
        self.0.spare();
        false
    }

    /// Repeats the topmost part.
    ///
    /// # Errors
    /// Where there is none, and for too many copies, the operator being to blame; for a limit.
    pub(super) fn repeat(&mut self, op: Op, flags: Flags) -> Checked {
        let Some(part) = self.0.nodes.pop_if(|node| !node.is_pseudo()) else {
            return Err(Code::MissingRepeatArgument);
        };
        self.0.make();
        let many = matches!(op, Op::Repeat { least, most } if least.max(most.unwrap_or(0)) >= 2);
        let mut node = Node::new(op, flags, vec![part]);
        self.0.check(&mut node)?;
        if many && node.copies() > MOST_COPIES {
            return Err(Code::RepeatSize);
        }
        self.0.nodes.push(node);
        Ok(())
    }

    /// The parts above the topmost open group or bar.
    fn above(&mut self) -> Vec<Node> {
        let at = self.0.nodes.iter().rposition(Node::is_pseudo).map_or(0, |at| at + 1);
        self.0.nodes.split_off(at)
    }

    pub(super) fn concat(&mut self, flags: Flags) -> Checked {
        self.join(None);
        let parts = self.above();
        let node = if parts.is_empty() {
            self.0.make();
            Node::new(Op::Empty, Flags::default(), parts)
        } else {
            factor::collapse(&mut self.0, parts, Op::Concat)?
        };
        self.push(node, flags)
    }

    /// Ends the alternatives of a group or of the whole.
    pub(super) fn alternate(&mut self, flags: Flags) -> Checked {
        self.concat(flags)?;
        if self.swap_bar() {
            self.0.nodes.pop();
        }
        let mut parts = self.above();
        if let Some(last) = parts.last_mut() {
            clean(last);
        }
        let node = factor::collapse(&mut self.0, parts, Op::Alternate)?;
        self.push(node, flags)
    }

    /// Ends an alternative; another follows.
    pub(super) fn bar(&mut self, flags: Flags) -> Checked {
        self.concat(flags)?;
        if self.swap_bar() { Ok(()) } else { self.op(Op::Bar, flags) }
    }

    /// Puts the topmost alternative below the bar it is above of, merged with the one before where both are sets. Says whether there
    /// was a bar.
    fn swap_bar(&mut self) -> bool {
        if let [.., third, second, first] = self.0.nodes.as_mut_slice()
            && second.op == Op::Bar
        {
            if first.is_char() && third.is_char() {
                if rank(&first.op) > rank(&third.op) {
                    mem::swap(first, third);
                }
                merge(third, first);
                self.0.nodes.pop();
                self.0.spare();
                return true;
            }
            clean(third);
        }
        match self.0.nodes.as_mut_slice() {
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
        let inner = self.0.nodes.pop().ok_or(Code::UnexpectedParen)?;
        let open = self.0.nodes.pop().ok_or(Code::UnexpectedParen)?;
        let Op::Open { counts } = open.op else { return Err(Code::UnexpectedParen) };
        let flags = open.flags;
        let node = if counts { Node::new(Op::Capture, flags, vec![inner]) } else { inner };
        self.push(node, flags)?;
        Ok(flags)
    }

    /// The whole expression; none where a group is open.
    pub(super) fn whole(&mut self) -> Option<Node> {
        let whole = self.0.nodes.pop();
        whole.filter(|_| self.0.nodes.is_empty())
    }
}
