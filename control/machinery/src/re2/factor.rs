//! Alternatives with their common beginnings taken out, as upstream does while it reads; sizes and heights are of what results.

use super::fault::Code;
use super::held::Held;
use super::merge::{clean, merge, rank};
use super::node::{Flags, Node, Op, Rune};
use std::mem;

type Parts = Result<Vec<Node>, Code>;

/// A concatenation or alternation, never of others of its kind.
pub(super) fn collapse(held: &mut Held, mut parts: Vec<Node>, op: Op) -> Result<Node, Code> {
    if parts.len() == 1
        && let Some(only) = parts.pop()
    {
        return Ok(only);
    }
    held.make();
    let mut flat = Vec::with_capacity(parts.len());
    for part in parts {
        if part.op == op {
            flat.extend(part.parts);
            held.spare();
        } else {
            flat.push(part);
        }
    }
    if op == Op::Alternate {
        flat = factored(held, flat)?;
        if flat.len() == 1
            && let Some(only) = flat.pop()
        {
            held.spare();
            return Ok(only);
        }
    }
    Ok(Node::new(op, Flags::default(), flat))
}

fn factored(held: &mut Held, parts: Vec<Node>) -> Parts {
    if parts.len() < 2 {
        return Ok(parts);
    }
    let parts = literals(held, parts)?;
    let parts = chars(held, parts)?;
    let mut parts = classes(held, parts);
    parts.dedup_by(|next, before| next.op == Op::Empty && before.op == Op::Empty);
    Ok(parts)
}

/// What a part begins with.
fn leading(node: &Node) -> &Node {
    match node.parts.first() {
        Some(first) if node.op == Op::Concat => first,
        _ => node,
    }
}

fn leading_literal(node: &Node) -> (&[Rune], bool) {
    let first = leading(node);
    match &first.op {
        Op::Literal(runes) => (runes, first.flags.has(Flags::FOLD)),
        _ => (&[], false),
    }
}

/// Common literals.
fn literals(held: &mut Held, parts: Vec<Node>) -> Parts {
    let mut out = Vec::new();
    let mut run: Vec<Node> = Vec::new();
    let (mut common, mut fold) = (Vec::new(), false);
    for part in parts {
        let (runes, its_fold) = leading_literal(&part);
        let same = runes.iter().zip(&common).take_while(|(a, b)| a == b).count();
        if its_fold == fold && same > 0 {
            common.truncate(same);
        } else {
            let (runes, old_fold) = (runes.to_vec(), mem::replace(&mut fold, its_fold));
            end_literals(held, &mut out, mem::take(&mut run), mem::replace(&mut common, runes), old_fold)?;
        }
        run.push(part);
    }
    end_literals(held, &mut out, run, common, fold)?;
    Ok(out)
}

fn end_literals(
    held: &mut Held,
    out: &mut Vec<Node>,
    mut run: Vec<Node>,
    common: Vec<Rune>,
    fold: bool,
) -> Result<(), Code> {
    if run.len() < 2 {
        out.append(&mut run);
        return Ok(());
    }
    held.make();
    let mut rest = Vec::with_capacity(run.len());
    for part in run {
        let mut part = without_literal(held, part, common.len());
        held.check(&mut part)?;
        rest.push(part);
    }
    let flags = Flags::default().with(Flags::FOLD, fold);
    let first = Node::new(Op::Literal(common), flags, Vec::new());
    end(held, out, first, rest)
}

/// A beginning and the alternatives after it.
fn end(held: &mut Held, out: &mut Vec<Node>, first: Node, rest: Vec<Node>) -> Result<(), Code> {
    let rest = collapse(held, rest, Op::Alternate)?;
    held.make();
    out.push(Node::new(Op::Concat, Flags::default(), vec![first, rest]));
    Ok(())
}

/// A part without the first runes of the literal it begins with.
fn without_literal(held: &mut Held, mut node: Node, count: usize) -> Node {
    if node.op == Op::Concat && !node.parts.is_empty() {
        let first = node.parts.remove(0);
        let first = without_literal(held, first, count);
        if first.op == Op::Empty {
            held.spare();
        } else {
            node.parts.insert(0, first);
        }
        return alone(held, node);
    }
    if let Op::Literal(runes) = &mut node.op {
        runes.drain(..count.min(runes.len()));
        if runes.is_empty() {
            node.op = Op::Empty;
        }
    }
    node
}

/// What is left of a concatenation, which is itself where that is more than one part.
fn alone(held: &mut Held, mut node: Node) -> Node {
    match node.parts.pop() {
        Some(only) if node.parts.is_empty() => {
            held.spare();
            only
        }
        Some(last) => {
            node.parts.push(last);
            node
        }
        None => Node::new(Op::Empty, node.flags, Vec::new()),
    }
}

/// Whether a beginning is simple enough to be taken out and equal to another: a set, or so many of one.
fn same(a: &Node, b: &Node) -> bool {
    let literal = matches!(a.op, Op::Literal(_));
    let fixed = matches!(a.op, Op::Repeat { least, most } if most == Some(least));
    let simple = a.is_char() || (fixed && a.parts.iter().all(Node::is_char));
    let flags = match a.op {
        Op::Repeat { .. } => a.flags.has(Flags::LAZY) == b.flags.has(Flags::LAZY),
        _ => !literal || a.flags.has(Flags::FOLD) == b.flags.has(Flags::FOLD),
    };
    simple && flags && a.op == b.op && a.parts.iter().zip(&b.parts).all(|(a, b)| same(a, b))
}

/// Common sets of characters.
fn chars(held: &mut Held, parts: Vec<Node>) -> Parts {
    let mut out = Vec::new();
    let mut run: Vec<Node> = Vec::new();
    for part in parts {
        if !run.first().is_some_and(|first| same(leading(first), leading(&part))) {
            end_chars(held, &mut out, mem::take(&mut run))?;
        }
        run.push(part);
    }
    end_chars(held, &mut out, run)?;
    Ok(out)
}

fn end_chars(held: &mut Held, out: &mut Vec<Node>, mut run: Vec<Node>) -> Result<(), Code> {
    let first = match run.first() {
        Some(first) if run.len() > 1 => leading(first).clone(),
        _ => {
            out.append(&mut run);
            return Ok(());
        }
    };
    let mut rest = Vec::with_capacity(run.len());
    for (at, mut part) in run.into_iter().enumerate() {
        if at > 0 {
            held.spare();
        }
        let mut part = if part.op == Op::Concat {
            part.parts.remove(0);
            alone(held, part)
        } else {
            held.make();
            Node::new(Op::Empty, Flags::default(), Vec::new())
        };
        held.check(&mut part)?;
        rest.push(part);
    }
    end(held, out, first, rest)
}

/// Neighbours that are sets become one.
fn classes(held: &mut Held, parts: Vec<Node>) -> Vec<Node> {
    let mut out: Vec<Node> = Vec::with_capacity(parts.len());
    let mut run: Vec<Node> = Vec::new();
    for part in parts {
        if part.is_char() {
            run.push(part);
        } else {
            out.extend(united(held, mem::take(&mut run)));
            out.push(part);
        }
    }
    out.extend(united(held, run));
    out
}

fn united(held: &mut Held, mut run: Vec<Node>) -> Option<Node> {
    if run.len() < 2 {
        return run.pop();
    }
    let most = (0..run.len()).rev().max_by_key(|at| rank(&run[*at].op))?;
    run.swap(0, most);
    let mut run = run.into_iter();
    let mut all = run.next()?;
    for part in run {
        merge(&mut all, &part);
        held.spare();
    }
    clean(&mut all);
    Some(all)
}
