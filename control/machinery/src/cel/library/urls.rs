//! URLs (upstream: `cel/library/urls.go`).

use super::super::cost::Cost;
use super::super::fault::{Evaluated, fail};
use super::super::overload::{Overload, Sig, body, global, list, member};
use super::super::value::{Key, Value};
use crate::url::Url;
use std::collections::BTreeMap;
use std::sync::Arc;

fn query(of: &Url) -> Value {
    let mut out: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
    for (name, value) in of.parameters() {
        out.entry(Key::Text(name.into())).or_default().push(Value::text_of(&value));
    }
    Value::Map(Arc::new(out.into_iter().map(|(k, v)| (k, Value::list_of(v))).collect()))
}

/// Read as a request's, which may be no relative one, then once more for its fragment.
fn made(text: &str) -> Evaluated {
    match Url::of_request(text).and_then(|_| Url::parse(text)) {
        Ok(url) => Ok(Value::Url(Arc::new(url))),
        Err(why) => fail(format!("URL parse error during conversion from string: {why}")),
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
            body!([Value::Text(text)] => Ok(Value::Bool(Url::of_request(text).is_ok()))),
        ),
        member("getScheme", vec![url()], Text, ONE, body!([U(of)] => Ok(Value::text_of(&of.scheme)))),
        member("getHost", vec![url()], Text, ONE, body!([U(of)] => Ok(Value::text_of(&of.host)))),
        member(
            "getHostname",
            vec![url()],
            Text,
            ONE,
            body!([U(of)] => Ok(Value::text_of(of.name_and_port().0))),
        ),
        member("getPort", vec![url()], Text, ONE, body!([U(of)] => Ok(Value::text_of(of.name_and_port().1)))),
        member("getEscapedPath", vec![url()], Text, ONE, body!([U(of)] => Ok(Value::text_of(&of.path)))),
        member("getQuery", vec![url()], query_type, ONE, body!([U(of)] => Ok(query(of)))),
    ]
}
