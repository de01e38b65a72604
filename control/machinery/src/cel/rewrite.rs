//! What the interpreter needs of a tree: object literals as maps, optional selection that is really optional, and a charge
//! for every turn of a comprehension.

use kube_cel::cel::common::ast::{
    CallExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue, MapEntryExpr, MapExpr, operators,
};

/// The function that charges a cost to the budget. No expression can name it.
pub(super) const CHARGE: &str = "@charge";
/// The key under which the map that stands for a literal keeps its type's name. No field is called that.
pub(super) const TYPE_KEY: &str = "@type";

fn value_of(entry: &IdedEntryExpr) -> &IdedExpr {
    match &entry.expr {
        EntryExpr::StructField(field) => &field.value,
        EntryExpr::MapEntry(entry) => &entry.value,
    }
}

/// The nodes right below a literal of a list, map or object.
pub(super) fn parts(expr: &IdedExpr) -> Vec<&IdedExpr> {
    match &expr.expr {
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().map(value_of).collect(),
        Expr::Struct(literal) => literal.entries.iter().map(value_of).collect(),
        _ => Vec::new(),
    }
}

/// Calls `visit` on every node below `expr`, itself included, parents first.
fn walk(expr: &IdedExpr, visit: &mut dyn FnMut(&IdedExpr)) {
    visit(expr);
    match &expr.expr {
        Expr::Call(call) => {
            call.target.iter().for_each(|target| walk(target, visit));
            call.args.iter().for_each(|arg| walk(arg, visit));
        }
        Expr::Comprehension(c) => {
            for part in [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result] {
                walk(part, visit);
            }
        }
        Expr::List(list) => list.elements.iter().for_each(|e| walk(e, visit)),
        Expr::Map(map) => map.entries.iter().for_each(|e| walk_entry(e, visit)),
        Expr::Struct(literal) => literal.entries.iter().for_each(|e| walk_entry(e, visit)),
        Expr::Select(select) => walk(&select.operand, visit),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

fn walk_entry(entry: &IdedEntryExpr, visit: &mut dyn FnMut(&IdedExpr)) {
    match &entry.expr {
        EntryExpr::StructField(field) => walk(&field.value, visit),
        EntryExpr::MapEntry(entry) => {
            walk(&entry.key, visit);
            walk(&entry.value, visit);
        }
    }
}

/// The names after `variables.`, each once.
pub(super) fn composed(expr: &IdedExpr) -> Vec<String> {
    let mut names = Vec::new();
    walk(expr, &mut |e| {
        if let Expr::Select(select) = &e.expr
            && matches!(&select.operand.expr, Expr::Ident(name) if name == "variables")
            && !names.contains(&select.field)
        {
            names.push(select.field.clone());
        }
    });
    names
}

fn string(text: &str) -> Expr {
    Expr::Literal(LiteralValue::String(text.to_owned().into()))
}

fn call(name: &str, args: Vec<IdedExpr>) -> Expr {
    Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args })
}

fn size(expr: &IdedExpr) -> i64 {
    let mut count = 0;
    walk(expr, &mut |_| count += 1);
    count
}

/// The tree as it is evaluated.
pub(super) fn prepare(mut expr: IdedExpr) -> IdedExpr {
    expr.expr = match std::mem::take(&mut expr.expr) {
        Expr::Call(mut c) => {
            c.target = c.target.map(|target| Box::new(prepare(*target)));
            c.args = c.args.into_iter().map(prepare).collect();
            // The interpreter fails where the field selected is missing; its optional index does not.
            if c.func_name == operators::OPT_SELECT {
                c.func_name = operators::OPT_INDEX.to_owned();
            }
            Expr::Call(c)
        }
        Expr::Comprehension(mut c) => {
            let cost = size(&c.loop_step) + size(&c.loop_cond);
            c.iter_range = prepare(c.iter_range);
            c.accu_init = prepare(c.accu_init);
            c.loop_step = prepare(c.loop_step);
            c.result = prepare(c.result);
            let cost = IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::Int(cost.into())) };
            let charge = IdedExpr { id: 0, expr: call(CHARGE, vec![cost]) };
            let condition = prepare(c.loop_cond);
            c.loop_cond = IdedExpr { id: 0, expr: call(operators::LOGICAL_AND, vec![charge, condition]) };
            Expr::Comprehension(c)
        }
        Expr::List(mut list) => {
            list.elements = list.elements.into_iter().map(prepare).collect();
            Expr::List(list)
        }
        Expr::Map(map) => {
            Expr::Map(MapExpr { entries: map.entries.into_iter().map(prepare_entry).collect() })
        }
        Expr::Struct(literal) => {
            let named = MapEntryExpr {
                key: IdedExpr { id: 0, expr: string(TYPE_KEY) },
                value: IdedExpr { id: 0, expr: string(&literal.type_name) },
                optional: false,
            };
            let mut entries = vec![IdedEntryExpr { id: 0, expr: EntryExpr::MapEntry(named) }];
            entries.extend(literal.entries.into_iter().map(prepare_entry));
            Expr::Map(MapExpr { entries })
        }
        Expr::Select(mut select) => {
            select.operand = Box::new(prepare(*select.operand));
            if is_optional(&select.operand) {
                // What is selected of an optional is optional, too.
                let field = IdedExpr { id: 0, expr: string(&select.field) };
                let optional = call(operators::OPT_INDEX, vec![*select.operand, field]);
                if select.test {
                    let target = Some(Box::new(IdedExpr { id: 0, expr: optional }));
                    Expr::Call(CallExpr { func_name: "hasValue".to_owned(), target, args: Vec::new() })
                } else {
                    optional
                }
            } else {
                Expr::Select(select)
            }
        }
        leaf => leaf,
    };
    expr
}

/// Whether a prepared expression gives an optional, as far as its form tells.
fn is_optional(expr: &IdedExpr) -> bool {
    let Expr::Call(c) = &expr.expr else { return false };
    c.func_name == operators::OPT_INDEX
        || (c.func_name == operators::INDEX && c.args.first().is_some_and(is_optional))
}

fn prepare_entry(entry: IdedEntryExpr) -> IdedEntryExpr {
    let expr = match entry.expr {
        EntryExpr::StructField(field) => MapEntryExpr {
            key: IdedExpr { id: entry.id, expr: string(&field.field) },
            value: prepare(field.value),
            optional: field.optional,
        },
        EntryExpr::MapEntry(e) => {
            MapEntryExpr { key: prepare(e.key), value: prepare(e.value), optional: e.optional }
        }
    };
    IdedEntryExpr { id: entry.id, expr: EntryExpr::MapEntry(expr) }
}
