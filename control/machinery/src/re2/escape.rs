//! What a backslash begins.

use super::fault::{Code, Error, before};
use super::names::{self, Ranges};
use super::node::{Flags, Rune};
use super::set;
use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

/// A set and the text after it, where there is one.
pub(super) type Found<'a> = Result<Option<(ClassUnicode, &'a str)>, Error>;

/// The first character, and what is after it; at the end there is one that means nothing.
fn next(text: &str) -> (char, &str) {
    let mut chars = text.chars();
    let c = chars.next().unwrap_or(char::REPLACEMENT_CHARACTER);
    (c, chars.as_str())
}

/// `\d`, `\pL`, `\p{Greek}` and others.
pub(super) fn set(text: &str, flags: Flags) -> Found<'_> {
    let Some(rest) = text.strip_prefix('\\') else { return Ok(None) };
    let (letter, rest) = next(rest);
    if matches!(letter, 'p' | 'P') && text.len() > 1 {
        return unicode(text, rest, letter == 'P', flags).map(Some);
    }
    Ok(names::perl(letter).map(|(ranges, negated)| (group(ranges, negated, flags), rest)))
}

/// A set of Perl's or POSIX's.
pub(super) fn group(ranges: Ranges, negated: bool, flags: Flags) -> ClassUnicode {
    let set = ClassUnicode::new(ranges.iter().map(|(low, high)| ClassUnicodeRange::new(*low, *high)));
    signed(set, negated, flags.has(Flags::FOLD))
}

fn signed(set: ClassUnicode, negated: bool, fold: bool) -> ClassUnicode {
    let folded = if fold { set::folded(&set) } else { set };
    if negated { set::negated(&folded) } else { folded }
}

/// `text` begins with `\p` or `\P`, after which `rest` is.
fn unicode<'a>(
    text: &'a str,
    rest: &'a str,
    mut negated: bool,
    flags: Flags,
) -> Result<(ClassUnicode, &'a str), Error> {
    let (name, rest) = if let Some(braced) = rest.strip_prefix('{') {
        braced.split_once('}').ok_or_else(|| Code::CharRange.of(text))?
    } else {
        let (_, after) = next(rest);
        (before(rest, after), after)
    };
    let bare = name.strip_prefix('^');
    negated ^= bare.is_some();
    let named = set::named(bare.unwrap_or(name));
    let (named, folds) = named.ok_or_else(|| Code::CharRange.of(before(text, rest)))?;
    Ok((signed(named, negated, folds && flags.has(Flags::FOLD)), rest))
}

/// One character, and the text after it; `text` begins with a backslash.
pub(super) fn rune(text: &str) -> Result<(Rune, &str), Error> {
    let Some(rest) = text.get(1..).filter(|rest| !rest.is_empty()) else {
        return Err(Code::TrailingBackslash.of(""));
    };
    let (c, rest) = next(rest);
    let simple = match c {
        '1'..='7' if !rest.starts_with(|c| matches!(c, '0'..='7')) => None,
        '0'..='7' => return Ok(octal(text.get(1..).unwrap_or_default())),
        'x' => return hex(text, rest),
        'a' => Some('\u{7}'),
        'f' => Some('\u{c}'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\u{b}'),
        c => (c.is_ascii() && !c.is_ascii_alphanumeric()).then_some(c),
    };
    simple.map(|c| (c.into(), rest)).ok_or_else(|| Code::Escape.of(before(text, rest)))
}

/// Three digits at most.
fn octal(text: &str) -> (Rune, &str) {
    let end = text.bytes().take(3).take_while(|b| matches!(b, b'0'..=b'7')).count();
    let (digits, rest) = text.split_at(end);
    (Rune::from_str_radix(digits, 8).unwrap_or_default(), rest)
}

/// `\x41` or `\x{41}`, as `text` begins; `rest` is after the x.
fn hex<'a>(text: &'a str, rest: &'a str) -> Result<(Rune, &'a str), Error> {
    let wrong = |rest: &str| Code::Escape.of(before(text, rest));
    let (first, mut rest) = next(rest);
    if first != '{' {
        let (second, rest) = next(rest);
        let digits = first.to_digit(16).zip(second.to_digit(16));
        return digits.map(|(high, low)| (16 * high + low, rest)).ok_or_else(|| wrong(rest));
    }
    let (mut rune, mut digits) = (0, 0_u32);
    while !rest.is_empty() {
        let (c, after) = next(rest);
        rest = after;
        if c == '}' && digits > 0 {
            return Ok((rune, rest));
        }
        let digit = c.to_digit(16).map(|digit| rune * 16 + digit).filter(|r| *r <= u32::from(char::MAX));
        rune = digit.ok_or_else(|| wrong(rest))?;
        digits = 1;
    }
    Err(wrong(""))
}
