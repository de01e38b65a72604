//! Whether an expression names only what there is, and gives what is asked of it.
//!
//! Not a type checker: values of the API are dynamic in most expressions. Undeclared names and unknown functions are found, and
//! results whose type is plain to see.

use super::error::{self, CompileError};
use kube_cel::cel::common::ast::{EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue};
use std::fmt;

/// What an expression may name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Declarations<'a> {
    /// Variables: `object`, `self`, `variables`.
    pub variables: &'a [&'a str],
    /// Names after `variables.`; any, where none.
    pub composed: Option<&'a [&'a str]>,
    /// Whether `Object{...}` and `JSONPatch{...}` are known.
    pub patch_types: bool,
}

/// The type of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultType {
    /// `bool`
    Bool,
    /// `string`
    String,
    /// `null_type`
    Null,
    /// `Object`
    Object,
    /// `list(JSONPatch)`
    Patches,
}

impl fmt::Display for ResultType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ResultType::Bool => "bool",
            ResultType::String => "string",
            ResultType::Null => "null_type",
            ResultType::Object => "Object",
            ResultType::Patches => "list(JSONPatch)",
        })
    }
}

/// Functions and methods of CEL and of the Kubernetes libraries.
const FUNCTIONS: &str = " @in @not_strictly_false size contains startsWith endsWith matches string bytes double int uint bool dyn \
    type duration timestamp getFullYear getMonth getDayOfYear getDayOfMonth getDate getDayOfWeek getHours getMinutes \
    getSeconds getMilliseconds optional.none optional.of optional.ofNonZeroValue value hasValue or orValue optMap \
    optFlatMap add asApproximateFloat asInteger charAt cidr compareTo containsCIDR containsIP distinct family find \
    findAll first flatten format format.byte format.date format.datetime format.labelValue format.named \
    format.qualifiedName format.uri format.uuid format.dns1123Label format.dns1123Subdomain format.dns1035Label \
    format.dns1123LabelPrefix format.dns1123SubdomainPrefix format.dns1035LabelPrefix getEscapedPath getHost \
    getHostname getPort getQuery getScheme indexOf ip ip.isCanonical isCIDR isGlobalUnicast isGreaterThan isIP isInteger \
    isLessThan isLinkLocalMulticast isLinkLocalUnicast isLoopback isQuantity isSemver isSorted isURL isUnspecified join \
    jsonpatch.escapeKey last lastIndexOf lists.range lowerAscii major masked math.abs math.bitAnd math.bitNot math.bitOr \
    math.bitShiftLeft math.bitShiftRight math.bitXor math.ceil math.floor math.greatest math.isFinite math.isInf \
    math.isNaN math.least math.round math.sign math.sqrt math.trunc max min minor patch prefixLength quantity replace \
    reverse semver sets.contains sets.equivalent sets.intersects sign slice sort split strings.quote sub substring sum \
    trim upperAscii url validate base64.encode base64.decode path group serviceAccount resource subresource namespace \
    name fieldSelector labelSelector check allowed reason errored error ";

fn is_function(name: &str) -> bool {
    name.starts_with(['_', '!', '-']) || FUNCTIONS.contains(&format!(" {name} "))
}

/// Names that stand for types.
const TYPES: [&str; 11] =
    ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "type", "null_type", "google"];

pub(super) fn check(
    source: &str,
    expr: &IdedExpr,
    declarations: &Declarations<'_>,
    wanted: &[ResultType],
) -> Result<(), CompileError> {
    let mut found = Found { source, declarations, scope: Vec::new(), errors: Vec::new() };
    found.visit(expr);
    if !found.errors.is_empty() {
        return Err(CompileError(format!("compilation failed: {}", found.errors.join("\n"))));
    }
    let Some(given) = result(expr) else { return Ok(()) };
    let fits = wanted.is_empty() || wanted.iter().any(|w| w.to_string() == given);
    match wanted {
        _ if fits => Ok(()),
        [one] => Err(CompileError(format!("must evaluate to {one} but got {given}"))),
        many => {
            let names: Vec<String> = many.iter().map(ToString::to_string).collect();
            Err(CompileError(format!("must evaluate to one of [{}] but got {given}", names.join(" "))))
        }
    }
}

struct Found<'s> {
    source: &'s str,
    declarations: &'s Declarations<'s>,
    scope: Vec<String>,
    errors: Vec<String>,
}

impl Found<'_> {
    fn undeclared(&mut self, name: &str) {
        let (line, column) = place(self.source, name);
        let message = format!("undeclared reference to '{name}' (in container '')");
        self.errors.push(error::at(self.source, line, column, &message));
    }

    fn knows(&self, name: &str) -> bool {
        name.starts_with('@')
            || self.scope.iter().any(|known| known == name)
            || self.declarations.variables.contains(&name)
            || TYPES.contains(&name)
    }

    fn visit(&mut self, expr: &IdedExpr) {
        match &expr.expr {
            Expr::Ident(name) => {
                if !self.knows(name) {
                    self.undeclared(name);
                }
            }
            Expr::Call(call) => {
                let qualified = call
                    .target
                    .as_deref()
                    .and_then(path)
                    .map(|target| format!("{target}.{}", call.func_name));
                let in_namespace = qualified.as_deref().is_some_and(is_function);
                if !in_namespace {
                    call.target.iter().for_each(|target| self.visit(target));
                    if !is_function(&call.func_name) {
                        self.undeclared(&call.func_name);
                    }
                }
                call.args.iter().for_each(|arg| self.visit(arg));
            }
            Expr::Comprehension(c) => {
                self.visit(&c.iter_range);
                self.visit(&c.accu_init);
                let depth = self.scope.len();
                self.scope.extend([c.iter_var.clone(), c.accu_var.clone()]);
                self.scope.extend(c.iter_var2.clone());
                for part in [&c.loop_cond, &c.loop_step, &c.result] {
                    self.visit(part);
                }
                self.scope.truncate(depth);
            }
            Expr::List(list) => list.elements.iter().for_each(|e| self.visit(e)),
            Expr::Map(map) => map.entries.iter().for_each(|e| self.entry(e)),
            Expr::Struct(literal) => {
                let name = literal.type_name.as_str();
                let known = name == "JSONPatch" || name == "Object" || name.starts_with("Object.");
                if !(self.declarations.patch_types && known) {
                    self.undeclared(name);
                }
                literal.entries.iter().for_each(|e| self.entry(e));
            }
            Expr::Select(select) => {
                if let (Expr::Ident(name), Some(composed)) =
                    (&select.operand.expr, self.declarations.composed)
                    && name == "variables"
                    && !composed.contains(&select.field.as_str())
                {
                    let (line, column) = place(self.source, &format!("variables.{}", select.field));
                    let message = format!("undefined field '{}'", select.field);
                    self.errors.push(error::at(self.source, line, column + "variables".len(), &message));
                }
                self.visit(&select.operand);
            }
            Expr::Literal(_) | Expr::Unspecified => {}
        }
    }

    fn entry(&mut self, entry: &IdedEntryExpr) {
        match &entry.expr {
            EntryExpr::StructField(field) => self.visit(&field.value),
            EntryExpr::MapEntry(entry) => {
                self.visit(&entry.key);
                self.visit(&entry.value);
            }
        }
    }
}

/// `a.b` of a chain of names.
fn path(expr: &IdedExpr) -> Option<String> {
    match &expr.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) => Some(format!("{}.{}", path(&select.operand)?, select.field)),
        _ => None,
    }
}

/// Line and column (from 1) where `name` stands as a word of its own.
pub(super) fn place(source: &str, name: &str) -> (usize, usize) {
    let part = |c: Option<char>| c.is_some_and(|c| c == '_' || c.is_alphanumeric());
    for (number, line) in source.lines().enumerate() {
        for (at, _) in line.match_indices(name) {
            let (before, after) = (line.get(..at), line.get(at + name.len()..));
            let alone =
                !part(before.and_then(|t| t.chars().last())) && !part(after.and_then(|t| t.chars().next()));
            if alone {
                return (number + 1, before.map_or(0, |t| t.chars().count()) + 1);
            }
        }
    }
    (1, 1)
}

/// The result's type, where it is plain.
fn result(expr: &IdedExpr) -> Option<&'static str> {
    const BOOLEAN: [&str; 15] = [
        "_&&_",
        "_||_",
        "!_",
        "_==_",
        "_!=_",
        "_<_",
        "_<=_",
        "_>_",
        "_>=_",
        "@in",
        "startsWith",
        "endsWith",
        "matches",
        "allowed",
        "isQuantity",
    ];
    match &expr.expr {
        Expr::Literal(literal) => Some(match literal {
            LiteralValue::Boolean(_) => "bool",
            LiteralValue::Bytes(_) => "bytes",
            LiteralValue::Double(_) => "double",
            LiteralValue::Int(_) => "int",
            LiteralValue::Null => "null_type",
            LiteralValue::String(_) => "string",
            LiteralValue::UInt(_) => "uint",
        }),
        Expr::Call(call) => match call.func_name.as_str() {
            name if BOOLEAN.contains(&name) => Some("bool"),
            "size" => Some("int"),
            "string" | "format" | "lowerAscii" | "upperAscii" => Some("string"),
            "_?_:_" => {
                let (then, otherwise) = (result(call.args.get(1)?)?, result(call.args.get(2)?)?);
                (then == otherwise).then_some(then)
            }
            "_+_" => {
                let (left, right) = (result(call.args.first()?), result(call.args.get(1)?));
                [left, right].into_iter().flatten().find(|t| matches!(*t, "string" | "int" | "double"))
            }
            _ => None,
        },
        Expr::Struct(literal) if literal.type_name == "Object" => Some("Object"),
        Expr::Struct(literal) if literal.type_name == "JSONPatch" => Some("JSONPatch"),
        Expr::List(list) => {
            let patches = |e: &IdedExpr| matches!(&e.expr, Expr::Struct(s) if s.type_name == "JSONPatch");
            let all = !list.elements.is_empty() && list.elements.iter().all(patches);
            if all { Some("list(JSONPatch)") } else { None }
        }
        _ => None,
    }
}
