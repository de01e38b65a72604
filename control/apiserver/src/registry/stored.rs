//! An object at rest, and how it becomes an object on the wire.
//!
//! At rest an object is JSON with `apiVersion`, `kind` and `metadata` first and **without** `metadata.resourceVersion`,
//! as upstream keeps it in etcd: the revision of a write is known only once it is committed, and it is already kept
//! beside the value. Readers splice it in as the first member of `metadata`. Because `metadata` comes early, finding
//! the place costs a scan of some sixty bytes, whatever the object's size; values written by others (any member
//! order) are found by the same scan, only later.

use bytes::Bytes;
use serde_json::{Map, Value};
use store::Revision;

/// The bytes to store for `object`: canonical order, no resourceVersion.
pub(crate) fn encode(object: &Value) -> Result<Bytes, serde_json::Error> {
    let Value::Object(members) = object else {
        return serde_json::to_vec(object).map(Bytes::from);
    };
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    let mut first = true;
    let mut member = |out: &mut Vec<u8>, name: &str, value: &Value| -> Result<(), serde_json::Error> {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, name)?;
        out.push(b':');
        serde_json::to_writer(&mut *out, value)
    };
    for name in ["apiVersion", "kind"] {
        if let Some(value) = members.get(name) {
            member(&mut out, name, value)?;
        }
    }
    if let Some(metadata) = members.get("metadata") {
        match metadata {
            Value::Object(m) if m.contains_key("resourceVersion") => {
                let mut bare = m.clone();
                bare.remove("resourceVersion");
                member(&mut out, "metadata", &Value::Object(bare))?;
            }
            other => member(&mut out, "metadata", other)?,
        }
    }
    for (name, value) in members {
        if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            member(&mut out, name, value)?;
        }
    }
    out.push(b'}');
    Ok(Bytes::from(out))
}

/// The stored object as a value, its `resourceVersion` set.
pub(crate) fn decode(value: &[u8], revision: Revision) -> Result<Value, serde_json::Error> {
    let mut object: Value = serde_json::from_slice(value)?;
    set_revision(&mut object, revision);
    Ok(object)
}

/// Sets `metadata.resourceVersion`.
pub(crate) fn set_revision(object: &mut Value, revision: Revision) {
    if let Value::Object(members) = object {
        let metadata = members.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(metadata) = metadata {
            metadata.insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
        }
    }
}

/// Appends the wire form of a stored value to `out`, its resourceVersion spliced in.
pub(crate) fn append(out: &mut Vec<u8>, value: &[u8], revision: Revision) {
    match metadata_start(value) {
        Some(at) => {
            out.reserve(value.len() + 48);
            out.extend_from_slice(&value[..at]);
            out.extend_from_slice(b"\"resourceVersion\":\"");
            out.extend_from_slice(revision.to_string().as_bytes());
            out.push(b'"');
            let empty = value[at..].iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'}');
            if !empty {
                out.push(b',');
            }
            out.extend_from_slice(&value[at..]);
        }
        None => out.extend_from_slice(value),
    }
}

/// The wire form of a stored value.
pub(crate) fn wire(value: &[u8], revision: Revision) -> Bytes {
    let mut out = Vec::new();
    append(&mut out, value, revision);
    Bytes::from(out)
}

/// The offset just past the `{` that opens the top-level `metadata` object, if there is one.
fn metadata_start(json: &[u8]) -> Option<usize> {
    let mut scan = Scan { json, at: 0 };
    scan.expect(b'{')?;
    loop {
        let name = scan.string()?;
        scan.expect(b':')?;
        if name == b"metadata" {
            scan.expect(b'{')?;
            return Some(scan.at);
        }
        scan.skip_value()?;
        scan.expect(b',')?;
    }
}

/// A cursor over JSON that is known to be well formed; anything else ends the scan with `None`.
struct Scan<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn blanks(&mut self) {
        while self.json.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.blanks();
        (*self.json.get(self.at)? == byte).then(|| self.at += 1)
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            match *self.json.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    return self.json.get(start..self.at - 1);
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
    }

    fn skip_value(&mut self) -> Option<()> {
        self.blanks();
        let mut depth = 0_usize;
        loop {
            match *self.json.get(self.at)? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' if depth == 0 => return Some(()),
                b'}' | b']' => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' if depth == 0 => return Some(()),
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn stored_form_puts_metadata_early_and_drops_the_revision() {
        let object = json!({"apiVersion": "v1", "data": {"a": "b"}, "kind": "ConfigMap",
            "metadata": {"name": "x", "resourceVersion": "7"}});
        assert_eq!(
            encode(&object).unwrap(),
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"b"}}"#
        );
    }

    #[test]
    fn the_revision_is_spliced_whatever_the_member_order() {
        for text in [
            r#"{"metadata":{"name":"x"}}"#,
            r#"{ "a" : [1, "}", {"metadata":{}}], "metadata" : { "name":"x"} }"#,
            r#"{"s":"a\"b","n":-1.5e3,"t":true,"z":null,"metadata":{}}"#,
        ] {
            let got: Value = serde_json::from_slice(&wire(text.as_bytes(), 42)).unwrap();
            let mut want: Value = serde_json::from_str(text).unwrap();
            want["metadata"]["resourceVersion"] = json!("42");
            assert_eq!(got, want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn wire_equals_decode(name in ".*", data in proptest::collection::btree_map(".*", ".*", 0..5), rev in 1u64..u64::MAX) {
            let object = json!({"apiVersion": "v1", "kind": "X", "a": data, "metadata": {"name": name}});
            let stored = encode(&object).unwrap();
            let spliced: Value = serde_json::from_slice(&wire(&stored, rev)).unwrap();
            prop_assert_eq!(spliced, decode(&stored, rev).unwrap());
        }
    }
}
