//! JSON as `sigs.k8s.io/json` reads it: names are case sensitive, and fields given twice are found.

use crate::goformat::go_quote;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::collections::HashMap;
use std::fmt;

/// Upstream stops listing duplicate fields here.
pub(crate) const MAX_DUPLICATES: usize = crate::schema::normalize::MAX_STRICT_ERRORS;

/// A text that is not JSON, worded as Go words it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text ends too early.
    #[error("unexpected end of JSON input")]
    Eof,
    /// A character that does not belong where it is.
    #[error("invalid character {character} {place}")]
    Character {
        /// Quoted as Go quotes a character.
        character: String,
        /// `looking for beginning of value`, `after object key`, ...
        place: &'static str,
    },
    /// Deeper than the decoder takes.
    #[error("exceeded max depth")]
    Depth,
    /// Error text of the decoder.
    #[error("{0}")]
    Other(String),
}

/// A value, and what strict field validation has to say of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The value; of a field given twice, the last.
    pub value: Value,
    /// `duplicate field "spec.x"`, at most [`MAX_DUPLICATES`].
    pub duplicates: Vec<String>,
}

/// Reads one JSON text.
///
/// # Errors
/// For anything else.
pub fn decode(bytes: &[u8]) -> Result<Decoded, Error> {
    // As in Go, bytes that are not UTF-8 become replacement characters.
    let text = String::from_utf8_lossy(bytes);
    let mut walk = Walk { path: String::new(), duplicates: Vec::new() };
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let value = Seed(&mut walk).deserialize(&mut deserializer);
    let value =
        value.and_then(|value| deserializer.end().map(|()| value)).map_err(|e| describe(&text, &e))?;
    Ok(Decoded { value, duplicates: walk.duplicates })
}

/// Puts what strict decoding found (`duplicate field "a.b"`, `unknown field "c"`) into the order in which a reader of the
/// text comes upon it, and leaves out duplicates inside of fields that are unknown altogether.
pub fn in_order(bytes: &[u8], problems: &mut Vec<String>) {
    if problems.len() < 2 {
        return;
    }
    let path = |problem: &str| {
        let quoted = problem.split_once('"').map(|(_, rest)| rest.trim_end_matches('"'));
        quoted.unwrap_or_default().to_owned()
    };
    let unknown: Vec<String> =
        problems.iter().filter(|p| p.starts_with("unknown field")).map(|p| path(p)).collect();
    problems.retain(|problem| {
        let of = path(problem);
        let inside =
            |outer: &String| of.strip_prefix(outer.as_str()).is_some_and(|rest| rest.starts_with(['.', '[']));
        !(problem.starts_with("duplicate field") && unknown.iter().any(inside))
    });
    let mut places = Places { path: String::new(), count: 0, of: HashMap::new() };
    for problem in problems.iter() {
        places.of.insert(path(problem), Vec::new());
    }
    let text = String::from_utf8_lossy(bytes);
    if (&mut places).deserialize(&mut serde_json::Deserializer::from_str(&text)).is_err() {
        return;
    }
    problems.sort_by_key(|problem| {
        let seen = places.of.get(&path(problem)).map(Vec::as_slice).unwrap_or_default();
        // A duplicate is met where the name stands for the second time.
        let nth = usize::from(problem.starts_with("duplicate field"));
        seen.get(nth).or(seen.first()).copied().unwrap_or(usize::MAX)
    });
}

/// A walk over a text that notes where the paths of interest stand.
struct Places {
    path: String,
    count: usize,
    of: HashMap<String, Vec<usize>>,
}

impl Places {
    fn within<T>(&mut self, step: &str, inner: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(step);
        self.count += 1;
        if let Some(places) = self.of.get_mut(&self.path) {
            places.push(self.count);
        }
        let result = inner(self);
        self.path.truncate(length);
        result
    }
}

impl<'de> DeserializeSeed<'de> for &mut Places {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Places {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for index in 0.. {
            let step = format!("[{index}]");
            if self.within(&step, |places| seq.next_element_seed(places))?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let step = if self.path.is_empty() { key } else { format!(".{key}") };
            self.within(&step, |places| map.next_value_seed(places))?;
        }
        Ok(())
    }
}

/// Writes one JSON text, without white space.
#[must_use]
pub fn encode(value: &Value) -> Vec<u8> {
    // A Value has string keys and finite numbers: nothing in it can fail.
    serde_json::to_vec(value).unwrap_or_default()
}

/// Upstream's error for everything strict decoding found; `None` where that is nothing.
#[must_use]
pub fn strict_error(problems: &[String]) -> Option<String> {
    (!problems.is_empty()).then(|| format!("strict decoding error: {}", problems.join(", ")))
}

struct Walk {
    path: String,
    duplicates: Vec<String>,
}

struct Seed<'w>(&'w mut Walk);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let (walk, mut items) = (self.0, Vec::new());
        let length = walk.path.len();
        loop {
            walk.path.push_str(&format!("[{}]", items.len()));
            let item = seq.next_element_seed(Seed(walk))?;
            walk.path.truncate(length);
            match item {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let (walk, mut map) = (self.0, Map::new());
        let length = walk.path.len();
        while let Some(key) = access.next_key::<String>()? {
            if length > 0 {
                walk.path.push('.');
            }
            walk.path.push_str(&key);
            if map.contains_key(&key) && walk.duplicates.len() < MAX_DUPLICATES {
                let duplicate = format!("duplicate field {}", go_quote(&walk.path));
                if !walk.duplicates.contains(&duplicate) {
                    walk.duplicates.push(duplicate);
                }
            }
            let value = access.next_value_seed(Seed(walk))?;
            walk.path.truncate(length);
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// Go's word for a JSON value where it fits no Go type; none for null, which fits all.
pub(crate) fn kind_name(value: &Value) -> Option<&'static str> {
    match value {
        Value::Null => None,
        Value::Bool(_) => Some("bool"),
        Value::Number(_) => Some("number"),
        Value::String(_) => Some("string"),
        Value::Array(_) => Some("array"),
        Value::Object(_) => Some("object"),
    }
}

/// What Go says of a literal: the letter it waited for.
fn literal(line: &str, column: usize) -> Option<String> {
    let start = line
        .get(..column.saturating_sub(1))?
        .rfind(|c: char| !c.is_ascii_alphabetic())
        .map_or(0, |at| at + 1);
    let found = line.get(start..column)?;
    let word = ["null", "true", "false"].into_iter().find(|word| found.starts_with(&word[..1]))?;
    let (index, got, wanted) = word
        .chars()
        .zip(line.get(start..)?.chars())
        .enumerate()
        .find_map(|(i, (wanted, got))| (wanted != got).then_some((i, got, wanted)))?;
    (index > 0).then(|| {
        format!("invalid character {} in literal {word} (expecting {})", quote_char(got), quote_char(wanted))
    })
}

const PLACES: [(&str, &str); 9] = [
    ("expected value", "looking for beginning of value"),
    ("expected ident", "in literal"),
    ("expected `,` or `}`", "after object key:value pair"),
    ("expected `,` or `]`", "after array element"),
    ("expected `:`", "after object key"),
    ("key must be a string", "looking for beginning of object key string"),
    ("trailing characters", "after top-level value"),
    ("trailing comma", "looking for beginning of value"),
    ("control character", "in string literal"),
];

fn describe(text: &str, error: &serde_json::Error) -> Error {
    if error.is_eof() {
        return Error::Eof;
    }
    let message = error.to_string();
    if message.starts_with("recursion limit exceeded") {
        return Error::Depth;
    }
    let line = text.split('\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    if let Some(text) = message.starts_with("expected ident").then(|| literal(line, error.column())).flatten()
    {
        return Error::Other(text);
    }
    let character = line.get(error.column().saturating_sub(1)..).and_then(|rest| rest.chars().next());
    let place = PLACES.iter().find(|(prefix, _)| message.starts_with(prefix)).map(|(_, place)| *place);
    match (character, place) {
        (Some(c), Some(place)) => Error::Character { character: quote_char(c), place },
        _ => Error::Other(message),
    }
}

fn quote_char(c: char) -> String {
    match c {
        '\'' => "'\\''".to_owned(),
        '"' => "'\"'".to_owned(),
        c => {
            let quoted = go_quote(&c.to_string());
            format!("'{}'", quoted.trim_matches('"'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn problems_are_told_in_the_texts_order() {
        let text = br#"{"b":1,"x":{"y":1,"y":2},"a":[{"q":1,"r":2,"r":3}],"b":2}"#;
        let mut problems: Vec<String> = [
            "duplicate field \"x.y\"",
            "duplicate field \"a[0].r\"",
            "duplicate field \"b\"",
            "unknown field \"a[0].q\"",
            "unknown field \"x\"",
        ]
        .map(str::to_owned)
        .to_vec();
        in_order(text, &mut problems);
        assert_eq!(
            problems,
            [
                "unknown field \"x\"",
                "unknown field \"a[0].q\"",
                "duplicate field \"a[0].r\"",
                "duplicate field \"b\""
            ]
        );
    }

    #[test]
    fn fields_given_twice_are_found() {
        let decoded = decode(br#"{"a":1,"spec":{"x":[{"n":1},{"n":1,"n":2,"n":3}]},"a":{"b":2}}"#).unwrap();
        assert_eq!(decoded.value, json!({"a": {"b": 2}, "spec": {"x": [{"n": 1}, {"n": 3}]}}));
        assert_eq!(decoded.duplicates, ["duplicate field \"spec.x[1].n\"", "duplicate field \"a\""]);
        assert_eq!(
            strict_error(&decoded.duplicates).unwrap(),
            "strict decoding error: duplicate field \"spec.x[1].n\", duplicate field \"a\""
        );
    }

    #[test]
    fn errors_are_gos() {
        for (text, error) in [
            ("", "unexpected end of JSON input"),
            ("{\"a\":", "unexpected end of JSON input"),
            ("nonsense", "invalid character 'o' in literal null (expecting 'u')"),
            ("[tru]", "invalid character ']' in literal true (expecting 'e')"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\"}", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{1:2}", "invalid character '1' looking for beginning of object key string"),
            ("{}\n}", "invalid character '}' after top-level value"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
        ] {
            assert_eq!(decode(text.as_bytes()).unwrap_err().to_string(), error, "{text}");
        }
        assert_eq!(decode("[".repeat(100_000).as_bytes()), Err(Error::Depth));
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100), near in "[\\[\\]{},:\"a0-9 \n]{0,40}") {
            let _ = (decode(&bytes), decode(near.as_bytes()));
        }
    }
}
