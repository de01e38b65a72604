//! The order of a merged list.

use super::{DIRECTIVE, Error};
use crate::goformat::go_value;
use serde_json::Value;

fn same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        None => a == b,
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
    }
}

fn position(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    list.iter().position(|other| same(other, item, key))
}

/// The items named by `wanted` in its order, the others in the server's; where the two meet, an item of the server's
/// goes first only if it stood in front on the server.
pub(super) fn arrange(
    merged: Vec<Value>,
    wanted: &[Value],
    server: &[Value],
    key: Option<&str>,
) -> Vec<Value> {
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(wanted, item, key).is_some());
    named.sort_by_key(|item| position(wanted, item, key));
    others.sort_by_key(|item| position(server, item, key));
    let mut out = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let server_first = match (others.peek(), named.peek()) {
            (None, None) => return out,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(item)) => {
                position(server, other, key).zip(position(server, item, key)).is_some_and(|(o, n)| o < n)
            }
        };
        out.extend(if server_first { others.next() } else { named.next() });
    }
}

/// The patch's items (deletions apart) must stand in `wanted` in the same order.
pub(super) fn check(patch: &[Value], wanted: &[Value], key: Option<&str>) -> Result<(), Error> {
    if wanted.is_empty() {
        return Ok(());
    }
    let mut rest = wanted.iter();
    let ordinary = patch.iter().filter(|item| item.get(DIRECTIVE).and_then(Value::as_str) != Some("delete"));
    for item in ordinary {
        if !rest.any(|w| same(w, item, key)) {
            let show = |list: &[Value]| go_value(&Value::Array(list.to_vec()));
            return Err(Error::Order { patch: show(patch), order: show(wanted) });
        }
    }
    Ok(())
}
