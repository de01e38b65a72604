//! What an expression is made of while it is read, and the limits it keeps: the counts, and when they are looked at, are upstream's.

use super::fault::Code;
use super::node::{Node, Op};
use std::mem;

/// Parts within parts.
const MOST_HEIGHT: usize = 1000;
/// Instructions: 128 MiB of 40 bytes each.
const MOST_SIZE: u64 = (128 << 20) / 40;
/// Ends of ranges in sets of characters: 128 MiB of 4 bytes each.
const MOST_RUNES: usize = (128 << 20) / 4;
/// Copies of one part.
pub(super) const MOST_COPIES: u32 = 1000;

#[derive(Debug)]
pub(super) struct Held {
    pub(super) nodes: Vec<Node>,
    /// Parts that upstream would have in memory, those among them that it would use again, and ends of ranges.
    made: usize,
    spare: usize,
    pub(super) runes: usize,
    /// The product of all repetitions.
    repeats: u64,
    /// Whether sizes and heights are measured yet.
    sizes: bool,
    heights: bool,
}

/// What is wrong, the expression as a whole being to blame.
type Checked = Result<(), Code>;

impl Default for Held {
    fn default() -> Held {
        let nodes = Vec::new();
        Held { nodes, made: 0, spare: 0, runes: 0, repeats: 1, sizes: false, heights: false }
    }
}

impl Held {
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

    /// Whether a part keeps within the limits, as far as they are looked at.
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
}
