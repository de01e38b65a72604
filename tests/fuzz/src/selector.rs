//! Small languages.

use machinery::cel::Program;
use machinery::fields::FieldSelector;
use machinery::labels::Selector;
use machinery::quantity::Quantity;
use machinery::re2::Regex;

fn text(bytes: &[u8], read: impl FnOnce(&str)) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        read(text);
    }
}

/// A label selector; what is printed of it selects the same.
pub fn labels(bytes: &[u8]) {
    text(bytes, |text| {
        if let Ok(selector) = Selector::parse(text) {
            assert_eq!(Selector::parse(&selector.to_string()).as_ref(), Ok(&selector));
        }
    });
}

/// A field selector.
pub fn fields(bytes: &[u8]) {
    text(bytes, |text| {
        let _ = FieldSelector::parse(text).map(|selector| selector.matches(|_| Some("a")));
    });
}

/// A quantity; its canonical text is worth the same.
pub fn quantity(bytes: &[u8]) {
    text(bytes, |text| {
        if let Ok(quantity) = Quantity::parse(text) {
            let again = Quantity::parse(&quantity.canonical()).map(|again| again.canonical());
            assert_eq!(again.ok(), Some(quantity.canonical()));
            let _ = (quantity.value(), quantity.milli_value(), quantity.as_f64());
        }
    });
}

/// A duration as Go writes it; what is printed of it is as long.
pub fn duration(bytes: &[u8]) {
    text(bytes, |text| {
        if let Ok(nanos) = machinery::duration::parse(text) {
            assert_eq!(machinery::duration::parse(&machinery::duration::format(nanos)).ok(), Some(nanos));
        }
    });
}

/// A CEL expression.
pub fn expression(bytes: &[u8]) {
    text(bytes, |text| {
        let _ = Program::parse(text);
    });
}

/// A regular expression, over the beginning of its own text; where it matches it is found, and nothing is found outside. (A translation
/// that the crate does not take stops the program.)
pub fn pattern(bytes: &[u8]) {
    text(bytes, |text| {
        let Ok(regex) = Regex::new(text) else { return };
        let text = text.char_indices().nth(16).and_then(|(end, _)| text.get(..end)).unwrap_or(text);
        let mut from = 0;
        for found in regex.find_iter(text) {
            let at = text.get(from..).and_then(|rest| rest.find(found.as_str()));
            assert!(at.is_some(), "{text}: {found:?}");
            from += at.unwrap_or_default();
        }
        assert_eq!(regex.is_match(text), regex.find(text).is_some());
    });
}
