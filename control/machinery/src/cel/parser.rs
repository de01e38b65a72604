//! Text to expression: the grammar of CEL, its macros expanded.

use super::ast::{Expr, Field, Fold, Kind, Macro};
use super::lexer::{Token, lex};
use super::names::dotted;
use super::value::Value;
use super::words::RESERVED;
use super::{Problem, Problems};

/// How deep expressions may nest.
const DEEPEST: usize = 100;

/// Parses an expression; `binds` says whether `cel.bind` is a macro.
///
/// # Errors
/// With where and why it is none.
pub(crate) fn parse(text: &str, binds: bool) -> Result<Expr, Problems> {
    let tokens = lex(text).map_err(|problem| Problems::new(text, vec![problem]))?;
    let mut parser = Parser { tokens, at: 0, depth: 0, binds };
    let parsed = parser.expression().and_then(|expr| match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.unexpected("<EOF>")),
    });
    parsed.map_err(|problem| Problems::new(text, vec![problem]))
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
    /// `cel.bind` is a macro.
    binds: bool,
}

type Parsed = Result<Expr, Problem>;

fn call(at: usize, function: &str, args: Vec<Expr>) -> Expr {
    Expr { at, kind: Kind::Call { target: None, function: function.to_owned(), args } }
}

/// Binary operators by how tightly they bind.
const BINARY: [&[(&str, &str)]; 5] = [
    &[("||", "_||_")],
    &[("&&", "_&&_")],
    &[
        ("==", "_==_"),
        ("!=", "_!=_"),
        ("<=", "_<=_"),
        (">=", "_>=_"),
        ("<", "_<_"),
        (">", "_>_"),
        ("in", "@in"),
    ],
    &[("+", "_+_"), ("-", "_-_")],
    &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")],
];

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(_, token)| token)
    }

    fn place(&self) -> usize {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(0, |(at, _)| *at)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn takes(&mut self, symbol: &str) -> bool {
        let is = matches!(self.peek(), Token::Symbol(s) if *s == symbol);
        self.at += usize::from(is);
        is
    }

    fn expect(&mut self, symbol: &'static str) -> Result<(), Problem> {
        if self.takes(symbol) { Ok(()) } else { Err(self.unexpected(&format!("'{symbol}'"))) }
    }

    fn unexpected(&self, wanted: &str) -> Problem {
        let found = match self.peek() {
            Token::End => "<EOF>".to_owned(),
            Token::Symbol(s) => (*s).to_owned(),
            Token::Ident(name) => name.clone(),
            Token::Literal(value) => value.text(),
        };
        let text = format!("Syntax error: mismatched input '{found}' expecting {wanted}");
        Problem { at: self.place(), text }
    }

    fn expression(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > DEEPEST {
            let text = format!("expression recursion limit exceeded: {DEEPEST}");
            return Err(Problem { at: self.place(), text });
        }
        let condition = self.binary(0)?;
        let at = self.place();
        let out = if self.takes("?") {
            let yes = self.binary(0)?;
            self.expect(":")?;
            let no = self.expression()?;
            call(at, "_?_:_", vec![condition, yes, no])
        } else {
            condition
        };
        self.depth -= 1;
        Ok(out)
    }

    fn binary(&mut self, level: usize) -> Parsed {
        let Some(operators) = BINARY.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        loop {
            let at = self.place();
            let found = operators.iter().find(|(symbol, _)| match self.peek() {
                Token::Symbol(s) => s == symbol,
                Token::Ident(name) => *symbol == "in" && name == "in",
                _ => false,
            });
            let Some((_, function)) = found else { return Ok(left) };
            self.at += 1;
            let right = self.binary(level + 1)?;
            left = call(at, function, vec![left, right]);
        }
    }

    fn unary(&mut self) -> Parsed {
        let at = self.place();
        let mut operators = Vec::new();
        loop {
            if self.takes("!") {
                operators.push("!_");
            } else if self.takes("-") {
                // A literal's own sign: the smallest integer has no positive counterpart.
                if let Token::Literal(Value::Uint(n)) = self.peek()
                    && *n == 1 << 63
                    && self.tokens.get(self.at).is_some_and(|(_, t)| matches!(t, Token::Literal(_)))
                {
                    self.at += 1;
                    return self.members(Expr { at, kind: Kind::Literal(Value::Int(i64::MIN)) });
                }
                operators.push("-_");
            } else {
                break;
            }
            if operators.len() > DEEPEST {
                return Err(Problem { at, text: format!("expression recursion limit exceeded: {DEEPEST}") });
            }
        }
        let Some(operator) = operators.first().copied() else { return self.member() };
        if operators.iter().any(|other| *other != operator) {
            return Err(self.unexpected("an expression"));
        }
        let literal = matches!(self.peek(), Token::Literal(_));
        let out = self.member()?;
        // As cel-go reads them, two are none.
        if operators.len() % 2 == 0 {
            return Ok(out);
        }
        Ok(match (operator, out.kind) {
            ("-_", Kind::Literal(Value::Int(n))) if literal => {
                Expr { at, kind: Kind::Literal(Value::Int(n.wrapping_neg())) }
            }
            ("-_", Kind::Literal(Value::Double(n))) if literal => {
                Expr { at, kind: Kind::Literal(Value::Double(-n)) }
            }
            (operator, kind) => call(at, operator, vec![Expr { at: out.at, kind }]),
        })
    }

    fn member(&mut self) -> Parsed {
        let primary = self.primary()?;
        self.members(primary)
    }

    fn members(&mut self, mut out: Expr) -> Parsed {
        loop {
            let at = self.place();
            if self.takes(".") {
                let optional = self.takes("?");
                let name = self.field_name()?;
                let open = self.place();
                out = if !optional && self.takes("(") {
                    let args = self.list(")")?;
                    self.method(open, out, name, args)?
                } else {
                    Expr { at, kind: Kind::Select { operand: Box::new(out), field: name, optional } }
                };
            } else if self.takes("[") {
                let optional = self.takes("?");
                let index = self.expression()?;
                self.expect("]")?;
                out = Expr {
                    at,
                    kind: Kind::Index { operand: Box::new(out), index: Box::new(index), optional },
                };
            } else if let (Token::Symbol("{"), Some(name)) = (self.peek(), dotted(&out)) {
                self.at += 1;
                out = Expr { at, kind: Kind::Struct { name: name.into(), fields: self.fields()? } };
            } else {
                return Ok(out);
            }
        }
    }

    /// Fields may be called like reserved words, all but those that are tokens: `in`, `true`, `false`, `null`.
    fn field_name(&mut self) -> Result<String, Problem> {
        match self.next() {
            Token::Ident(name) if name != "in" => Ok(name),
            _ => {
                self.at -= 1;
                Err(self.unexpected("IDENTIFIER"))
            }
        }
    }

    fn list(&mut self, end: &'static str) -> Result<Vec<Expr>, Problem> {
        let mut out = Vec::new();
        if self.takes(end) {
            return Ok(out);
        }
        loop {
            out.push(self.expression()?);
            if !self.takes(",") {
                self.expect(end)?;
                return Ok(out);
            }
        }
    }

    fn fields(&mut self) -> Result<Vec<Field>, Problem> {
        let mut out = Vec::new();
        while !self.takes("}") {
            let optional = self.takes("?");
            let name = self.field_name()?;
            let at = self.place();
            self.expect(":")?;
            out.push(Field { at, name, value: self.expression()?, optional });
            if !self.takes(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(out)
    }

    fn primary(&mut self) -> Parsed {
        let at = self.place();
        self.takes(".");
        match self.next() {
            Token::Literal(Value::Uint(n)) if n == 1 << 63 => {
                Err(Problem { at, text: "invalid int literal".to_owned() })
            }
            Token::Literal(value) => Ok(Expr { at, kind: Kind::Literal(value) }),
            Token::Ident(name) if name == "in" => Err(Problem {
                at,
                text: "Syntax error: extraneous input 'in' expecting an expression".to_owned(),
            }),
            Token::Ident(name) if RESERVED.contains(&name.as_str()) => {
                Err(Problem { at, text: format!("reserved identifier: {name}") })
            }
            Token::Ident(name) => {
                let open = self.place();
                if self.takes("(") {
                    let args = self.list(")")?;
                    return function(open, name, args);
                }
                Ok(Expr { at, kind: Kind::Ident(name) })
            }
            Token::Symbol("(") => {
                let out = self.expression()?;
                self.expect(")")?;
                Ok(out)
            }
            Token::Symbol("[") => {
                let mut items = Vec::new();
                while !self.takes("]") {
                    let optional = self.takes("?");
                    items.push((self.expression()?, optional));
                    if !self.takes(",") {
                        self.expect("]")?;
                        break;
                    }
                }
                Ok(Expr { at, kind: Kind::List(items) })
            }
            Token::Symbol("{") => {
                let mut entries = Vec::new();
                while !self.takes("}") {
                    let optional = self.takes("?");
                    let key = self.expression()?;
                    self.expect(":")?;
                    entries.push((key, self.expression()?, optional));
                    if !self.takes(",") {
                        self.expect("}")?;
                        break;
                    }
                }
                Ok(Expr { at, kind: Kind::Map(entries) })
            }
            _ => {
                self.at -= 1;
                let mut problem = self.unexpected("an expression");
                problem.text = problem.text.replace("mismatched input", "extraneous input");
                Err(problem)
            }
        }
    }

    /// A method, or a macro that looks like one.
    fn method(&mut self, at: usize, target: Expr, name: String, args: Vec<Expr>) -> Parsed {
        let kind = match (name.as_str(), args.len()) {
            ("all", 2 | 3) => Some(Macro::All),
            ("exists", 2 | 3) => Some(Macro::Exists),
            ("exists_one" | "existsOne", 2 | 3) => Some(Macro::ExistsOne),
            ("filter", 2) => Some(Macro::Filter),
            ("map", 2 | 3) => Some(Macro::Map),
            ("transformList", 3 | 4) => Some(Macro::TransformList),
            ("transformMap", 3 | 4) => Some(Macro::TransformMap),
            ("transformMapEntry", 3 | 4) => Some(Macro::TransformMapEntry),
            ("sortBy", 2) => Some(Macro::SortBy),
            _ => None,
        };
        let variable = |expr: &Expr| match &expr.kind {
            Kind::Ident(name) => Ok(name.clone()),
            _ => Err(Problem { at: expr.at, text: "argument must be a simple name".to_owned() }),
        };
        if matches!(name.as_str(), "optMap" | "optFlatMap") && args.len() == 2 {
            let flat = name == "optFlatMap";
            let mut args = args.into_iter();
            let (Some(first), Some(body)) = (args.next(), args.next()) else {
                return Err(self.unexpected("an expression"));
            };
            let variable = variable(&first)?;
            return Ok(Expr {
                at,
                kind: Kind::Bind { operand: Box::new(target), variable, body: Box::new(body), flat },
            });
        }
        if self.binds && name == "bind" && matches!(&target.kind, Kind::Ident(space) if space == "cel") {
            return match <[Expr; 3]>::try_from(args) {
                Ok([variable, value, body]) => bound(at, &variable, value, body),
                Err(args) => Ok(method_call(at, target, name, args)),
            };
        }
        let Some(kind) = kind else { return Ok(method_call(at, target, name, args)) };
        let two = match kind {
            Macro::All | Macro::Exists | Macro::ExistsOne => args.len() == 3,
            Macro::TransformList | Macro::TransformMap | Macro::TransformMapEntry => true,
            Macro::Map | Macro::Filter | Macro::SortBy => false,
        };
        let mut args = args.into_iter();
        let mut take = || args.next();
        let first = take().map(|e| variable(&e)).transpose()?.unwrap_or_default();
        let second =
            if two { take().map(|e| variable(&e).map(|name| (e.at, name))).transpose()? } else { None };
        if let Some((at, second)) = &second
            && *second == first
        {
            return Err(Problem { at: *at, text: format!("duplicate variable name: {first}") });
        }
        let second = second.map(|(_, name)| name);
        let mut rest: Vec<Expr> = args.collect();
        let body = rest.pop();
        let Some(body) = body else { return Err(self.unexpected("an expression")) };
        let filter = rest.pop();
        let fold = Fold { kind, range: target, variable: first, second, filter, body };
        Ok(Expr { at, kind: Kind::Fold(Box::new(fold)) })
    }
}

fn method_call(at: usize, target: Expr, function: String, args: Vec<Expr>) -> Expr {
    Expr { at, kind: Kind::Call { target: Some(Box::new(target)), function, args } }
}

/// `cel.bind(variable, value, body)`.
fn bound(at: usize, variable: &Expr, value: Expr, body: Expr) -> Parsed {
    match &variable.kind {
        Kind::Ident(name) => {
            let (value, body) = (Box::new(value), Box::new(body));
            Ok(Expr { at, kind: Kind::Let { variable: name.clone(), value, body } })
        }
        _ => {
            let text = "cel.bind() variable names must be simple identifiers".to_owned();
            Err(Problem { at: variable.at, text })
        }
    }
}

fn function(at: usize, name: String, mut args: Vec<Expr>) -> Parsed {
    if name == "has" {
        let one = args.len() == 1;
        return match args.pop().map(|e| e.kind) {
            Some(Kind::Select { operand, field, optional: false }) if one => {
                Ok(Expr { at, kind: Kind::Has { operand, field } })
            }
            _ => Err(Problem { at, text: "invalid argument to has() macro".to_owned() }),
        };
    }
    Ok(Expr { at, kind: Kind::Call { target: None, function: name, args } })
}
