//! Small languages.

use machinery::cel::Program;
use machinery::fields::FieldSelector;
use machinery::labels::Selector;
use machinery::quantity::Quantity;

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
