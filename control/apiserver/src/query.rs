//! Query strings and percent-encoding, decoded as Go's `net/url` decodes them.

use std::borrow::Cow;

/// The decoded pairs of a query string, in order. Pairs that cannot be decoded, or hold a `;`, are dropped as Go drops them.
#[must_use]
pub fn parse(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.contains(';'))
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode_query(name)?, decode_query(value)?))
        })
        .collect()
}

/// The first value of a parameter.
#[must_use]
pub(crate) fn first<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

/// Whether a parameter is set to a true value: present and neither `false` nor `0` (apimachinery's conversion of strings to bool).
#[must_use]
pub(crate) fn flag(query: &[(String, String)], name: &str) -> bool {
    first(query, name).is_some_and(|v| !v.eq_ignore_ascii_case("false") && v != "0")
}

/// Encodes pairs as a query string.
#[must_use]
pub(crate) fn encode<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push('&');
        }
        escape_into(&mut out, name);
        out.push('=');
        escape_into(&mut out, value);
    }
    out
}

/// Encodes one path segment.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape_into(&mut out, text);
    out
}

fn escape_into(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            _ => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.push(HEX[usize::from(byte >> 4)] as char);
                out.push(HEX[usize::from(byte & 15)] as char);
            }
        }
    }
}

fn decode_query(text: &str) -> Option<String> {
    if text.contains('+') { decode(&text.replace('+', " ")) } else { decode(text) }
}

/// Decodes `%xx`; `None` for a broken escape. Bytes that are no UTF-8 become the replacement character.
#[must_use]
pub fn decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = (bytes.next()? as char).to_digit(16)?;
            let low = (bytes.next()? as char).to_digit(16)?;
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(byte);
        }
    }
    Some(match String::from_utf8_lossy(&out) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pairs_are_decoded_in_order() {
        let pairs = parse("command=ls&command=-l%20a&x=a+b&flag&bad=%zz&semi=1;2");
        let expected = [("command", "ls"), ("command", "-l a"), ("x", "a b"), ("flag", "")];
        assert_eq!(pairs, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert!(
            flag(&pairs, "flag")
                && !flag(&parse("watch=0"), "watch")
                && !flag(&parse("watch=False"), "watch")
        );
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(name in ".+", value in ".*") {
            let text = encode([(name.as_str(), value.as_str())]);
            prop_assert_eq!(parse(&text), vec![(name, value)]);
        }

        #[test]
        fn decoding_never_panics(text in ".*") {
            let _ = decode(&text);
            let _ = parse(&text);
        }
    }
}
