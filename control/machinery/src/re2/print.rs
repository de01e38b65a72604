//! An expression in the syntax of the `regex` crate, with nothing left to its flags.

use super::node::{Flags, Node, Op, Place, Rune};
use super::set;
use regex_syntax::hir::ClassUnicode;
use std::fmt::{Error, Write};

/// What is longer is not written.
const MOST: usize = 256 << 10;

/// The expression; none where it would be too long.
pub(super) fn print(node: &Node) -> Option<String> {
    let mut out = String::new();
    write(&mut out, node).ok().map(|()| out)
}

fn write(out: &mut String, node: &Node) -> Result<(), Error> {
    if out.len() > MOST {
        return Err(Error);
    }
    match &node.op {
        Op::Empty => out.push_str("(?:)"),
        Op::Literal(runes) => {
            let fold = node.flags.has(Flags::FOLD);
            runes.iter().try_for_each(|rune| character(out, *rune, fold))?;
        }
        Op::Class(class) => of_set(out, class)?,
        Op::Dot => out.push('.'),
        Op::Any => out.push_str("(?s:.)"),
        Op::At(place) => out.push_str(match place {
            Place::TextBegins => r"\A",
            Place::TextEnds => r"\z",
            Place::LineBegins => "(?m:^)",
            Place::LineEnds => "(?m:$)",
            Place::Word => r"(?-u:\b)",
            Place::NotWord => r"(?-u:\B)",
        }),
        Op::Star => repeated(out, node, "*")?,
        Op::Plus => repeated(out, node, "+")?,
        Op::Quest => repeated(out, node, "?")?,
        Op::Repeat { least, most: Some(most) } => repeated(out, node, &format!("{{{least},{most}}}"))?,
        Op::Repeat { least, most: None } => repeated(out, node, &format!("{{{least},}}"))?,
        Op::Alternate => {
            out.push_str("(?:");
            for (at, part) in node.parts.iter().enumerate() {
                if at > 0 {
                    out.push('|');
                }
                write(out, part)?;
            }
            out.push(')');
        }
        // none counts groups
        Op::Capture | Op::Concat | Op::Open { .. } | Op::Bar => {
            node.parts.iter().try_for_each(|part| write(out, part))?;
        }
    }
    Ok(())
}

fn repeated(out: &mut String, node: &Node, operator: &str) -> Result<(), Error> {
    out.push_str("(?:");
    node.parts.iter().try_for_each(|part| write(out, part))?;
    out.push(')');
    out.push_str(operator);
    if node.flags.has(Flags::LAZY) {
        out.push('?');
    }
    Ok(())
}

fn character(out: &mut String, rune: Rune, fold: bool) -> Result<(), Error> {
    if fold {
        return of_set(out, &set::orbit(rune));
    }
    match char::from_u32(rune) {
        Some(c) => single(out, c),
        None => of_set(out, &ClassUnicode::empty()),
    }
}

fn single(out: &mut String, c: char) -> Result<(), Error> {
    if c.is_ascii_alphanumeric() {
        out.push(c);
        Ok(())
    } else {
        write!(out, r"\x{{{:x}}}", u32::from(c))
    }
}

fn of_set(out: &mut String, class: &ClassUnicode) -> Result<(), Error> {
    if class.ranges().is_empty() {
        out.push_str(r"[^\x{0}-\x{10ffff}]");
        return Ok(());
    }
    out.push('[');
    for range in class.ranges() {
        single(out, range.start())?;
        if range.end() > range.start() {
            out.push('-');
            single(out, range.end())?;
        }
    }
    out.push(']');
    Ok(())
}
