//! Literals of types with names.

use super::super::ast::Field;
use super::super::cost::{self, Node};
use super::super::patches;
use super::{Checker, Type};

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
            let given = match value.kind {
                Type::Optional(inner) if field.optional => *inner,
                given if field.optional && given != Type::Dyn => {
                    let wanted = Type::Optional(Box::new(given.clone()));
                    let text = format!("expected type '{wanted}' but found '{given}'");
                    self.wrong(field.value.at, text);
                    given
                }
                given => given,
            };
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
