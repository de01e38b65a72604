//! Reads an expression as Go does (upstream: `regexp/syntax/parse.go`, with Perl's flags).

use super::bracket;
use super::escape;
use super::fault::{Code, Error, before};
use super::group;
use super::node::{Flags, Node, Op, Place};
use super::stack::Stack;

/// What is read, and what of it is left.
struct Reader<'a> {
    rest: &'a str,
    flags: Flags,
    stack: Stack,
    whole: &'a str,
}

/// The tree of an expression.
///
/// # Errors
/// Where Go finds one, in its words.
pub(super) fn parse(text: &str) -> Result<Node, Error> {
    let mut reader = Reader { rest: text, flags: Flags::default(), stack: Stack::default(), whole: text };
    // where the repetition began that was the last thing read
    let mut repeated: Option<&str> = None;
    while let Some(c) = reader.rest.chars().next() {
        repeated = reader.step(c, repeated)?;
    }
    reader.stack.alternate(reader.flags).map_err(|code| code.of(text))?;
    reader.stack.whole().ok_or_else(|| Code::MissingParen.of(text))
}

impl<'a> Reader<'a> {
    /// A fault that is the whole expression's.
    fn whole(&self, result: Result<(), Code>) -> Result<(), Error> {
        result.map_err(|code| code.of(self.whole))
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn op(&mut self, op: Op) -> Result<(), Error> {
        let result = self.stack.op(op, self.flags);
        self.whole(result)
    }

    fn literal(&mut self, rune: u32) -> Result<(), Error> {
        let result = self.stack.literal(rune, self.flags);
        self.whole(result)
    }

    /// Reads one thing, which begins with `c`; where it is a repetition, from where on.
    fn step(&mut self, c: char, repeated: Option<&str>) -> Result<Option<&'a str>, Error> {
        let from = self.rest;
        match c {
            '(' if from.starts_with("(?") => {
                let opened = group::open(from, self.flags)?;
                if let Some(op) = opened.op {
                    self.op(op)?;
                }
                (self.flags, self.rest) = (opened.flags, opened.rest);
            }
            '\\' => self.backslash()?,
            '[' => {
                let (set, rest) = bracket::read(from, self.flags)?;
                self.rest = rest;
                let result = self.stack.class(set, self.flags);
                self.whole(result)?;
            }
            '*' | '+' | '?' => {
                self.skip(1);
                let op = match c {
                    '*' => Op::Star,
                    '+' => Op::Plus,
                    _ => Op::Quest,
                };
                return self.repeat(op, from, repeated).map(Some);
            }
            '{' => {
                if let Some((bounds, rest)) = counted(from) {
                    self.rest = rest;
                    let Some((least, most)) = bounds else {
                        return Err(Code::RepeatSize.of(before(from, rest)));
                    };
                    return self.repeat(Op::Repeat { least, most }, from, repeated).map(Some);
                }
                self.skip(1);
                self.literal(c.into())?;
            }
            _ => {
                self.skip(c.len_utf8());
                self.single(c)?;
            }
        }
        Ok(None)
    }

    fn single(&mut self, c: char) -> Result<(), Error> {
        match c {
            '(' => self.op(Op::Open { counts: true }),
            '|' => {
                let result = self.stack.bar(self.flags);
                self.whole(result)
            }
            ')' => {
                let flags = self.stack.close(self.flags).map_err(|code| code.of(self.whole))?;
                self.flags = flags;
                Ok(())
            }
            '^' if self.flags.has(Flags::LINES) => self.op(Op::At(Place::LineBegins)),
            '^' => self.op(Op::At(Place::TextBegins)),
            '$' if self.flags.has(Flags::LINES) => self.op(Op::At(Place::LineEnds)),
            '$' => self.op(Op::At(Place::TextEnds)),
            '.' if self.flags.has(Flags::DOT_ALL) => self.op(Op::Any),
            '.' => self.op(Op::Dot),
            _ => self.literal(c.into()),
        }
    }

    /// Repeats what is before; `from` begins with the operator.
    fn repeat(&mut self, op: Op, from: &'a str, repeated: Option<&str>) -> Result<&'a str, Error> {
        let mut flags = self.flags;
        if self.rest.starts_with('?') {
            self.skip(1);
            flags = flags.with(Flags::LAZY, !flags.has(Flags::LAZY));
        }
        if let Some(last) = repeated {
            return Err(Code::RepeatOp.of(before(last, self.rest)));
        }
        let blamed = before(from, self.rest);
        self.stack.repeat(op, flags).map_err(|code| match code {
            Code::MissingRepeatArgument | Code::RepeatSize => code.of(blamed),
            _ => code.of(self.whole),
        })?;
        Ok(from)
    }

    fn backslash(&mut self) -> Result<(), Error> {
        let from = self.rest;
        let place = match from.as_bytes().get(1) {
            Some(b'A') => Place::TextBegins,
            Some(b'z') => Place::TextEnds,
            Some(b'b') => Place::Word,
            Some(b'B') => Place::NotWord,
            Some(b'Q') => {
                self.skip(2);
                let (literal, rest) = self.rest.split_once(r"\E").unwrap_or((self.rest, ""));
                self.rest = rest;
                return literal.chars().try_for_each(|c| self.literal(c.into()));
            }
            _ => return self.escaped(),
        };
        self.skip(2);
        self.op(Op::At(place))
    }

    fn escaped(&mut self) -> Result<(), Error> {
        let from = self.rest;
        if let Some((set, rest)) = escape::set(from, self.flags)? {
            self.rest = rest;
            let result = self.stack.class(set, self.flags);
            return self.whole(result);
        }
        self.stack.glance();
        let (rune, rest) = escape::rune(from)?;
        self.rest = rest;
        self.literal(rune)
    }
}

type Bounds = (u32, Option<u32>);

/// `{2}`, `{2,}` and `{2,3}` and what follows: none where it is no such thing, no bounds where they are too large or the wrong way round.
fn counted(text: &str) -> Option<(Option<Bounds>, &str)> {
    const MOST: u32 = 1000;
    let (least, rest) = number(text.strip_prefix('{')?)?;
    let (most, rest) = match rest.strip_prefix(',') {
        None => (Some(least), rest),
        Some(rest) if rest.starts_with('}') => (None, rest),
        Some(rest) => number(rest).map(|(most, rest)| (Some(most), rest))?,
    };
    let rest = rest.strip_prefix('}')?;
    let fits = least <= MOST && most.is_none_or(|most| (least..=MOST).contains(&most));
    Some((fits.then_some((least, most)), rest))
}

/// A number without leading zeros; the greatest there is, where it is greater.
fn number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let leads = digits.len() > 1 && digits.starts_with('0');
    (!digits.is_empty() && !leads).then(|| (digits.parse().unwrap_or(u32::MAX), rest))
}
