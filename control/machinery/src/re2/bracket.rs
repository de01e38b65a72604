//! Sets of characters in brackets.

use super::escape;
use super::fault::{Code, Error, before};
use super::names;
use super::node::{Flags, Rune};
use super::set;
use regex_syntax::hir::ClassUnicode;

/// The set that `text` begins with, and what is after it.
pub(super) fn read(text: &str, flags: Flags) -> Result<(ClassUnicode, &str), Error> {
    let inner = text.get(1..).unwrap_or_default();
    let negated = inner.strip_prefix('^');
    let mut rest = negated.unwrap_or(inner);
    let mut all = ClassUnicode::empty();
    // a bracket that comes first is a member
    let mut first = true;
    while first || !rest.starts_with(']') {
        first = false;
        let (more, after) = match named(rest, flags)? {
            Some(found) => found,
            None => match escape::set(rest, flags)? {
                Some(found) => found,
                None => range(rest, text, flags)?,
            },
        };
        all.union(&more);
        rest = after;
    }
    let all = if negated.is_some() { set::negated(&all) } else { all };
    Ok((all, rest.get(1..).unwrap_or_default()))
}

/// `[:alpha:]` and others.
fn named(text: &str, flags: Flags) -> escape::Found<'_> {
    let Some((name, rest)) = text.strip_prefix("[:").and_then(|inner| inner.split_once(":]")) else {
        return Ok(None);
    };
    let Some((ranges, negated)) = names::posix(name) else {
        return Err(Code::CharRange.of(before(text, rest)));
    };
    Ok(Some((escape::group(ranges, negated, flags), rest)))
}

/// A character, or all from one to another. A dash before the end is one of the set.
fn range<'a>(text: &'a str, whole: &str, flags: Flags) -> Result<(ClassUnicode, &'a str), Error> {
    let (low, mut rest) = char(text, whole)?;
    let mut high = low;
    if let Some(after) = rest.strip_prefix('-').filter(|after| !after.is_empty() && !after.starts_with(']')) {
        (high, rest) = char(after, whole)?;
        if high < low {
            return Err(Code::CharRange.of(before(text, rest)));
        }
    }
    let range = set::range(low, high);
    Ok((if flags.has(Flags::FOLD) { set::folded(&range) } else { range }, rest))
}

fn char<'a>(text: &'a str, whole: &str) -> Result<(Rune, &'a str), Error> {
    let mut chars = text.chars();
    match chars.next() {
        None => Err(Code::MissingBracket.of(whole)),
        Some('\\') => escape::rune(text),
        Some(c) => Ok((c.into(), chars.as_str())),
    }
}
