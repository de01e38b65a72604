//! Constraints of the field table: required, enumerated, bounded, of a format, never changed.

use serde_json::Value;

use super::{checks::NOT_NEGATIVE, cursor::Cursor};
use crate::{
    names,
    schema::{Constraints, builtin},
};

impl<'v> Cursor<'v> {
    /// Holds these fields to what the table says of them, in this order.
    pub(super) fn plain(self, fields: &[&'v str]) {
        for field in fields {
            self.field(field).is_plain();
        }
    }

    /// Holds a field, or the items of a list or map, to what the table says of it. False where it is something else.
    pub(super) fn is_plain(self) -> bool {
        let Some(constraints) = self.constraints() else { return true };
        // A pointer may be left out, but not be empty.
        if constraints.filled && self.is_empty() && (self.is_set() || !self.is_pointer()) {
            self.missing("");
            return false;
        }
        let before = self.errors();
        match self.value {
            Value::Array(_) => self.items().for_each(|item| item.hold(constraints)),
            Value::Object(_) if self.struct_type().is_none() => {
                self.entries().for_each(|(_, entry)| entry.hold(constraints));
            }
            _ => self.hold(constraints),
        }
        self.errors() == before
    }

    /// Something must be there, and be what the table says of it.
    pub(super) fn required_plain(self) {
        if self.is_set() {
            self.is_plain();
        } else {
            self.missing("");
        }
    }

    fn hold(self, constraints: &Constraints) {
        let judged = !self.is_empty() || (self.is_pointer() && self.is_set());
        if judged || constraints.listed {
            let mut values = constraints.values().peekable();
            if values.peek().is_some() && !values.any(|value| value == self.str()) {
                self.unsupported(&constraints.values().collect::<Vec<_>>());
            }
        }
        if let Some(format) = constraints.format.filter(|_| judged) {
            self.format(format);
        }
        if let Some(bytes) = constraints.bytes.filter(|bytes| self.str().len() > *bytes) {
            self.too_long(bytes);
        }
        match (constraints.min, constraints.max) {
            (None, None) => {}
            (Some(0), None) => self.at_least(0, NOT_NEGATIVE),
            (low, None) => {
                let low = low.unwrap_or_default();
                self.at_least(low, &format!("must be greater than or equal to {low}"));
            }
            (low, Some(high)) => self.between(low.unwrap_or_default(), high),
        }
    }

    fn at_least(self, low: i64, detail: &str) {
        if self.number().is_some_and(|number| number < low) {
            self.invalid(detail);
        }
    }

    pub(super) fn between(self, low: i64, high: i64) {
        if self.number().is_some_and(|number| !(low..=high).contains(&number)) {
            self.invalid(names::range_error(low, high));
        }
    }

    /// Holds every field of a structure to what the table says of it, in the table's order.
    pub(super) fn plain_fields(self) {
        let Some(id) = self.struct_type() else { return };
        for field in builtin().properties_in_order(id) {
            self.field(field.name).is_plain();
        }
    }

    /// Whether a value is one its type enumerates.
    pub(super) fn is_enumerated(self) -> bool {
        self.constraints().is_some_and(|constraints| constraints.values().any(|value| value == self.str()))
    }

    /// The values its type enumerates.
    pub(super) fn enumeration(self) -> Vec<&'static str> {
        self.constraints().map(|constraints| constraints.values().collect()).unwrap_or_default()
    }

    /// Refuses what is not one of the values of its type, and nothing as well.
    pub(super) fn enumerated(self) {
        self.supported(&self.enumeration());
    }

    /// Refuses changes of what the table calls fixed, here and in the structures below; not in lists, whose items have no former selves.
    pub(super) fn fixed(self) {
        let Some(id) = self.struct_type() else { return };
        if !builtin().get(id).holds_fixed() || !self.changed() {
            return;
        }
        let rank = |there: &Cursor<'_>| there.constraints().and_then(|constraints| constraints.fixed);
        let mut fields: Vec<Cursor<'_>> =
            builtin().properties_in_order(id).map(|field| self.field(field.name)).collect();
        fields.sort_by_key(|there| rank(there).unwrap_or_default());
        for there in fields {
            if rank(&there).is_some() {
                there.immutable();
            } else {
                there.fixed();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cursor::look;
    use crate::schema::Schema;
    use serde_json::{Value, json};

    /// What is wrong with a value of the only field of a table.
    fn held(line: &'static str, value: &Value) -> Vec<String> {
        let table: &'static Schema = Box::leak(Box::new(Schema::of_table(line)));
        let field = table.field(table.named("t/v1", "T").unwrap(), "f").unwrap();
        let errors = look(None, value, None, |cursor| {
            cursor.of_field(field).is_plain();
        });
        errors.iter().map(|error| error.to_string().chars().take(38).collect()).collect()
    }

    #[test]
    fn a_constraint_of_a_map_must_not_pass_over_its_values() {
        const TABLE: &str =
            "package t t/v1\nalias E = string (A | B)\ntype T\n  metadata 1 string\n  f 2 map[string]E\n";
        assert_eq!(held(TABLE, &json!({"k": "A"})), Vec::<String>::new());
        assert_eq!(held(TABLE, &json!({"k": "C"})), ["[k]: Unsupported value: \"C\": supported"]);
        const BOUND: &str =
            "package t t/v1\ntype T\n  metadata 1 string\n  f 2 map[string]int32 min=1 max=9\n";
        assert_eq!(held(BOUND, &json!({"a": 1, "b": 10})).len(), 1);
        const LIST: &str = "package t t/v1\ntype T\n  metadata 1 string\n  f 2 []int32 min=1 max=9\n";
        assert_eq!(held(LIST, &json!([0, 1, 9])).len(), 1);
    }
}
