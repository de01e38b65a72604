//! The part of client-go's JSONPath that printer columns and selectable fields use: `.spec.a`, `.a['b.c']`, `.list[0]`,
//! `.list[]`, `.list[*]`, `.list[1:3]`, `.list[0,2]`, `..a` and `.list[?(@.type=="Ready")].status`.

use serde_json::Value;

/// Steps of one path at most.
const MOST_STEPS: usize = 64;
/// Bytes of one path at most: filters stand within filters.
const LONGEST: usize = 1024;
/// Values that a path may lead to at any step: a union may name one value twice.
const MOST_FOUND: usize = 100_000;

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
    /// What each of the paths leads to.
    Union(Vec<Vec<Step>>),
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
        if path.len() > LONGEST {
            return Err(Error { path: path.to_owned(), why: "too long" });
        }
        let bare = path.trim();
        let bare = bare.strip_prefix('{').and_then(|p| p.strip_suffix('}')).unwrap_or(bare);
        let bare = bare.strip_prefix('$').unwrap_or(bare);
        let steps = steps(bare).map_err(|why| Error { path: path.to_owned(), why })?;
        Ok(JsonPath(steps))
    }

    /// The first value the path leads to; none where it leads nowhere, or asks of a value what it does not have (an index beyond a list).
    #[must_use]
    pub fn first<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        find(&self.0, value).ok()?.first().copied()
    }
}

/// The path asks of a value what it does not have. Upstream evaluates nothing more of it then.
struct Unfit;

fn find<'v>(steps: &[Step], value: &'v Value) -> Result<Vec<&'v Value>, Unfit> {
    let mut found = vec![value];
    for step in steps {
        let mut next = Vec::new();
        for value in found {
            apply(step, value, &mut next)?;
            if next.len() > MOST_FOUND {
                return Err(Unfit);
            }
        }
        found = next;
    }
    Ok(found)
}

/// As client-go's `eval` functions: a field of a list is none, an index needs a list that has it.
fn apply<'v>(step: &Step, value: &'v Value, out: &mut Vec<&'v Value>) -> Result<(), Unfit> {
    match (step, value) {
        (Step::Field(name), Value::Object(fields)) => out.extend(fields.get(name)),
        (Step::Every, Value::Array(items)) => out.extend(items),
        (Step::Every, Value::Object(fields)) => out.extend(fields.values()),
        (Step::Index(_) | Step::Slice(..), Value::Null) => {}
        (Step::Index(i), Value::Array(items)) => {
            let index = if *i < 0 { items.len() as i64 + i } else { *i };
            let item = usize::try_from(index).ok().and_then(|i| items.get(i));
            out.push(item.ok_or(Unfit)?);
        }
        (Step::Slice(from, to, step), Value::Array(items)) => {
            let length = items.len() as i64;
            let place = |n: i64| if n < 0 { length + n } else { n };
            let (from, to) = (from.map_or(0, place), to.map_or(length, place));
            if from == to {
                return Ok(());
            }
            let from = usize::try_from(from).ok().filter(|from| *from < items.len()).ok_or(Unfit)?;
            let chosen = usize::try_from(to).ok().and_then(|to| items.get(from..to)).ok_or(Unfit)?;
            let step = usize::try_from(*step).ok().filter(|step| *step > 0).ok_or(Unfit)?;
            out.extend(chosen.iter().step_by(step));
        }
        (Step::Deep(name), value) => deep(name, value, out),
        (Step::Where(path, operator, operand), Value::Array(items)) => {
            for item in items {
                if holds(path, *operator, operand, item)? {
                    out.push(item);
                }
            }
        }
        (Step::Index(_) | Step::Slice(..) | Step::Where(..), _) => return Err(Unfit),
        (Step::Union(paths), value) => {
            for path in paths {
                out.extend(find(path, value)?);
            }
        }
        _ => {}
    }
    Ok(())
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

fn holds(path: &[Step], operator: Operator, operand: &Operand, item: &Value) -> Result<bool, Unfit> {
    let left = find(path, item);
    if operator == Operator::Exists {
        // Upstream gives the item itself where its path does not fit.
        return Ok(left.map_or(true, |found| !found.is_empty()));
    }
    let right = match operand {
        Operand::Nothing => Vec::new(),
        Operand::Literal(value) => vec![value],
        Operand::Path(path) => find(path, item)?,
    };
    let (left, right) = match (left?.as_slice(), right.as_slice()) {
        ([], _) | (_, []) => return Ok(false),
        ([left], [right]) => (*left, *right),
        // One at a time can be compared.
        _ => return Err(Unfit),
    };
    let order = match (left, right) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() == b.is_f64() => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)),
        },
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) if matches!(operator, Operator::Equal | Operator::NotEqual) => {
            Some(a.cmp(b))
        }
        _ => None,
    };
    let order = order.ok_or(Unfit)?;
    Ok(match operator {
        Operator::Exists => true,
        Operator::Equal => order.is_eq(),
        Operator::NotEqual => order.is_ne(),
        Operator::Less => order.is_lt(),
        Operator::LessOrEqual => order.is_le(),
        Operator::Greater => order.is_gt(),
        Operator::GreaterOrEqual => order.is_ge(),
    })
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
    if text.contains(',') {
        let each = |part: &str| bracket(&part.trim().chars().collect::<Vec<_>>()).map(|step| vec![step]);
        return Ok(Step::Union(text.split(',').map(each).collect::<Result<_, _>>()?));
    }
    if let Some(quoted) = unquote(text) {
        return Ok(Step::Field(quoted));
    }
    if text.is_empty() {
        // client-go reads `[]` as the slice that ends behind its first item.
        return Ok(Step::Index(0));
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

    #[test]
    fn a_path_through_a_list_leads_where_client_go_goes() {
        let value = json!({"l": [{"h": "x", "n": 1, "on": true}, {"h": "y", "n": 2.5}], "none": [], "text": "t", "null": null});
        for (path, expected) in [
            (".l[].h", Some(json!("x"))),
            (".l[*].h", Some(json!("x"))),
            (".l[:].h", Some(json!("x"))),
            (".l[1,0].h", Some(json!("y"))),
            (".l[0]['n','h']", Some(json!(1))),
            // A field of a list is none.
            (".l.h", None),
            (".none[].h", None),
            (".none[*].h", None),
            (".text[0]", None),
            (".null[0]", None),
            (".l[2].h", None),
            (".l[-3].h", None),
            (".l[0:3].h", None),
            (".l[1:1].h", None),
            (".text[?(@.h==\"x\")].h", None),
            (".l[?(@.h==\"y\")].n", Some(json!(2.5))),
            (".l[?(@.on==true)].h", Some(json!("x"))),
            // A text is not compared with a number, nor a whole number with another: nothing is said then.
            (".l[?(@.h>1)].h", None),
            (".l[?(@.n>0)].h", None),
        ] {
            assert_eq!(JsonPath::parse(path).unwrap().first(&value), expected.as_ref(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "[.a\\[\\]0-9*?(@)='\",:\\\\-]{0,24}") {
            if let Ok(path) = JsonPath::parse(&path) {
                let _ = path.first(&json!({"a": [{"a": 1}, {"a": [0]}]}));
            }
        }
    }
}
