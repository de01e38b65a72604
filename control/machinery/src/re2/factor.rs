//! Alternatives with their common beginnings taken out, as upstream does while it reads; sizes and heights are of what results.

use super::fault::Code;
use super::node::{Flags, Node, Op, Rune};
use super::stack::{Stack, clean, merge, rank};
use std::mem;

type Parts = Result<Vec<Node>, Code>;

pub(super) fn factored(stack: &mut Stack, parts: Vec<Node>) -> Parts {
    if parts.len() < 2 {
        return Ok(parts);
    }
    let parts = literals(stack, parts)?;
    let parts = chars(stack, parts)?;
    let mut parts = classes(stack, parts);
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
fn literals(stack: &mut Stack, parts: Vec<Node>) -> Parts {
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
            end_literals(stack, &mut out, mem::take(&mut run), mem::replace(&mut common, runes), old_fold)?;
        }
        run.push(part);
    }
    end_literals(stack, &mut out, run, common, fold)?;
    Ok(out)
}

fn end_literals(
    stack: &mut Stack,
    out: &mut Vec<Node>,
    mut run: Vec<Node>,
    common: Vec<Rune>,
    fold: bool,
) -> Result<(), Code> {
    if run.len() < 2 {
        out.append(&mut run);
        return Ok(());
    }
    stack.make();
    let mut rest = Vec::with_capacity(run.len());
    for part in run {
        let mut part = without_literal(stack, part, common.len());
        stack.check(&mut part)?;
        rest.push(part);
    }
    let flags = Flags::default().with(Flags::FOLD, fold);
    let first = Node::new(Op::Literal(common), flags, Vec::new());
    end(stack, out, first, rest)
}

/// A beginning and the alternatives after it.
fn end(stack: &mut Stack, out: &mut Vec<Node>, first: Node, rest: Vec<Node>) -> Result<(), Code> {
    let rest = stack.collapse(rest, Op::Alternate)?;
    stack.make();
    out.push(Node::new(Op::Concat, Flags::default(), vec![first, rest]));
    Ok(())
}

/// A part without the first runes of the literal it begins with.
fn without_literal(stack: &mut Stack, mut node: Node, count: usize) -> Node {
    if node.op == Op::Concat && !node.parts.is_empty() {
        let first = node.parts.remove(0);
        let first = without_literal(stack, first, count);
        if first.op == Op::Empty {
            stack.spare();
        } else {
            node.parts.insert(0, first);
        }
        return alone(stack, node);
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
fn alone(stack: &mut Stack, mut node: Node) -> Node {
    match node.parts.pop() {
        Some(only) if node.parts.is_empty() => {
            stack.spare();
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
fn chars(stack: &mut Stack, parts: Vec<Node>) -> Parts {
    let mut out = Vec::new();
    let mut run: Vec<Node> = Vec::new();
    for part in parts {
        if !run.first().is_some_and(|first| same(leading(first), leading(&part))) {
            end_chars(stack, &mut out, mem::take(&mut run))?;
        }
        run.push(part);
    }
    end_chars(stack, &mut out, run)?;
    Ok(out)
}

fn end_chars(stack: &mut Stack, out: &mut Vec<Node>, mut run: Vec<Node>) -> Result<(), Code> {
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
            stack.spare();
        }
        let mut part = if part.op == Op::Concat {
            part.parts.remove(0);
            alone(stack, part)
        } else {
            stack.make();
            Node::new(Op::Empty, Flags::default(), Vec::new())
        };
        stack.check(&mut part)?;
        rest.push(part);
    }
    end(stack, out, first, rest)
}

/// Neighbours that are sets become one.
fn classes(stack: &mut Stack, parts: Vec<Node>) -> Vec<Node> {
    let mut out: Vec<Node> = Vec::with_capacity(parts.len());
    let mut run: Vec<Node> = Vec::new();
    for part in parts {
        if part.is_char() {
            run.push(part);
        } else {
            out.extend(united(stack, mem::take(&mut run)));
            out.push(part);
        }
    }
    out.extend(united(stack, run));
    out
}

fn united(stack: &mut Stack, mut run: Vec<Node>) -> Option<Node> {
    if run.len() < 2 {
        return run.pop();
    }
    let most = (0..run.len()).rev().max_by_key(|at| rank(&run[*at].op))?;
    run.swap(0, most);
    let mut run = run.into_iter();
    let mut all = run.next()?;
    for part in run {
        merge(&mut all, &part);
        stack.spare();
    }
    clean(&mut all);
    Some(all)
}
