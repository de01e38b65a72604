//! URLs (upstream: `cel/library/urls.go`).

use super::super::cost::Cost;
use super::super::fault::{Evaluated, fail};
use super::super::overload::{Overload, Sig, body, global, list, member};
use super::super::value::{Key, Url, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

fn parse(text: &str) -> Option<Url> {
    let (scheme, rest) = match text.split_once(':') {
        Some((scheme, rest))
            if scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')) =>
        {
            (scheme.to_lowercase(), rest)
        }
        _ if text.starts_with('/') => (String::new(), text),
        _ => return None,
    };
    if text.contains(|c: char| c.is_control() || c == ' ') {
        return None;
    }
    let rest = rest.split('#').next().unwrap_or_default();
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (host, path) = match before.strip_prefix("//") {
        Some(after) => {
            let end = after.find('/').unwrap_or(after.len());
            let (authority, path) = after.split_at(end);
            (authority.rsplit('@').next().unwrap_or_default(), path)
        }
        None => ("", before),
    };
    if let Some((_, port)) = port_of(host)
        && !port.bytes().all(|b| b.is_ascii_digit())
    {
        return None;
    }
    Some(Url {
        text: text.to_owned(),
        scheme,
        host: host.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
    })
}

/// Host name and port.
fn port_of(host: &str) -> Option<(&str, &str)> {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => Some((name, port)),
        _ => None,
    }
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut i) = (Vec::new(), 0);
    while let Some(byte) = bytes.get(i) {
        let hex = bytes.get(i + 1..i + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (byte, hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(value)) => {
                out.push(value);
                i += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(*byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Host name and port.
fn parts(of: &Url) -> (&str, &str) {
    let (name, port) = port_of(&of.host).unwrap_or((&of.host, ""));
    (name.trim_start_matches('[').trim_end_matches(']'), port)
}

fn query(of: &Url) -> Value {
    let mut out: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
    for pair in of.query.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = Key::Text(unescape(name).into());
        out.entry(key).or_default().push(Value::text_of(&unescape(value)));
    }
    Value::Map(Arc::new(out.into_iter().map(|(k, v)| (k, Value::list_of(v))).collect()))
}

fn made(text: &str) -> Evaluated {
    match parse(text) {
        Some(url) => Ok(Value::Url(Arc::new(url))),
        None => fail(format!(
            "URL parse error during conversion from string: parse {text:?}: invalid URI for request"
        )),
    }
}

pub(super) fn all() -> Vec<Overload> {
    use Sig::Text;
    use Value::Url as U;
    const ONE: Cost = Cost::Fixed(1);
    let url = || Sig::Named("kubernetes.URL");
    let query_type = Sig::Map(Box::new(Text), Box::new(list(Text)));
    vec![
        global("url", vec![Text], url(), Cost::Same, body!([Value::Text(text)] => made(text))),
        global(
            "isURL",
            vec![Text],
            Sig::Bool,
            ONE,
            body!([Value::Text(text)] => Ok(Value::Bool(parse(text).is_some()))),
        ),
        member("getScheme", vec![url()], Text, ONE, body!([U(of)] => Ok(Value::text_of(&of.scheme)))),
        member("getHost", vec![url()], Text, ONE, body!([U(of)] => Ok(Value::text_of(&of.host)))),
        member("getHostname", vec![url()], Text, ONE, body!([U(of)] => Ok(Value::text_of(parts(of).0)))),
        member("getPort", vec![url()], Text, ONE, body!([U(of)] => Ok(Value::text_of(parts(of).1)))),
        member("getEscapedPath", vec![url()], Text, ONE, body!([U(of)] => Ok(Value::text_of(&of.path)))),
        member("getQuery", vec![url()], query_type, ONE, body!([U(of)] => Ok(query(of)))),
    ]
}
