//! An expression as a tree, and how large and high it is in Go's measure.

use regex_syntax::hir::ClassUnicode;
use std::sync::Arc;

/// A character's number, surrogates among them: they may be written, and match nothing.
pub(super) type Rune = u32;

/// What `(?ismU)` set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags(u8);

impl Flags {
    pub(super) const FOLD: Flags = Flags(1);
    pub(super) const LINES: Flags = Flags(2);
    pub(super) const DOT_ALL: Flags = Flags(4);
    pub(super) const LAZY: Flags = Flags(8);

    pub(super) fn has(self, flag: Flags) -> bool {
        self.0 & flag.0 != 0
    }

    pub(super) fn with(self, flag: Flags, on: bool) -> Flags {
        if on { Flags(self.0 | flag.0) } else { Flags(self.0 & !flag.0) }
    }
}

/// Places between characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    TextBegins,
    TextEnds,
    LineBegins,
    LineEnds,
    Word,
    NotWord,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Empty,
    Literal(Vec<Rune>),
    Class(Arc<ClassUnicode>),
    /// All but the end of a line.
    Dot,
    Any,
    At(Place),
    /// A group that counts, of one part.
    Capture,
    Star,
    Plus,
    Quest,
    /// No `most`: without end.
    Repeat {
        least: u32,
        most: Option<u32>,
    },
    Concat,
    Alternate,
    /// An open group, on the parser's stack only.
    Open {
        counts: bool,
    },
    /// What alternatives are above of, on the parser's stack only.
    Bar,
}

/// A part of an expression.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) op: Op,
    pub(super) flags: Flags,
    pub(super) parts: Vec<Node>,
    /// Measured before, and not again when a literal grew: as upstream, whose limits follow from it.
    size: Option<u64>,
    height: Option<usize>,
    /// The most copies of one part that repetitions within make.
    copies: u32,
}

impl Node {
    pub(super) fn new(op: Op, flags: Flags, parts: Vec<Node>) -> Node {
        let within = parts.iter().map(|part| part.copies).max().unwrap_or(1);
        let copies = match op {
            Op::Repeat { most: Some(0), .. } => 1,
            Op::Repeat { least, most } => within.saturating_mul(most.unwrap_or(least).max(1)),
            _ => within,
        };
        Node { op, flags, parts, size: None, height: None, copies }
    }

    pub(super) fn is_pseudo(&self) -> bool {
        matches!(self.op, Op::Open { .. } | Op::Bar)
    }

    /// Whether it is a set of characters or one of them.
    pub(super) fn is_char(&self) -> bool {
        match &self.op {
            Op::Literal(runes) => runes.len() == 1,
            Op::Class(_) | Op::Dot | Op::Any => true,
            _ => false,
        }
    }

    pub(super) fn copies(&self) -> u32 {
        self.copies
    }

    /// How many instructions it takes upstream, about.
    pub(super) fn measure(&mut self) -> u64 {
        let parts: u64 = self.parts.iter_mut().map(|part| part.size.unwrap_or_else(|| part.measure())).sum();
        let size = match &self.op {
            Op::Literal(runes) => runes.len() as u64,
            Op::Capture | Op::Star | Op::Repeat { least: 0, most: None } => 2 + parts,
            Op::Plus | Op::Quest => 1 + parts,
            Op::Concat => parts,
            Op::Alternate => parts + (self.parts.len() as u64).saturating_sub(1),
            Op::Repeat { least, most: None } => 1 + u64::from(*least) * parts,
            Op::Repeat { least, most: Some(most) } => {
                u64::from(*most) * parts + u64::from(most.saturating_sub(*least))
            }
            _ => 0,
        };
        *self.size.insert(size.max(1))
    }

    pub(super) fn measure_height(&mut self) -> usize {
        let parts =
            self.parts.iter_mut().map(|part| part.height.unwrap_or_else(|| part.measure_height())).max();
        *self.height.insert(1 + parts.unwrap_or(0))
    }
}
