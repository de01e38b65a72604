//! Regular expressions as Go's `regexp` reads and matches them, which is RE2's syntax: what the API accepts wherever it has an expression
//! (upstream: Go 1.26's `regexp/syntax` with Perl's flags; the build of Kubernetes 1.36).
//!
//! | module | |
//! |---|---|
//! | [`parse`] | the language, by [`group`], [`bracket`], [`escape`], onto the [`stack`] |
//! | [`held`] | Go's limits; [`factor`] and [`merge`]: what it makes simpler before they are looked at |
//! | [`node`] | the tree; [`set`]: sets of characters, [`names`]: their names |
//! | [`mod@print`] | the tree in the syntax of the `regex` crate, which matches it; [`machine`] does where that would take too much memory |
//! | [`fault`] | errors, in Go's words |
//!
//! Texts are UTF-8, so nothing here is about bytes that are not. Groups are not captured: nothing of the API asks for them.

mod bracket;
mod escape;
mod factor;
mod fault;
mod group;
mod held;
mod machine;
mod merge;
mod names;
mod node;
mod parse;
mod print;
mod set;
mod stack;
#[cfg(test)]
mod tests;

pub use fault::Error;
use machine::Machine;
use std::collections::HashMap;
use std::iter;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// What the `regex` crate may take for one expression, in bytes.
const MOST_BYTES: usize = 16 << 20;
/// Parts within parts that it is given: it reads them with recursion.
const MOST_HEIGHT: usize = 200;

#[derive(Debug)]
enum Engine {
    Crate(regex::Regex),
    Machine(Machine),
}

/// An expression that was read.
#[derive(Clone, Debug)]
pub struct Regex(Arc<Engine>);

/// Where an expression matches a text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match<'t> {
    text: &'t str,
    start: usize,
    end: usize,
}

impl<'t> Match<'t> {
    /// What was matched.
    #[must_use]
    pub fn as_str(&self) -> &'t str {
        self.text.get(self.start..self.end).unwrap_or_default()
    }
}

impl Regex {
    /// Reads an expression.
    ///
    /// # Errors
    /// Where Go finds one, in its words; and for one that Go would need more than a hundred megabytes for without knowing it.
    pub fn new(text: &str) -> Result<Regex, Error> {
        let mut node = parse::parse(text)?;
        let shallow = node.measure_height() <= MOST_HEIGHT;
        let printed = if shallow { print::print(&node) } else { None };
        let built = printed.and_then(|text| within_bounds(&text));
        let engine = match built {
            Some(regex) => Engine::Crate(regex),
            None => Engine::Machine(Machine::new(&node).ok_or_else(|| fault::Code::Large.of(text))?),
        };
        Ok(Regex(Arc::new(engine)))
    }

    /// Whether [`Regex::new`] would read an expression, without making what matches, which takes most of its time.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn check(text: &str) -> Result<(), Error> {
        // What our own machine can hold needs no other.
        match Machine::new(&parse::parse(text)?) {
            Some(_) => Ok(()),
            None => Regex::new(text).map(drop),
        }
    }

    /// As [`Regex::new`], of those that were asked for lately: for callers that have the text only, and have it often.
    ///
    /// # Errors
    /// As there.
    pub fn lately(text: &str) -> Result<Regex, Error> {
        let mut lately = LATELY.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(regex) = lately.get(text) {
            return Ok(regex.clone());
        }
        drop(lately);
        let regex = Regex::new(text)?;
        if text.len() <= LONGEST_KEPT && matches!(*regex.0, Engine::Crate(_)) {
            lately = LATELY.lock().unwrap_or_else(PoisonError::into_inner);
            if lately.len() >= MOST_KEPT {
                lately.clear();
            }
            lately.insert(text.to_owned(), regex.clone());
        }
        Ok(regex)
    }

    /// Whether it matches anywhere in a text.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        match &*self.0 {
            Engine::Crate(regex) => regex.is_match(text),
            Engine::Machine(machine) => machine.find_at(text, 0).is_some(),
        }
    }

    fn find_at(&self, text: &str, from: usize) -> Option<(usize, usize)> {
        match &*self.0 {
            Engine::Crate(regex) => regex.find_at(text, from).map(|found| (found.start(), found.end())),
            Engine::Machine(machine) => machine.find_at(text, from),
        }
    }

    /// The leftmost match, of those the one that Perl would prefer.
    #[must_use]
    pub fn find<'t>(&self, text: &'t str) -> Option<Match<'t>> {
        self.find_at(text, 0).map(|(start, end)| Match { text, start, end })
    }

    /// Those that follow one another; an empty one is none right after another.
    pub fn find_iter<'t>(&self, text: &'t str) -> impl Iterator<Item = Match<'t>> {
        let mut from = Some(0);
        let mut last = None;
        iter::from_fn(move || {
            loop {
                let at = from?;
                let (start, end) = self.find_at(text, at)?;
                let after = || text.get(at..)?.chars().next().map(|c| at + c.len_utf8());
                from = if end == at { after() } else { Some(end) };
                let again = end == at && last == Some(start);
                last = Some(end);
                if !again {
                    return Some(Match { text, start, end });
                }
            }
        })
    }
}

/// The crate's automaton of an expression that was printed; none where it would be too large, which is the only fault there can be.
fn within_bounds(text: &str) -> Option<regex::Regex> {
    let built = regex::RegexBuilder::new(text).size_limit(MOST_BYTES).nest_limit(u32::MAX).build();
    debug_assert!(matches!(built, Ok(_) | Err(regex::Error::CompiledTooBig(_))), "{text}: {built:?}");
    built.ok()
}

/// Expressions that are kept, in number, and the longest of them, in bytes.
const MOST_KEPT: usize = 256;
const LONGEST_KEPT: usize = 1024;

static LATELY: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);
