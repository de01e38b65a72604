//! What `kubectl get` prints of a custom resource: the name, then the definition's columns, or the age where it has none.

use super::jsonpath::JsonPath;
use crate::access::Get as _;
use crate::goformat::go_number;
use crate::object;
use crate::resources::table::since;
use jiff::Timestamp;
use serde_json::{Value, json};

/// The columns of a version.
#[derive(Clone, Debug, Default)]
pub struct Columns(Vec<Column>);

#[derive(Clone, Debug)]
struct Column {
    /// As a Table's `columnDefinitions` has it.
    header: Value,
    kind: String,
    path: JsonPath,
}

impl Columns {
    /// Reads `additionalPrinterColumns`. As upstream, a path that does not parse leaves the columns before it.
    #[must_use]
    pub(crate) fn new(columns: &[Value]) -> Self {
        let read = |of: &Value| {
            let path = of.text("jsonPath");
            let described = match of.text("description") {
                "" => format!("Custom resource definition column (in JSONPath format): {path}"),
                own => own.to_owned(),
            };
            let kind = of.text("type").to_owned();
            let header = json!({
                "name": of.text("name"), "type": kind, "format": of.text("format"), "description": described,
                "priority": of.int("priority").unwrap_or_default(),
            });
            Some(Column { header, kind, path: JsonPath::parse(path).ok()? })
        };
        match columns {
            [] => Columns(age().into_iter().collect()),
            columns => Columns(columns.iter().map_while(read).collect()),
        }
    }

    /// A Table's `columnDefinitions`.
    #[must_use]
    pub fn headers(&self) -> Value {
        let name = json!({
            "name": "Name", "type": "string", "format": "name", "priority": 0,
            "description": "Name must be unique within a namespace.",
        });
        std::iter::once(name).chain(self.0.iter().map(|c| c.header.clone())).collect()
    }

    #[must_use]
    /// The row of an object.
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = Value::from(object::name(object));
        std::iter::once(name).chain(self.0.iter().map(|c| c.cell(object, now))).collect()
    }
}

fn age() -> Option<Column> {
    Some(Column {
        header: json!({
            "name": "Age", "type": "date", "format": "", "priority": 0,
            "description": "Time since, or at which, the object was created.",
        }),
        kind: "date".to_owned(),
        path: JsonPath::parse(".metadata.creationTimestamp").ok()?,
    })
}

impl Column {
    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let Some(value) = self.path.first(object) else { return Value::Null };
        match (self.kind.as_str(), value) {
            // What Go's templates print of nothing.
            ("string", Value::Null) => "<no value>".into(),
            (_, Value::Null) => Value::Null,
            ("string", Value::String(text)) => text.clone().into(),
            ("string", Value::Number(number)) => go_number(number).into(),
            ("string", other) => go_json(other).into(),
            ("integer", Value::Number(number)) => {
                // A cast, as upstream's: the fraction is cut.
                number.as_i64().or_else(|| number.as_f64().map(|f| f as i64)).map_or(Value::Null, Value::from)
            }
            ("number", Value::Number(number)) => number.as_f64().map_or(Value::Null, Value::from),
            ("boolean", Value::Bool(is)) => (*is).into(),
            ("date", Value::String(text)) => match crate::time::parse(text) {
                Ok(_) => since(text, now).into(),
                Err(_) => "<invalid>".into(),
            },
            _ => Value::Null,
        }
    }
}

/// A value as Go's encoder writes it: nothing in it that a page would take for markup.
fn go_json(value: &Value) -> String {
    let mut out = String::new();
    for c in value.to_string().chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_through_a_list_must_not_blank_the_others() {
        let of = |name: &str, path: &str| json!({"name": name, "type": "string", "jsonPath": path});
        let columns = Columns::new(&[
            of("Host", ".spec.l[].h"),
            of("Every", ".spec.l[*].h"),
            of("Of", ".spec.l.h"),
            of("Third", ".spec.l[2].h"),
            of("Color", ".spec.color"),
            of("Null", ".spec.null"),
            of("Rule", ".spec.rule"),
        ]);
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let object = json!({"metadata": {"name": "x"}, "spec": {"l": [{"h": "one"}, {"h": "two"}], "color": "red",
            "null": null, "rule": ["a<b"]}});
        assert_eq!(
            json!(columns.cells(&object, now)),
            json!(["x", "one", "one", null, null, "red", "<no value>", "[\"a\\u003cb\"]"])
        );
        let empty = json!({"metadata": {"name": "y"}, "spec": {"l": [], "color": "blue"}});
        assert_eq!(
            json!(columns.cells(&empty, now)),
            json!(["y", null, null, null, null, "blue", null, null])
        );
    }

    #[test]
    fn a_column_that_does_not_parse_must_not_take_those_before_it() {
        let of = |name: &str, path: &str| json!({"name": name, "type": "string", "jsonPath": path});
        let columns = Columns::new(&[of("A", ".a"), of("B", ".b[x]"), of("C", ".c")]);
        let names: Vec<Value> =
            columns.headers().as_array().unwrap().iter().map(|header| header["name"].clone()).collect();
        assert_eq!(json!(names), json!(["Name", "A"]));
    }

    #[test]
    fn cells_are_of_their_columns_type() {
        let of = |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
        let columns = Columns::new(&[
            of("S", "string", ".s"),
            of("N", "string", ".n"),
            of("I", "integer", ".f"),
            of("F", "number", ".n"),
            of("B", "boolean", ".b"),
            of("D", "date", ".d"),
            of("X", "date", ".s"),
            of("L", "string", ".l"),
            of("None", "string", ".none"),
            of("Wrong", "integer", ".s"),
        ]);
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let object = json!({"metadata": {"name": "x"}, "s": "text", "n": 3, "f": 2.9, "b": true,
            "d": "2025-12-31T23:58:00Z", "l": [1, {"a": 2}]});
        assert_eq!(
            json!(columns.cells(&object, now)),
            json!(["x", "text", "3", 2, 3.0, true, "2m", "<invalid>", "[1,{\"a\":2}]", null, null])
        );
        assert_eq!(
            columns.headers()[1]["description"],
            "Custom resource definition column (in JSONPath format): .s"
        );
        let default = Columns::new(&[]);
        assert_eq!(default.headers()[1]["name"], "Age");
    }
}
