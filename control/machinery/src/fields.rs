//! Field selectors: `metadata.name=x,status.phase!=Running`, with `\` escaping `,`, `=` and itself.

use std::fmt;

/// One term: the field must (or must not) equal the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// Field path, `spec.nodeName`.
    pub field: String,
    /// Value, unescaped.
    pub value: String,
    /// True for `=`, false for `!=`.
    pub equals: bool,
}

/// All terms must hold; none selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

/// Why a field selector does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No operator in a term.
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term {
        /// The selector as given.
        selector: String,
        /// The part between commas.
        term: String,
    },
    /// A backslash before anything but `\`, `,` or `=`.
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
    /// A bare `=` in a value; upstream prints the character's number.
    #[error("invalid field selector: unescaped character in value: {0}")]
    Unescaped(u32),
}

impl FieldSelector {
    /// The empty selector.
    #[must_use]
    pub fn everything() -> Self {
        FieldSelector::default()
    }

    /// `field=value`.
    #[must_use]
    pub fn equal(field: &str, value: &str) -> Self {
        FieldSelector { terms: vec![Term { field: field.into(), value: value.into(), equals: true }] }
    }

    /// Parses the query parameter.
    ///
    /// # Errors
    /// With upstream's texts.
    pub fn parse(selector: &str) -> Result<Self, Error> {
        let mut parts = split_terms(selector);
        parts.sort_unstable();
        let mut terms = Vec::with_capacity(parts.len());
        for part in parts.into_iter().filter(|p| !p.is_empty()) {
            let Some((field, equals, value)) = split_term(part) else {
                return Err(Error::Term { selector: selector.to_owned(), term: part.to_owned() });
            };
            terms.push(Term { field: field.to_owned(), value: unescape(value)?, equals });
        }
        Ok(FieldSelector { terms })
    }

    /// Terms in the order given.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// True where nothing is restricted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The terms about an object's name and namespace.
    #[must_use]
    pub fn only_metadata(&self) -> Self {
        FieldSelector {
            terms: self.terms.iter().filter(|t| t.field.starts_with("metadata.")).cloned().collect(),
        }
    }

    /// The value a field must equal, where the selector says so.
    #[must_use]
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equals && t.field == field).map(|t| t.value.as_str())
    }

    /// Whether an object, seen through `get`, is selected. An absent field is the empty string.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|t| (get(&t.field).unwrap_or_default() == t.value) == t.equals)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let operator = if term.equals { "=" } else { "!=" };
            write!(f, "{comma}{}{operator}{}", term.field, escape(&term.value))?;
        }
        Ok(())
    }
}

/// A value as it may stand in a selector.
#[must_use]
pub fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn unescape(value: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                Some(next) => return Err(Error::Escape(format!("\\{next}"))),
                None => return Err(Error::Escape("\\".to_owned())),
            },
            ',' | '=' => return Err(Error::Unescaped(c as u32)),
            c => out.push(c),
        }
    }
    Ok(out)
}

fn split_terms(selector: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, b) in selector.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                terms.push(&selector[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&selector[start..]);
    terms
}

/// Field, whether it must equal, and the raw value.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    term.char_indices().find_map(|(i, _)| {
        let rest = &term[i..];
        [("!=", false), ("==", true), ("=", true)]
            .into_iter()
            .find_map(|(operator, equals)| Some((&term[..i], equals, rest.strip_prefix(operator)?)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses_terms_and_escapes() {
        let selector = FieldSelector::parse(r"x=a\,b\=c\\,metadata.name!=y,,z==1").unwrap();
        assert_eq!(selector.to_string(), r"metadata.name!=y,x=a\,b\=c\\,z=1");
        assert_eq!(selector.required("x"), Some(r"a,b=c\"));
        assert!(selector.matches(|f| match f {
            "x" => Some(r"a,b=c\"),
            "z" => Some("1"),
            _ => None,
        }));
        assert!(!selector.matches(|_| None));
    }

    #[test]
    fn errors_are_upstreams() {
        let text = |s: &str| FieldSelector::parse(s).unwrap_err().to_string();
        assert_eq!(text("a=b,c"), "invalid selector: 'a=b,c'; can't understand 'c'");
        assert_eq!(text("a=b=c"), "invalid field selector: unescaped character in value: 61");
        assert_eq!(text(r"a=\x"), r"invalid field selector: invalid escape sequence: \x");
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(field in "[a-z.]{1,8}", value in ".{0,12}") {
            let selector = FieldSelector::equal(&field, &value);
            prop_assert_eq!(FieldSelector::parse(&selector.to_string()).unwrap(), selector);
        }

        #[test]
        fn no_input_panics(text in any::<String>()) {
            let _ = FieldSelector::parse(&text);
        }
    }
}
