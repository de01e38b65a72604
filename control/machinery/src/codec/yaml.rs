//! YAML as `sigs.k8s.io/yaml` reads it: the scalars of YAML 1.1 (`yes` is true, `010` is eight), keys as strings,
//! merge keys, the first document of several; and YAML that reads back the same there.

mod scalar;

use serde_json::{Map, Value};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};
use std::collections::HashMap;

/// Documents nested deeper are refused, as is JSON.
pub(crate) const MAX_DEPTH: usize = 128;
/// How many nodes aliases may add to a document.
pub(crate) const MAX_ALIASED: usize = 400_000;

/// A text that is not YAML, or has no JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// YAML syntax error.
    #[error("error converting YAML to JSON: yaml: line {line}: {reason}")]
    Syntax {
        /// From 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// Deeper than [`MAX_DEPTH`].
    #[error("error converting YAML to JSON: yaml: exceeded max depth")]
    Depth,
    /// Aliases that grow the document out of bounds.
    #[error("error converting YAML to JSON: yaml: document contains excessive aliasing")]
    Aliasing,
    /// A number JSON does not have.
    #[error("error converting YAML to JSON: json: unsupported value: {0}")]
    Unsupported(String),
    /// A key that is a list, a map or null.
    #[error("error converting YAML to JSON: unsupported map key of type: {0}")]
    Key(&'static str),
    /// `<<` with anything but maps.
    #[error("error converting YAML to JSON: yaml: map merge requires map or sequence of maps as the value")]
    Merge,
}

/// A value, and what strict field validation has to say of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The value; of a key given twice, the last.
    pub value: Value,
    /// `yaml: unmarshal errors:` and a line for each key given twice; none where there is none.
    pub duplicates: Vec<String>,
}

/// Reads the first document; nothing at all is null.
///
/// # Errors
/// For what is not YAML, or has no JSON.
pub fn decode(bytes: &[u8]) -> Result<Decoded, Error> {
    let text = String::from_utf8_lossy(bytes);
    let first = read(&text, true)?.into_iter().next();
    Ok(first.unwrap_or(Decoded { value: Value::Null, duplicates: Vec::new() }))
}

/// Reads every document, empty ones left out.
///
/// # Errors
/// For what is not YAML, or has no JSON.
pub fn decode_all(bytes: &[u8]) -> Result<Vec<Value>, Error> {
    let text = String::from_utf8_lossy(bytes);
    Ok(read(&text, false)?.into_iter().map(|d| d.value).filter(|v| !v.is_null()).collect())
}

enum Frame {
    List(Vec<Value>),
    Map { map: Map<String, Value>, key: Option<Key>, merged: Vec<Value> },
}

enum Key {
    Name(String),
    Merge,
}

#[derive(Default)]
struct Builder {
    frames: Vec<(Frame, usize)>,
    anchors: HashMap<usize, Value>,
    aliased: usize,
    duplicates: Vec<String>,
    root: Option<Value>,
}

fn read(text: &str, first_only: bool) -> Result<Vec<Decoded>, Error> {
    let mut documents = Vec::new();
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text.trim_start_matches('\u{feff}')) {
        let (event, span) = event.map_err(|e| Error::Syntax { line: e.marker().line(), reason: e.info() })?;
        let line = span.start.line();
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.as_deref().map(|t| format!("{}{}", t.handle(), t.suffix()));
                let plain = matches!(style, ScalarStyle::Plain);
                let merge = plain && tag.is_none() && text == "<<";
                if merge && builder.expects_key() {
                    builder.set_key(Key::Merge, line);
                    continue;
                }
                let value = scalar::resolve(&text, plain, tag.as_deref())?;
                builder.put(value, anchor, line)?;
            }
            Event::SequenceStart(_, anchor, _) => builder.open(Frame::List(Vec::new()), anchor)?,
            Event::MappingStart(_, anchor, _) => {
                builder.open(Frame::Map { map: Map::new(), key: None, merged: Vec::new() }, anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => builder.close(line)?,
            Event::Alias(id) => {
                let value = builder.alias(id)?;
                builder.put(value, 0, line)?;
            }
            Event::DocumentEnd => {
                documents.push(std::mem::take(&mut builder).finish());
                if first_only {
                    break;
                }
            }
            _ => {}
        }
    }
    Ok(documents)
}

impl Builder {
    fn expects_key(&self) -> bool {
        matches!(self.frames.last(), Some((Frame::Map { key: None, .. }, _)))
    }

    fn open(&mut self, frame: Frame, anchor: usize) -> Result<(), Error> {
        if self.expects_key() {
            return Err(Error::Key(if matches!(frame, Frame::List(_)) { "slice" } else { "map" }));
        }
        if self.frames.len() >= MAX_DEPTH {
            return Err(Error::Depth);
        }
        self.frames.push((frame, anchor));
        Ok(())
    }

    fn close(&mut self, line: usize) -> Result<(), Error> {
        let Some((frame, anchor)) = self.frames.pop() else { return Ok(()) };
        let value = match frame {
            Frame::List(items) => Value::Array(items),
            Frame::Map { mut map, merged, .. } => {
                // What the map says itself goes before what it merges in, and that before what is merged later.
                for source in merged {
                    let sources = match source {
                        Value::Array(sources) => sources,
                        source => vec![source],
                    };
                    for source in sources {
                        let Value::Object(source) = source else { return Err(Error::Merge) };
                        for (name, value) in source {
                            map.entry(name).or_insert(value);
                        }
                    }
                }
                Value::Object(map)
            }
        };
        self.put(value, anchor, line)
    }

    fn alias(&mut self, id: usize) -> Result<Value, Error> {
        let value = self.anchors.get(&id).cloned().unwrap_or(Value::Null);
        self.aliased = self.aliased.saturating_add(weight(&value));
        if self.aliased > MAX_ALIASED {
            return Err(Error::Aliasing);
        }
        Ok(value)
    }

    fn set_key(&mut self, name: Key, line: usize) {
        let Some((Frame::Map { map, key, .. }, _)) = self.frames.last_mut() else { return };
        if let Key::Name(name) = &name
            && map.contains_key(name)
        {
            self.duplicates
                .push(format!("  line {line}: key {} already set in map", crate::goformat::go_quote(name)));
        }
        *key = Some(name);
    }

    fn put(&mut self, value: Value, anchor: usize, line: usize) -> Result<(), Error> {
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        if self.expects_key() {
            self.set_key(Key::Name(scalar::key(&value)?), line);
            return Ok(());
        }
        match self.frames.last_mut() {
            None => self.root = Some(value),
            Some((Frame::List(items), _)) => items.push(value),
            Some((Frame::Map { map, key, merged }, _)) => match key.take() {
                Some(Key::Name(name)) => {
                    map.insert(name, value);
                }
                Some(Key::Merge) => merged.push(value),
                None => {}
            },
        }
        Ok(())
    }

    fn finish(self) -> Decoded {
        let duplicates = match self.duplicates.is_empty() {
            true => Vec::new(),
            false => vec![format!("yaml: unmarshal errors:\n{}", self.duplicates.join("\n"))],
        };
        Decoded { value: self.root.unwrap_or(Value::Null), duplicates }
    }
}

/// How many nodes a value is, long texts counting for more.
fn weight(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(weight).fold(1, usize::saturating_add),
        Value::Object(map) => map.values().map(weight).fold(1, usize::saturating_add),
        Value::String(s) => 1 + s.len() / 64,
        _ => 1,
    }
}

/// Writes a value in block style, keys in order. Texts that could be read as anything else are quoted.
#[must_use]
pub fn encode(value: &Value) -> String {
    let mut out = String::new();
    write(value, 0, false, &mut out);
    out
}

/// `after_dash`: the first line continues a list item's.
fn write(value: &Value, indent: usize, after_dash: bool, out: &mut String) {
    let pad = |out: &mut String, first: bool| {
        if !(first && after_dash) {
            out.extend(std::iter::repeat_n(' ', indent));
        }
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (i, (key, value)) in map.iter().enumerate() {
                pad(out, i == 0);
                out.push_str(&scalar::write(key));
                out.push(':');
                // Lists stand at their key's own depth.
                nested(value, if value.is_array() { indent } else { indent + 2 }, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (i, item) in items.iter().enumerate() {
                pad(out, i == 0);
                out.push_str("- ");
                write(item, indent + 2, true, out);
            }
        }
        Value::String(text) => {
            out.push_str(&scalar::write(text));
            out.push('\n');
        }
        other => {
            out.push_str(&other.to_string());
            out.push('\n');
        }
    }
}

fn nested(value: &Value, indent: usize, out: &mut String) {
    let block = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    out.push(if block { '\n' } else { ' ' });
    write(value, indent, false, out);
}

#[cfg(test)]
mod tests;
