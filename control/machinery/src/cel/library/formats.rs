//! Named formats as values.

use super::super::cost::Cost;
use super::super::fault::Evaluated;
use super::super::named;
use super::super::overload::{Body, Overload, Sig, body, global, list, member, optional};
use super::super::value::Value;
use std::sync::Arc;

fn find(name: &str) -> Evaluated {
    Ok(Value::Optional(named::find(name).map(|f| Arc::new(Value::Format(f)))))
}

fn validate(name: &str, text: &str) -> Evaluated {
    let wrong = named::wrong(name, text);
    let texts = || Arc::new(Value::list_of(wrong.iter().map(|w| Value::text_of(w)).collect()));
    Ok(Value::Optional((!wrong.is_empty()).then(texts)))
}

/// The formats that are functions without arguments, too.
const FIXED: [(&str, Body); 13] = [
    ("format.dns1123Label", |_| Ok(Value::Format("dns1123Label"))),
    ("format.dns1123Subdomain", |_| Ok(Value::Format("dns1123Subdomain"))),
    ("format.dns1035Label", |_| Ok(Value::Format("dns1035Label"))),
    ("format.qualifiedName", |_| Ok(Value::Format("qualifiedName"))),
    ("format.dns1123LabelPrefix", |_| Ok(Value::Format("dns1123LabelPrefix"))),
    ("format.dns1123SubdomainPrefix", |_| Ok(Value::Format("dns1123SubdomainPrefix"))),
    ("format.dns1035LabelPrefix", |_| Ok(Value::Format("dns1035LabelPrefix"))),
    ("format.labelValue", |_| Ok(Value::Format("labelValue"))),
    ("format.uri", |_| Ok(Value::Format("uri"))),
    ("format.uuid", |_| Ok(Value::Format("uuid"))),
    ("format.byte", |_| Ok(Value::Format("byte"))),
    ("format.date", |_| Ok(Value::Format("date"))),
    ("format.datetime", |_| Ok(Value::Format("datetime"))),
];

pub(super) fn all() -> Vec<Overload> {
    let format = || Sig::Named("kubernetes.NamedFormat");
    let one = Cost::Fixed(1);
    let mut out = vec![
        global(
            "format.named",
            vec![Sig::Text],
            optional(format()),
            one,
            body!([Value::Text(name)] => find(name)),
        ),
        member(
            "validate",
            vec![format(), Sig::Text],
            optional(list(Sig::Text)),
            Cost::Format,
            body!([Value::Format(name), Value::Text(text)] => validate(name, text)),
        ),
    ];
    out.extend(FIXED.map(|(name, body)| global(name, vec![], format(), one, body)));
    out
}
