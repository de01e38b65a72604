//! What `(?` begins: groups with a name, groups that do not count, and flags.

use super::fault::{Code, Error, before};
use super::node::{Flags, Op};

/// The group that is opened, where one is, the flags from here on, and what is after it.
pub(super) struct Opened<'a> {
    pub(super) op: Option<Op>,
    pub(super) flags: Flags,
    pub(super) rest: &'a str,
}

pub(super) fn open(text: &str, flags: Flags) -> Result<Opened<'_>, Error> {
    let python = text.strip_prefix("(?P<").filter(|rest| !rest.is_empty());
    match python.or_else(|| text.strip_prefix("(?<").filter(|rest| !rest.is_empty())) {
        Some(inner) => {
            let rest = named(text, inner)?;
            Ok(Opened { op: Some(Op::Open { counts: true }), flags, rest })
        }
        None => flagged(text, flags),
    }
}

/// What is after a name, which is not kept.
fn named<'a>(text: &str, inner: &'a str) -> Result<&'a str, Error> {
    let (name, rest) = inner.split_once('>').ok_or_else(|| Code::NamedCapture.of(text))?;
    if name.is_empty() || !name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()) {
        return Err(Code::NamedCapture.of(before(text, rest)));
    }
    Ok(rest)
}

fn flagged(text: &str, mut flags: Flags) -> Result<Opened<'_>, Error> {
    let mut chars = text.get(2..).unwrap_or_default().chars();
    let (mut on, mut seen) = (true, false);
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
                let op = (c == ':').then_some(Op::Open { counts: false });
                return Ok(Opened { op, flags, rest: chars.as_str() });
            }
            _ => break,
        };
        flags = flags.with(flag, on);
        seen = true;
    }
    Err(Code::PerlOp.of(before(text, chars.as_str())))
}
