//! What `(?` begins: groups with a name, groups that do not count, and flags.

use super::fault::{Code, Error};
use super::node::{Flags, Op};
use super::parse::{Reader, before};

pub(super) fn open(reader: &mut Reader<'_>) -> Result<(), Error> {
    let text = reader.rest;
    let python = text.strip_prefix("(?P<").filter(|rest| !rest.is_empty());
    match python.or_else(|| text.strip_prefix("(?<").filter(|rest| !rest.is_empty())) {
        Some(rest) => named(reader, rest),
        None => flags(reader),
    }
}

fn named(reader: &mut Reader<'_>, rest: &str) -> Result<(), Error> {
    let text = reader.rest;
    let (name, rest) = rest.split_once('>').ok_or_else(|| Code::NamedCapture.of(text))?;
    if name.is_empty() || !name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()) {
        return Err(Code::NamedCapture.of(before(text, rest)));
    }
    reader.op(Op::Open { counts: true })?;
    reader.rest = text.get(text.len() - rest.len()..).unwrap_or_default();
    Ok(())
}

fn flags(reader: &mut Reader<'_>) -> Result<(), Error> {
    let text = reader.rest;
    let mut chars = text.get(2..).unwrap_or_default().chars();
    let (mut flags, mut on, mut seen) = (reader.flags, true, false);
    while let Some(c) = chars.next() {
        let flag = match c {
            'i' => Flags::FOLD,
            'm' => Flags::LINES,
            's' => Flags::DOT_ALL,
            'U' => Flags::LAZY,
            '-' if on => {
                (on, seen) = (false, false);
                continue;
            }
            ':' | ')' if on || seen => {
                if c == ':' {
                    reader.op(Op::Open { counts: false })?;
                }
                reader.flags = flags;
                reader.rest = chars.as_str();
                return Ok(());
            }
            _ => break,
        };
        flags = flags.with(flag, on);
        seen = true;
    }
    Err(Code::PerlOp.of(before(text, chars.as_str())))
}
