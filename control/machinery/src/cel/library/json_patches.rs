//! Paths of JSON patches (upstream: `apiserver/pkg/cel/library/jsonpatch.go`).

use super::super::cost::Cost;
use super::super::overload::{Overload, Sig, body, global};
use super::super::value::Value;

/// These functions are there where patches are made.
pub(in super::super) const SPACE: &str = "jsonpatch.";

pub(super) fn all() -> Vec<Overload> {
    vec![global(
        "jsonpatch.escapeKey",
        vec![Sig::Text],
        Sig::Text,
        Cost::Same,
        body!([Value::Text(key)] => Ok(Value::text_of(&key.replace('~', "~0").replace('/', "~1")))),
    )]
}
