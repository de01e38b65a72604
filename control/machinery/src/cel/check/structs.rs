//! Literals of types with names.

use super::super::ast::Field;
use super::super::cost::{self, Node};
use super::super::patches;
use super::Checker;

impl Checker {
    pub(super) fn literal_of(&mut self, at: usize, name: &str, fields: &[Field]) -> Node {
        let Some(kind) = patches::resolve(name).filter(|_| self.patches) else {
            let text = format!("undeclared reference to '{name}' (in container '')");
            return Node::new(self.wrong(at, text), cost::OBJECT);
        };
        let mut cost = cost::OBJECT;
        for field in fields {
            let value = self.visit(&field.value);
            cost = cost.saturating_add(value.cost);
            let wanted = self.field(field.at, &kind, &field.name);
            let given = self.unwrapped(field.value.at, value.kind, field.optional);
            if !wanted.fits(&given) {
                let name = &field.name;
                let text =
                    format!("expected type of field '{name}' is '{wanted}' but provided type is '{given}'");
                self.wrong(field.at, text);
            }
        }
        Node::new(kind, cost)
    }
}
