//! What an expression does wrong with an object of a known kind: fields it has not, operators its fields' types have not.
//! Upstream: `policy/validating/typechecking.go`, which asks cel-go's checker.

use super::check::place;
use super::error;
use super::rewrite;
use crate::schema::{Schema, Shape, Special, TypeId};
use kube_cel::cel::common::ast::{Expr, IdedExpr, LiteralValue};
use std::fmt;

#[derive(Clone, Debug, PartialEq)]
enum Type {
    /// Not known here.
    Dyn,
    Bool,
    Int,
    Double,
    String,
    Null,
    Struct(TypeId),
    List(Box<Type>),
    Map(Box<Type>),
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn | Type::Struct(_) => f.write_str("dyn"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Double => f.write_str("double"),
            Type::String => f.write_str("string"),
            Type::Null => f.write_str("null"),
            Type::List(item) => write!(f, "list({item})"),
            Type::Map(value) => write!(f, "map(string, {value})"),
        }
    }
}

impl Type {
    fn of(shape: &Shape) -> Self {
        match shape {
            Shape::Bool => Type::Bool,
            Shape::Int32 | Shape::Int64 => Type::Int,
            Shape::Float64 => Type::Double,
            Shape::String | Shape::Special(Special::Quantity) => Type::String,
            Shape::Struct(id) => Type::Struct(*id),
            Shape::List(item) => Type::List(Box::new(Type::of(item))),
            Shape::Map(value) => Type::Map(Box::new(Type::of(value))),
            _ => Type::Dyn,
        }
    }

    fn is_scalar(&self) -> bool {
        matches!(self, Type::Bool | Type::Int | Type::Double | Type::String | Type::Null)
    }
}

/// The errors of an expression in which `object` and `oldObject` are of type `id`, as cel-go shows them.
pub(super) fn errors(source: &str, expr: &IdedExpr, schema: &Schema, id: TypeId) -> Vec<String> {
    let mut found = Inference { source, schema, id, scope: Vec::new(), errors: Vec::new() };
    found.infer(expr);
    found.errors
}

struct Inference<'s> {
    source: &'s str,
    schema: &'s Schema,
    id: TypeId,
    scope: Vec<(String, Type)>,
    errors: Vec<String>,
}

impl Inference<'_> {
    fn infer(&mut self, expr: &IdedExpr) -> Type {
        match &expr.expr {
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(_) => Type::Bool,
                LiteralValue::Int(_) => Type::Int,
                LiteralValue::Double(_) => Type::Double,
                LiteralValue::String(_) => Type::String,
                LiteralValue::Null => Type::Null,
                LiteralValue::Bytes(_) | LiteralValue::UInt(_) => Type::Dyn,
            },
            Expr::Ident(name) => match self.scope.iter().rev().find(|(known, _)| known == name) {
                Some((_, known)) => known.clone(),
                None if name == "object" || name == "oldObject" => Type::Struct(self.id),
                None => Type::Dyn,
            },
            Expr::Select(select) => match self.infer(&select.operand) {
                Type::Struct(id) => match self.schema.field(id, &select.field) {
                    Some(field) if !select.test => Type::of(&field.shape),
                    Some(_) => Type::Bool,
                    None => {
                        // The dot before it, as cel-go points at.
                        let (line, column) = place(self.source, &select.field);
                        let message = format!("undefined field '{}'", select.field);
                        self.errors.push(error::at(self.source, line, column.max(2) - 1, &message));
                        Type::Dyn
                    }
                },
                Type::Map(value) if !select.test => *value,
                _ if select.test => Type::Bool,
                _ => Type::Dyn,
            },
            Expr::Call(call) => {
                call.target.iter().for_each(|target| drop(self.infer(target)));
                let arguments: Vec<Type> = call.args.iter().map(|a| self.infer(a)).collect();
                self.call(&call.func_name, &arguments)
            }
            Expr::Comprehension(c) => {
                let item = match self.infer(&c.iter_range) {
                    Type::List(item) => *item,
                    Type::Map(_) => Type::String,
                    _ => Type::Dyn,
                };
                self.infer(&c.accu_init);
                let depth = self.scope.len();
                self.scope.push((c.iter_var.clone(), item));
                self.scope.push((c.accu_var.clone(), Type::Dyn));
                for part in [&c.loop_cond, &c.loop_step] {
                    self.infer(part);
                }
                let result = self.infer(&c.result);
                self.scope.truncate(depth);
                result
            }
            _ => {
                rewrite::parts(expr).into_iter().for_each(|part| drop(self.infer(part)));
                Type::Dyn
            }
        }
    }

    fn call(&mut self, name: &str, arguments: &[Type]) -> Type {
        match (name, arguments) {
            (
                "_<_" | "_<=_" | "_>_" | "_>=_" | "_==_" | "_!=_" | "_+_" | "_-_" | "_*_" | "_/_",
                [left, right],
            ) => {
                let numbers = |t: &Type| matches!(t, Type::Int | Type::Double);
                let compares = name.contains(['<', '>']);
                let null = matches!(left, Type::Null) || matches!(right, Type::Null);
                let fits = !(left.is_scalar() && right.is_scalar())
                    || left == right
                    || (compares && numbers(left) && numbers(right))
                    || (null && matches!(name, "_==_" | "_!=_"));
                if !fits {
                    let operator = name.trim_matches('_');
                    let (line, column) = self.operator(operator);
                    let message =
                        format!("found no matching overload for '{name}' applied to '({left}, {right})'");
                    self.errors.push(error::at(self.source, line, column, &message));
                }
                match name {
                    "_+_" | "_-_" | "_*_" | "_/_" if left == right && fits => left.clone(),
                    "_+_" | "_-_" | "_*_" | "_/_" => Type::Dyn,
                    _ => Type::Bool,
                }
            }
            ("_[_]", [Type::List(item), _]) => (**item).clone(),
            ("_[_]", [Type::Map(value), _]) => (**value).clone(),
            ("_&&_" | "_||_" | "!_" | "@in" | "startsWith" | "endsWith" | "matches" | "contains", _) => {
                Type::Bool
            }
            ("size", _) => Type::Int,
            ("string", _) => Type::String,
            ("_?_:_", [_, then, otherwise]) if then == otherwise => then.clone(),
            _ => Type::Dyn,
        }
    }

    /// Where an operator stands.
    fn operator(&self, operator: &str) -> (usize, usize) {
        for (number, line) in self.source.lines().enumerate() {
            if let Some(at) = line.find(operator) {
                return (number + 1, line.get(..at).map_or(0, |t| t.chars().count()) + 1);
            }
        }
        (1, 1)
    }
}
