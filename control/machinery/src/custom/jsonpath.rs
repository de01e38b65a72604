//! The part of client-go's JSONPath that printer columns and selectable fields use: `.spec.a`, `.a['b.c']`, `.list[0]`,
//! `.list[*]`, `.list[1:3]`, `..a` and `.list[?(@.type=="Ready")].status`.

use serde_json::Value;

/// Steps of one path at most.
const MOST_STEPS: usize = 64;

#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Every,
    Index(i64),
    Slice(Option<i64>, Option<i64>, i64),
    Deep(String),
    Where(Vec<Step>, Operator, Operand),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Exists,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Nothing,
    Literal(Value),
    Path(Vec<Step>),
}

/// A path that does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} in {path:?}")]
pub(crate) struct Error {
    path: String,
    why: &'static str,
}

impl JsonPath {
    /// Parses `.spec.a`, with or without braces around it.
    ///
    /// # Errors
    /// For a path of another language.
    pub(crate) fn parse(path: &str) -> Result<Self, Error> {
        let bare = path.trim();
        let bare = bare.strip_prefix('{').and_then(|p| p.strip_suffix('}')).unwrap_or(bare);
        let bare = bare.strip_prefix('$').unwrap_or(bare);
        let steps = steps(bare).map_err(|why| Error { path: path.to_owned(), why })?;
        Ok(JsonPath(steps))
    }

    /// The first value the path leads to.
    #[must_use]
    pub fn first<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        find(&self.0, value).first().copied()
    }
}

fn find<'v>(steps: &[Step], value: &'v Value) -> Vec<&'v Value> {
    let mut found = vec![value];
    for step in steps {
        let mut next = Vec::new();
        for value in found {
            apply(step, value, &mut next);
        }
        found = next;
    }
    found
}

fn apply<'v>(step: &Step, value: &'v Value, out: &mut Vec<&'v Value>) {
    match (step, value) {
        (Step::Field(name), Value::Object(fields)) => out.extend(fields.get(name)),
        // As client-go: a field of a list is that of all its items.
        (Step::Field(_), Value::Array(items)) => items.iter().for_each(|item| apply(step, item, out)),
        (Step::Every, Value::Array(items)) => out.extend(items),
        (Step::Every, Value::Object(fields)) => out.extend(fields.values()),
        (Step::Index(i), Value::Array(items)) => {
            let index = if *i < 0 { items.len() as i64 + i } else { *i };
            out.extend(usize::try_from(index).ok().and_then(|i| items.get(i)));
        }
        (Step::Slice(from, to, step), Value::Array(items)) => {
            let length = items.len() as i64;
            let place = |n: i64| (if n < 0 { length + n } else { n }).clamp(0, length) as usize;
            let (from, to) = (from.map_or(0, place), to.map_or(items.len(), place));
            if from < to {
                out.extend(items[from..to].iter().step_by((*step).max(1) as usize));
            }
        }
        (Step::Deep(name), value) => deep(name, value, out),
        (Step::Where(path, operator, operand), Value::Array(items)) => {
            out.extend(items.iter().filter(|item| holds(path, *operator, operand, item)));
        }
        _ => {}
    }
}

fn deep<'v>(name: &str, value: &'v Value, out: &mut Vec<&'v Value>) {
    match value {
        Value::Object(fields) => {
            out.extend(fields.get(name));
            fields.values().for_each(|v| deep(name, v, out));
        }
        Value::Array(items) => items.iter().for_each(|v| deep(name, v, out)),
        _ => {}
    }
}

fn holds(path: &[Step], operator: Operator, operand: &Operand, item: &Value) -> bool {
    let left = find(path, item);
    let right = match operand {
        Operand::Nothing => None,
        Operand::Literal(value) => Some(value),
        Operand::Path(path) => find(path, item).first().copied(),
    };
    let Some(left) = left.first() else { return false };
    let order = || match (left, right?) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    };
    match operator {
        Operator::Exists => true,
        Operator::Equal => order().is_some_and(std::cmp::Ordering::is_eq),
        Operator::NotEqual => order().is_some_and(std::cmp::Ordering::is_ne),
        Operator::Less => order().is_some_and(std::cmp::Ordering::is_lt),
        Operator::LessOrEqual => order().is_some_and(std::cmp::Ordering::is_le),
        Operator::Greater => order().is_some_and(std::cmp::Ordering::is_gt),
        Operator::GreaterOrEqual => order().is_some_and(std::cmp::Ordering::is_ge),
    }
}

fn steps(text: &str) -> Result<Vec<Step>, &'static str> {
    let chars: Vec<char> = text.chars().collect();
    let (mut at, mut out) = (0, Vec::new());
    while let Some(c) = chars.get(at) {
        if out.len() >= MOST_STEPS {
            return Err("too many steps");
        }
        match c {
            '.' if chars.get(at + 1) == Some(&'.') => {
                let name = name(&chars, at + 2);
                at = name.1;
                out.push(Step::Deep(name.0));
            }
            '.' => {
                let (name, end) = name(&chars, at + 1);
                at = end;
                match name.as_str() {
                    "" => {}
                    "*" => out.push(Step::Every),
                    _ => out.push(Step::Field(name)),
                }
            }
            '[' => {
                let end = closing(&chars, at)?;
                out.push(bracket(&chars[at + 1..end])?);
                at = end + 1;
            }
            _ if out.is_empty() => {
                let (name, end) = name(&chars, at);
                at = end;
                out.push(Step::Field(name));
            }
            _ => return Err("unrecognized character"),
        }
    }
    Ok(out)
}

/// A name, where a backslash takes the next character as it is.
fn name(chars: &[char], mut at: usize) -> (String, usize) {
    let mut out = String::new();
    while let Some(c) = chars.get(at) {
        match c {
            '\\' if at + 1 < chars.len() => {
                out.push(chars[at + 1]);
                at += 1;
            }
            '.' | '[' | ']' => break,
            c => out.push(*c),
        }
        at += 1;
    }
    (out, at)
}

fn closing(chars: &[char], open: usize) -> Result<usize, &'static str> {
    let (mut depth, mut quote) = (0_usize, None);
    for (i, c) in chars.iter().enumerate().skip(open) {
        match (quote, c) {
            (Some(q), c) if q == *c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(*c),
            (None, '[' | '(') => depth += 1,
            (None, ']' | ')') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Ok(i);
                }
            }
            _ => {}
        }
    }
    Err("unterminated array")
}

fn bracket(inside: &[char]) -> Result<Step, &'static str> {
    let text: String = inside.iter().collect();
    let text = text.trim();
    if text == "*" {
        return Ok(Step::Every);
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        return filter_step(filter);
    }
    if let Some(quoted) = unquote(text) {
        return Ok(Step::Field(quoted));
    }
    let number = |t: &str| {
        if t.is_empty() { Ok(None) } else { t.parse().map(Some).map_err(|_| "invalid array index") }
    };
    match text.split(':').collect::<Vec<_>>().as_slice() {
        [one] => number(one)?.map(Step::Index).ok_or("invalid array index"),
        [from, to] => Ok(Step::Slice(number(from)?, number(to)?, 1)),
        [from, to, step] => Ok(Step::Slice(number(from)?, number(to)?, number(step)?.unwrap_or(1))),
        _ => Err("invalid array index"),
    }
}

fn unquote(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    Some(inner.replace("\\.", ".").replace(&format!("\\{quote}"), &quote.to_string()))
}

fn filter_step(filter: &str) -> Result<Step, &'static str> {
    const OPERATORS: [(&str, Operator); 6] = [
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    let relative = |t: &str| steps(t.trim().strip_prefix('@').ok_or("a filter begins with @")?);
    let split = OPERATORS
        .iter()
        .filter_map(|(text, op)| Some((filter.find(text)?, *text, *op)))
        .min_by_key(|(at, text, _)| (*at, std::cmp::Reverse(text.len())));
    let Some((at, text, operator)) = split else {
        return Ok(Step::Where(relative(filter)?, Operator::Exists, Operand::Nothing));
    };
    let right = filter[at + text.len()..].trim();
    let operand = match unquote(right) {
        Some(literal) => Operand::Literal(literal.into()),
        None if right.starts_with('@') => Operand::Path(relative(right)?),
        None => Operand::Literal(serde_json::from_str(right).map_err(|_| "unrecognized literal")?),
    };
    Ok(Step::Where(relative(&filter[..at])?, operator, operand))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn paths_lead_to_the_first_value() {
        let value = json!({"spec": {"a": 1, "b.c": "dot", "list": [{"t": "x", "n": 1}, {"t": "y", "n": 2}]},
            "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]}});
        for (path, expected) in [
            (".spec.a", json!(1)),
            ("{.spec.a}", json!(1)),
            ("spec.a", json!(1)),
            (".spec['b.c']", json!("dot")),
            (".spec.b\\.c", json!("dot")),
            (".spec.list[1].t", json!("y")),
            (".spec.list[-1].t", json!("y")),
            (".spec.list[*].n", json!(1)),
            (".spec.list[1:2].n", json!(2)),
            (
                "..status",
                json!({"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]}),
            ),
            (".status.conditions[?(@.type==\"Ready\")].status", json!("True")),
            (".status.conditions[?(@.type!='Other')].status", json!("True")),
            (".spec.list[?(@.n>1)].t", json!("y")),
        ] {
            assert_eq!(JsonPath::parse(path).unwrap().first(&value), Some(&expected), "{path}");
        }
        assert_eq!(JsonPath::parse(".spec.none.x").unwrap().first(&value), None);
        for bad in [".a[", ".a[x]", ".a[?(b)]"] {
            assert!(JsonPath::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "[.a\\[\\]0-9*?(@)='\":\\\\-]{0,24}") {
            if let Ok(path) = JsonPath::parse(&path) {
                let _ = path.first(&json!({"a": [{"a": 1}, {"a": [0]}]}));
            }
        }
    }
}
