//! Continue tokens: where a paged list goes on, and as of which revision (upstream: `apiserver/pkg/storage/continue.go`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use store::Revision;

const VERSION: &str = "meta.k8s.io/v1";

#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    /// Revision of the snapshot; -1 asks for the newest (an inconsistent continue).
    rv: i64,
    /// The first key not yet returned, relative to the list's prefix, with the leading slash upstream expects.
    start: String,
}

/// A decoded continue token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Continue {
    /// The revision the list shows; `None` when it goes on at the newest.
    pub revision: Option<Revision>,
    /// The last key already returned, without the list's prefix.
    pub after: String,
}

/// A token that goes on after `after` (relative to the prefix) at `revision`.
pub(crate) fn encode(after: &str, revision: Option<Revision>) -> String {
    // Upstream's `start` is inclusive; the least key above `after` is `after` and a NUL byte.
    let token = Token {
        v: VERSION.to_owned(),
        rv: revision.map_or(-1, |r| i64::try_from(r).unwrap_or(i64::MAX)),
        start: format!("{after}\0"),
    };
    // A struct of strings and a number always serialises.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

/// Reads a token; the error is upstream's text for the client.
pub(crate) fn decode(token: &str) -> Result<Continue, String> {
    let bytes = URL_SAFE_NO_PAD
        .decode(token.trim_end_matches('='))
        .map_err(|e| format!("continue key is not valid: {e}"))?;
    let token: Token =
        serde_json::from_slice(&bytes).map_err(|e| format!("continue key is not valid: {e}"))?;
    if token.v != VERSION {
        return Err(format!(
            "continue key is not valid: server does not recognize this encoded version {:?}",
            token.v
        ));
    }
    if token.rv == 0 {
        return Err(
            "continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)"
                .to_owned(),
        );
    }
    if token.start.is_empty() {
        return Err("continue key is not valid: encoded start key empty (version meta.k8s.io/v1)".to_owned());
    }
    if token.start.split('/').any(|part| part == "..") {
        return Err("continue key is not valid: \"..\" is not allowed".to_owned());
    }
    let after = token.start.strip_suffix('\0').unwrap_or(&token.start).to_owned();
    Ok(Continue { revision: u64::try_from(token.rv).ok(), after })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back() {
        let token = encode("default/web", Some(12));
        assert_eq!(decode(&token).unwrap(), Continue { revision: Some(12), after: "default/web".into() });
        assert_eq!(decode(&encode("a", None)).unwrap().revision, None);
    }

    #[test]
    fn foreign_tokens_are_refused_with_upstreams_words() {
        for bad in ["%%%", "e30", &URL_SAFE_NO_PAD.encode(r#"{"v":"other","rv":1,"start":"a"}"#)] {
            assert!(decode(bad).unwrap_err().starts_with("continue key is not valid: "), "{bad}");
        }
    }
}
