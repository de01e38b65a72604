//! Whether somebody believes the authority that a rotation has prepared: it is shown a certificate of that authority, and says whom it takes us for.
//!
//! The certificate names a user without any right, so that nothing is read or done. A kubelet that does not allow something names whom it does not
//! allow it; an API server tells everybody who they are.

use super::PATIENCE;
use apiserver::trusted::{self, connect, exchange};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use jiff::{SignedDuration, Timestamp};
use pki::{Authority, Leaf};
use rustls::ClientConfig;
use std::sync::Arc;

/// Whom the certificate names.
const USER: &str = "windlass:certs-rotate-ca";
/// How long it is good for.
const LIFE: SignedDuration = SignedDuration::from_hours(1);
/// The most that is read of an answer.
const LONGEST: usize = 64 * 1024;

/// What somebody says who was shown the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It is believed.
    Believed,
    /// It is not, or nothing was said.
    Not(String),
    /// It cannot be told from the answer.
    Unclear(String),
}

/// A client that the prepared authority vouches for.
pub(super) struct Shown(Arc<ClientConfig>);

impl Shown {
    pub(super) fn new(prepared: &Authority, now: Timestamp) -> anyhow::Result<Self> {
        let leaf = Leaf { lifetime: LIFE, ..Leaf::client(USER, &[]) };
        let issued = prepared.issue(&leaf, now)?;
        let chain = pki::pem::certificates(issued.cert_pem.as_bytes())?;
        let key = pki::pem::private_key(issued.key_pem.as_bytes())?;
        // Whoever answers there is told nothing.
        Ok(Self(trusted::config(&[], true, Some((chain, key)))?))
    }

    /// Whether the kubelet at `place` believes it.
    pub(super) async fn to_kubelet(&self, place: &str) -> Said {
        self.to(place, Method::GET, "/pods", Bytes::new()).await
    }

    /// Whether the API server at `place` does.
    pub(super) async fn to_server(&self, place: &str) -> Said {
        const REVIEW: &str = r#"{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}"#;
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        self.to(place, Method::POST, path, Bytes::from_static(REVIEW.as_bytes())).await
    }

    /// Whether the member of etcd at `place` does: it speaks to nobody whose certificate it does not believe.
    pub(super) async fn to_member(&self, place: &str) -> Said {
        match self.asked(place, Method::GET, "/version", Bytes::new()).await {
            Ok((200, _)) => Said::Believed,
            Ok((code, _)) => Said::Unclear(format!("it answers {code}")),
            Err(error) => Said::Not(format!("it does not believe the prepared authority yet: {error}")),
        }
    }

    async fn to(&self, place: &str, method: Method, path: &str, body: Bytes) -> Said {
        match self.asked(place, method, path, body).await {
            Ok((code, body)) => judge(code, &String::from_utf8_lossy(&body)),
            Err(error) => Said::Not(error),
        }
    }

    /// The answer's code and body.
    async fn asked(
        &self,
        place: &str,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(u16, Bytes), String> {
        let asked = async {
            let (host, port) = place.rsplit_once(':').ok_or("no port")?;
            let host = host.trim_matches(['[', ']']);
            let port = port.parse().map_err(|_| "no port")?;
            let question = Request::builder()
                .method(method)
                .uri(path)
                .header(header::HOST, place)
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::ACCEPT, "application/json")
                .body(Full::new(body))
                .map_err(|e| e.to_string())?;
            let stream = connect(host, port, host, self.0.clone()).await?;
            exchange(stream, question, LONGEST).await
        };
        let answered: Result<_, String> =
            tokio::time::timeout(PATIENCE, asked).await.map_err(|_| "no answer".to_owned())?;
        answered.map_err(|error| format!("it does not answer: {error}"))
    }
}

fn judge(code: u16, body: &str) -> Said {
    if body.contains(USER) {
        Said::Believed
    } else if code == 401 || body.contains("system:anonymous") {
        Said::Not("it does not believe the prepared authority yet".to_owned())
    } else {
        Said::Unclear(format!("it answers {code} and does not say whom it believes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_must_not_pass_for_one_who_is_believed() {
        let forbidden = |user: &str| {
            format!("Forbidden (user={user}, verb=get, resource=nodes, subresource(s)=[pods proxy])")
        };
        let review =
            format!(r#"{{"kind":"SelfSubjectReview","status":{{"userInfo":{{"username":"{USER}"}}}}}}"#);
        for (code, body, believed) in [
            (403, forbidden(USER), true),
            (201, review, true),
            // The API server cannot be asked; whose certificate it is was known before that.
            (
                500,
                format!("Authorization error (user={USER}, verb=get, resource=nodes, subresource=proxy)"),
                true,
            ),
            (401, "Unauthorized".to_owned(), false),
            (403, forbidden("system:anonymous"), false),
        ] {
            assert_eq!(judge(code, &body) == Said::Believed, believed, "{body}");
            assert!(!matches!(judge(code, &body), Said::Unclear(_)), "{body}");
        }
        // A kubelet that lets everybody read says nothing of who that is.
        assert!(matches!(judge(200, "{}"), Said::Unclear(_)));
    }
}
