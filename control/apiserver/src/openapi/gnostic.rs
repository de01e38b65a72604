//! OpenAPI 2 as protobuf: `openapi.v2.Document` of gnostic's `OpenAPIv2.proto`, which kubectl asks for since parsing it is
//! ten times cheaper than JSON.

use serde_json::Value;

/// Writes a document that [`super::swagger`] made.
#[must_use]
pub fn encode(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    out.message(2, |info| {
        info.text(1, &document["info"]["title"]);
        info.text(2, &document["info"]["version"]);
    });
    out.message(8, |paths| {
        for (path, item) in entries(&document["paths"]) {
            paths.named(2, path, |m| path_item(m, item));
        }
    });
    out.message(9, |definitions| {
        for (name, definition) in entries(&document["definitions"]) {
            definitions.named(1, name, |m| schema(m, definition));
        }
    });
    if let Some(shared) = document.get("parameters") {
        out.message(10, |parameters| {
            for (name, of) in entries(shared) {
                parameters.named(1, name, |m| parameter(m, of));
            }
        });
    }
    for requirement in items(&document["security"]) {
        out.message(12, |m| {
            for (name, _) in entries(requirement) {
                m.named(1, name, |_| {});
            }
        });
    }
    out.message(13, |definitions| {
        for (name, definition) in entries(&document["securityDefinitions"]) {
            definitions.named(1, name, |item| {
                item.message(2, |key| {
                    key.text(1, &definition["type"]);
                    key.text(2, &definition["name"]);
                    key.text(3, &definition["in"]);
                    key.text(4, &definition["description"]);
                });
            });
        }
    });
    out.0
}

fn path_item(out: &mut Message, item: &Value) {
    for (number, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(of) = item.get(method) {
            out.message(number, |m| operation(m, of));
        }
    }
    for parameter in items(&item["parameters"]) {
        out.message(9, |m| parameters_item(m, parameter));
    }
}

fn operation(out: &mut Message, o: &Value) {
    out.text(5, &o["operationId"]);
    out.texts(6, &o["produces"]);
    out.texts(7, &o["consumes"]);
    for parameter in items(&o["parameters"]) {
        out.message(8, |m| parameters_item(m, parameter));
    }
    out.message(9, |responses| {
        for (code, response) in entries(&o["responses"]) {
            responses.named(1, code, |value| {
                value.message(1, |r| {
                    r.text(1, &response["description"]);
                    if let Some(of) = response.get("schema") {
                        r.message(2, |item| item.message(1, |m| schema(m, of)));
                    }
                });
            });
        }
    });
    out.texts(10, &o["schemes"]);
    extensions(out, 13, o);
}

/// ParametersItem { Parameter | JsonReference }
fn parameters_item(out: &mut Message, p: &Value) {
    match p.get("$ref") {
        Some(reference) => out.message(2, |m| m.text(1, reference)),
        None => out.message(1, |m| parameter(m, p)),
    }
}

/// Parameter { BodyParameter | NonBodyParameter { query | path } }
fn parameter(out: &mut Message, p: &Value) {
    match p["in"].as_str() {
        Some("body") => out.message(1, |body| {
            body.text(2, &p["name"]);
            body.text(3, &p["in"]);
            body.flag(4, &p["required"]);
            body.message(5, |m| schema(m, &p["schema"]));
        }),
        Some(place) => out.message(2, |plain| {
            // Forms and queries have one field more before their type.
            let (number, more) = match place {
                "header" => (1, 0),
                "formData" => (2, 1),
                "query" => (3, 1),
                _ => (4, 0),
            };
            plain.message(number, |m| {
                m.flag(1, &p["required"]);
                m.text(2, &p["in"]);
                m.text(4, &p["name"]);
                m.text(5 + more, &p["type"]);
                m.flag(19 + more, &p["uniqueItems"]);
            });
        }),
        None => {}
    }
}

fn schema(out: &mut Message, s: &Value) {
    out.text(1, &s["$ref"]);
    out.text(2, &s["format"]);
    out.text(3, &s["title"]);
    out.text(4, &s["description"]);
    if let Some(default) = s.get("default") {
        out.message(5, |m| any(m, default));
    }
    out.text(13, &s["pattern"]);
    out.texts(19, &s["required"]);
    for value in items(&s["enum"]) {
        out.message(20, |m| any(m, value));
    }
    match s.get("additionalProperties") {
        Some(Value::Bool(is)) => out.message(21, |m| m.flag_even_if_false(2, *is)),
        Some(of) => out.message(21, |m| m.message(1, |m| schema(m, of))),
        None => {}
    }
    if s.get("type").is_some() {
        out.message(22, |m| m.text(1, &s["type"]));
    }
    if let Some(of) = s.get("items") {
        out.message(23, |m| m.message(1, |m| schema(m, of)));
    }
    for part in items(&s["allOf"]) {
        out.message(24, |m| schema(m, part));
    }
    if let Some(properties) = s.get("properties") {
        out.message(25, |m| {
            for (name, of) in entries(properties) {
                m.named(1, name, |m| schema(m, of));
            }
        });
    }
    extensions(out, 31, s);
}

/// `x-...` fields as NamedAny.
fn extensions(out: &mut Message, number: u32, of: &Value) {
    for (name, value) in entries(of).filter(|(name, _)| name.starts_with("x-")) {
        out.named(number, name, |m| any(m, value));
    }
}

/// Any { yaml }: JSON is YAML.
fn any(out: &mut Message, value: &Value) {
    out.bytes(2, format!("{value}\n").as_bytes());
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            // Seven bits at a time, the cast takes the lowest.
            self.0.push((n as u8) | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, number: u32, value: &Value) {
        if let Some(text) = value.as_str().filter(|t| !t.is_empty()) {
            self.bytes(number, text.as_bytes());
        }
    }

    fn texts(&mut self, number: u32, value: &Value) {
        items(value).iter().for_each(|item| self.text(number, item));
    }

    fn flag(&mut self, number: u32, value: &Value) {
        if value.as_bool() == Some(true) {
            self.flag_even_if_false(number, true);
        }
    }

    fn flag_even_if_false(&mut self, number: u32, value: bool) {
        self.varint(u64::from(number) << 3);
        self.varint(u64::from(value));
    }

    fn message(&mut self, number: u32, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.bytes(number, &inner.0);
    }

    /// An entry of a map: { name = 1, value = 2 }.
    fn named(&mut self, number: u32, name: &str, fill: impl FnOnce(&mut Message)) {
        self.message(number, |entry| {
            entry.bytes(1, name.as_bytes());
            entry.message(2, fill);
        });
    }
}
