//! Runs the few expressions that are too large for the `regex` crate, whose sets of characters are automata of bytes and are copied with
//! each repetition: here they are shared, as upstream. In time linear in the text, as Pike's virtual machine does it.

use super::node::{Flags, Node, Op, Place, Rune};
use super::set;
use regex_syntax::hir::ClassUnicode;
use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

/// More than upstream reckons with (3.3 million), which for long literals that are repeated it does not count.
const MOST: usize = 4 << 20;

#[derive(Debug)]
enum Step {
    Char(Rune),
    Set(Arc<ClassUnicode>),
    Dot,
    Any,
    At(Place),
    /// Goes on at both, the first being preferred.
    Split(usize, usize),
    Jump(usize),
    Match,
}

#[derive(Debug)]
pub(super) struct Machine {
    steps: Vec<Step>,
}

/// Steps, as they are made.
#[derive(Default)]
struct Program {
    steps: Vec<Step>,
    orbits: HashMap<Rune, Arc<ClassUnicode>>,
}

struct TooLarge;

impl Program {
    fn push(&mut self, step: Step) -> Result<usize, TooLarge> {
        if self.steps.len() >= MOST {
            return Err(TooLarge);
        }
        self.steps.push(step);
        Ok(self.steps.len() - 1)
    }

    fn orbit(&mut self, rune: Rune) -> Arc<ClassUnicode> {
        Arc::clone(self.orbits.entry(rune).or_insert_with(|| Arc::new(set::orbit(rune))))
    }

    /// What is made next is reached from the split at `at`, which prefers the way on but where it is lazy.
    fn land(&mut self, at: usize, lazy: bool) {
        let end = self.steps.len();
        self.steps[at] = if lazy { Step::Split(end, at + 1) } else { Step::Split(at + 1, end) };
    }

    /// Whether all of them can match nothing.
    fn parts(&mut self, node: &Node) -> Result<bool, TooLarge> {
        node.parts.iter().try_fold(true, |empty, part| Ok(self.node(part)? && empty))
    }

    /// Whether it can match nothing.
    fn node(&mut self, node: &Node) -> Result<bool, TooLarge> {
        let lazy = node.flags.has(Flags::LAZY);
        let step = match &node.op {
            Op::Class(set) => Step::Set(Arc::clone(set)),
            Op::Dot => Step::Dot,
            Op::Any => Step::Any,
            Op::At(place) => Step::At(*place),
            Op::Empty => return Ok(true),
            Op::Literal(runes) => return self.literal(runes, node.flags.has(Flags::FOLD)),
            Op::Plus => return self.plus(node, lazy),
            Op::Star => return self.star(node, lazy),
            Op::Quest => return self.optional(node, 1, lazy),
            Op::Repeat { least, most } => return self.repeat(node, *least, *most, lazy),
            Op::Alternate => return self.alternate(node),
            Op::Capture | Op::Concat | Op::Open { .. } | Op::Bar => return self.parts(node),
        };
        self.push(step)?;
        Ok(matches!(node.op, Op::At(_)))
    }

    fn literal(&mut self, runes: &[Rune], fold: bool) -> Result<bool, TooLarge> {
        for rune in runes {
            let step = if fold { Step::Set(self.orbit(*rune)) } else { Step::Char(*rune) };
            self.push(step)?;
        }
        Ok(runes.is_empty())
    }

    fn repeat(&mut self, node: &Node, least: u32, most: Option<u32>, lazy: bool) -> Result<bool, TooLarge> {
        let mut empty = true;
        for _ in 0..least.saturating_sub(u32::from(most.is_none())) {
            empty = self.parts(node)?;
        }
        match most {
            None if least == 0 => self.star(node, lazy),
            None => self.plus(node, lazy),
            Some(most) => self.optional(node, most.saturating_sub(least), lazy).map(|_| empty),
        }
    }

    fn plus(&mut self, node: &Node, lazy: bool) -> Result<bool, TooLarge> {
        let start = self.steps.len();
        let empty = self.parts(node)?;
        let next = self.steps.len() + 1;
        self.push(if lazy { Step::Split(next, start) } else { Step::Split(start, next) })?;
        Ok(empty)
    }

    /// As upstream: of what can match nothing, once or more often, or not at all; else the preferences would be other ones.
    fn star(&mut self, node: &Node, lazy: bool) -> Result<bool, TooLarge> {
        let at = self.push(Step::Match)?;
        if self.parts(node)? {
            let next = self.steps.len() + 1;
            self.push(if lazy { Step::Split(next, at + 1) } else { Step::Split(at + 1, next) })?;
        } else {
            self.push(Step::Jump(at))?;
        }
        self.land(at, lazy);
        Ok(true)
    }

    /// Up to so many times, each only after the one before.
    fn optional(&mut self, node: &Node, times: u32, lazy: bool) -> Result<bool, TooLarge> {
        let mut splits = Vec::new();
        for _ in 0..times {
            splits.push(self.push(Step::Match)?);
            self.parts(node)?;
        }
        for at in splits {
            self.land(at, lazy);
        }
        Ok(true)
    }

    fn alternate(&mut self, node: &Node) -> Result<bool, TooLarge> {
        let mut ends = Vec::new();
        let mut empty = false;
        for (at, part) in node.parts.iter().enumerate() {
            if at + 1 == node.parts.len() {
                empty |= self.node(part)?;
                break;
            }
            let split = self.push(Step::Match)?;
            empty |= self.node(part)?;
            ends.push(self.push(Step::Match)?);
            self.land(split, false);
        }
        let end = self.steps.len();
        for at in ends {
            self.steps[at] = Step::Jump(end);
        }
        Ok(empty)
    }
}

/// Threads in order of preference: where they are, and where their match began.
struct Threads {
    list: Vec<(usize, usize)>,
    seen: Vec<u64>,
    now: u64,
}

impl Threads {
    fn new(steps: usize) -> Threads {
        Threads { list: Vec::new(), seen: vec![0; steps], now: 1 }
    }

    fn clear(&mut self) {
        self.list.clear();
        self.now += 1;
    }
}

/// Between which characters the machine is.
#[derive(Clone, Copy)]
struct Between {
    before: Option<char>,
    after: Option<char>,
}

impl Between {
    fn at(text: &str, at: usize) -> Between {
        let (before, after) = text.split_at(at);
        Between { before: before.chars().next_back(), after: after.chars().next() }
    }

    fn holds(self, place: Place) -> bool {
        let word = |c: Option<char>| c.is_some_and(|c| c == '_' || c.is_ascii_alphanumeric());
        match place {
            Place::TextBegins => self.before.is_none(),
            Place::TextEnds => self.after.is_none(),
            Place::LineBegins => self.before.is_none_or(|c| c == '\n'),
            Place::LineEnds => self.after.is_none_or(|c| c == '\n'),
            Place::Word => word(self.before) != word(self.after),
            Place::NotWord => word(self.before) == word(self.after),
        }
    }
}

impl Machine {
    /// None where it would be too large.
    pub(super) fn new(node: &Node) -> Option<Machine> {
        let mut program = Program::default();
        program.node(node).and_then(|_| program.push(Step::Match)).ok()?;
        Some(Machine { steps: program.steps })
    }

    /// Adds what can be reached from a step without a character.
    fn add(
        &self,
        threads: &mut Threads,
        step: usize,
        start: usize,
        between: Between,
        stack: &mut Vec<usize>,
    ) {
        stack.push(step);
        while let Some(step) = stack.pop() {
            if mem::replace(&mut threads.seen[step], threads.now) == threads.now {
                continue;
            }
            match &self.steps[step] {
                Step::Jump(to) => stack.push(*to),
                Step::Split(first, second) => stack.extend([*second, *first]),
                Step::At(place) => stack.extend(between.holds(*place).then_some(step + 1)),
                _ => threads.list.push((step, start)),
            }
        }
    }

    fn takes(&self, step: usize, c: char) -> bool {
        match &self.steps[step] {
            Step::Char(rune) => *rune == u32::from(c),
            Step::Set(set) => set::contains(set, c),
            Step::Dot => c != '\n',
            Step::Any => true,
            _ => false,
        }
    }

    /// The first match that begins at `from` or later, preferred as Perl would.
    pub(super) fn find_at(&self, text: &str, from: usize) -> Option<(usize, usize)> {
        let (mut now, mut next) = (Threads::new(self.steps.len()), Threads::new(self.steps.len()));
        let mut stack = Vec::new();
        let mut found = None;
        let mut at = from;
        loop {
            let between = Between::at(text, at);
            if found.is_none() {
                self.add(&mut now, 0, at, between, &mut stack);
            }
            let end = between.after.map_or(at, |c| at + c.len_utf8());
            next.clear();
            for (step, start) in &now.list {
                if matches!(self.steps[*step], Step::Match) {
                    found = Some((*start, at));
                    break;
                }
                if between.after.is_some_and(|c| self.takes(*step, c)) {
                    self.add(&mut next, step + 1, *start, Between::at(text, end), &mut stack);
                }
            }
            if between.after.is_none() || (found.is_some() && next.list.is_empty()) {
                return found;
            }
            mem::swap(&mut now, &mut next);
            at = end;
        }
    }
}
