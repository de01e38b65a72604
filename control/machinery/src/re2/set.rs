//! Sets of characters, as Go's tables have them.
//!
//! Go 1.26 has the tables of Unicode 15.0 and the crate those of 16.0. What came later is taken out, and the one character that was moved
//! is put back; with a later crate, others that were moved would be where that has them.

use super::{names, node::Rune};
use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};
use std::sync::LazyLock;

/// The version of Unicode that Go has.
const AGE: &str = r"\p{Age=15.0}";

static ASSIGNED: LazyLock<ClassUnicode> = LazyLock::new(|| read(AGE));

/// A set in the crate's own syntax, which is one of our tables; empty where that has no members.
fn read(text: &str) -> ClassUnicode {
    match regex_syntax::parse(text).map(regex_syntax::hir::Hir::into_kind) {
        Ok(HirKind::Class(Class::Unicode(set))) => set,
        // a set of one is a literal to the crate
        Ok(HirKind::Literal(one)) => {
            let mut set = ClassUnicode::empty();
            for c in String::from_utf8_lossy(&one.0).chars() {
                set.push(ClassUnicodeRange::new(c, c));
            }
            set
        }
        _ => ClassUnicode::empty(),
    }
}

pub(super) fn contains(set: &ClassUnicode, c: char) -> bool {
    let ranges = set.ranges();
    let at = ranges.partition_point(|range| range.end() < c);
    ranges.get(at).is_some_and(|range| range.start() <= c)
}

/// All from one number to another. Surrogates are in no text, so in no set.
pub(super) fn range(low: Rune, high: Rune) -> ClassUnicode {
    let low = char::from_u32(low).or((low < 0xE000).then_some('\u{E000}'));
    let high = char::from_u32(high).or((high < 0xE000).then_some('\u{D7FF}'));
    match (low, high) {
        (Some(low), Some(high)) if low <= high => ClassUnicode::new([ClassUnicodeRange::new(low, high)]),
        _ => ClassUnicode::empty(),
    }
}

/// All others. (The crate's own negation takes what is on both sides of the surrogates for apart, and adds their ends.)
pub(super) fn negated(set: &ClassUnicode) -> ClassUnicode {
    let mut next = Some('\0');
    let mut out = Vec::new();
    for range in set.ranges() {
        let last = char::from_u32(u32::from(range.start()).wrapping_sub(1));
        let last = last.or((range.start() == '\u{E000}').then_some('\u{D7FF}'));
        out.extend(next.zip(last).filter(|(low, high)| low <= high));
        next = match range.end() {
            '\u{D7FF}' => Some('\u{E000}'),
            end => char::from_u32(u32::from(end) + 1),
        };
    }
    out.extend(next.map(|low| (low, char::MAX)));
    ClassUnicode::new(out.into_iter().map(|(low, high)| ClassUnicodeRange::new(low, high)))
}

/// With what differs from a member by case only.
pub(super) fn folded(set: &ClassUnicode) -> ClassUnicode {
    let mut out = set.clone();
    out.intersect(&ASSIGNED);
    out.case_fold_simple();
    out.intersect(&ASSIGNED);
    out.union(set);
    out
}

/// A character and those that differ from it by case only.
pub(super) fn orbit(rune: Rune) -> ClassUnicode {
    let mut out = range(rune, rune);
    let Some(c) = char::from_u32(rune).filter(|c| contains(&ASSIGNED, *c)) else { return out };
    out.case_fold_simple();
    let kept = out.ranges().iter().flat_map(|range| range.start()..=range.end());
    let kept = kept.filter(|other| *other == c || contains(&ASSIGNED, *other));
    ClassUnicode::new(kept.map(|c| ClassUnicodeRange::new(c, c)))
}

/// The least of those that differ by case only.
pub(super) fn least(rune: Rune) -> Rune {
    match rune {
        0x41..=0x1e943 => orbit(rune).ranges().first().map_or(rune, |range| range.start().into()),
        _ => rune,
    }
}

/// The one character of a set of one, or the less one of a set of two that differ by case only and from nothing else (true).
pub(super) fn single(set: &ClassUnicode) -> Option<(Rune, bool)> {
    let [first, rest @ ..] = set.ranges() else { return None };
    let low = Rune::from(first.start());
    if first.len() == 1 && rest.is_empty() {
        return Some((low, false));
    }
    let two = match rest {
        [] => first.len() == 2,
        [second] => first.len() == 1 && second.len() == 1,
        _ => false,
    };
    (two && orbit(low) == *set).then_some((low, true))
}

/// All characters, or all but the end of a line (false).
pub(super) fn any(set: &ClassUnicode) -> Option<bool> {
    let bounds: Vec<(char, char)> = set.ranges().iter().take(3).map(|r| (r.start(), r.end())).collect();
    match *bounds {
        [('\0', char::MAX)] => Some(true),
        [('\0', '\t'), ('\u{b}', char::MAX)] => Some(false),
        _ => None,
    }
}

/// What `\p{name}` means, and whether the case of letters can be left out of account in it; none where it means nothing.
pub(super) fn named(name: &str) -> Option<(ClassUnicode, bool)> {
    let name = names::canonical(name);
    let category_or_script = || match names::category(&name) {
        Some(name) => Some(category(name)),
        None => names::script(&name).map(|script| assigned(&format!(r"\p{{Script={script}}}"))),
    };
    let set = match name.as_str() {
        "Any" => range(0, char::MAX.into()),
        "Ascii" => range(0, 0x7f),
        "Assigned" => negated(&category("Cn")),
        _ => category_or_script()?,
    };
    // upstream has no table for this one
    let folds = names::category(&name) != Some("LC");
    Some((set, folds))
}

fn assigned(text: &str) -> ClassUnicode {
    let mut set = read(text);
    set.intersect(&ASSIGNED);
    set
}

/// U+1171E is a nonspacing mark in 15.0 and a spacing one later.
const MOVED: Rune = 0x1171e;

fn category(name: &str) -> ClassUnicode {
    let mut set = match name {
        "Cs" => ClassUnicode::empty(),
        _ => assigned(&format!(r"\p{{General_Category={name}}}")),
    };
    match name {
        "C" | "Cn" => set.union(&negated(&ASSIGNED)),
        "Mn" => set.union(&range(MOVED, MOVED)),
        "Mc" => set.difference(&range(MOVED, MOVED)),
        _ => {}
    }
    set
}
