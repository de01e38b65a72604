//! An issuer's keys: found by its discovery document when they are first needed, asked for again when a token is by none of them.
//!
//! What wakes it: tokens. What it reads: the discovery document, again where its key set is not to be had or has no new keys; the key set.
//! What it promises: one question is under way at a time; nobody waits long for it, and whoever comes next goes on with it; while another does so,
//! nobody waits for the first keys at all. An issuer that does not answer is left alone for a while: anybody can send tokens in its name.

use crate::stream::trusted;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http_body_util::Empty;
use pki::jwk::KeySet;
use rustls::ClientConfig;
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long an issuer may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one that failed is not asked again, as upstream's initialisation.
const AFTER_FAILURE: Duration = Duration::from_secs(10);
/// How old a key set is at least when it is asked for again.
const AFTER_ANSWER: Duration = Duration::from_secs(1);
/// How long a token waits for an answer, and for newer keys that another is asking for.
const BESIDE: Duration = Duration::from_secs(1);
/// What upstream says while an issuer has not told its keys.
const NOT_READY: &str = "oidc: authenticator not initialized";
/// Bytes of a document.
const LONGEST: usize = 1 << 20;

/// Where keys come from.
pub trait Keys: Send + Sync {
    /// The keys that are known; the first time, they are asked for.
    fn known(&self) -> BoxFuture<'_, Result<Arc<KeySet>, String>>;

    /// Newer keys than those, as far as there are.
    fn fresh<'a>(&'a self, old: &'a Arc<KeySet>) -> BoxFuture<'a, Result<Arc<KeySet>, String>>;
}

/// An issuer on the network.
#[derive(Debug)]
pub struct Remote {
    source: Arc<Source>,
    /// Read without waiting: a question that anybody provoked holds up nobody whose key is known.
    known: ArcSwapOption<Known>,
    /// Held by who asks.
    asking: Mutex<Asking>,
}

#[derive(Debug)]
struct Known {
    at: Instant,
    keys: Arc<KeySet>,
}

/// Where an issuer's documents are.
#[derive(Debug)]
struct Source {
    issuer: String,
    /// Where the discovery document is.
    discovery: String,
    tls: Arc<ClientConfig>,
}

/// The keys, and where they are.
type Answer = (Result<KeySet, String>, Option<String>);

#[derive(Default)]
struct Asking {
    /// Where the keys are.
    place: Option<String>,
    failed: Option<(Instant, String)>,
    /// A question that nobody waits for now.
    under_way: Option<BoxFuture<'static, Answer>>,
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking")
            .field("place", &self.place)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Remote {
    /// The issuer of this URL, whose discovery document may be somewhere else; `authorities` (PEM) sign its certificate, or the
    /// machine's do.
    ///
    /// # Errors
    /// The authorities are none.
    pub fn new(
        issuer: &str,
        discovery: Option<&str>,
        authorities: Option<&str>,
    ) -> Result<Self, trusted::BundleError> {
        let usual = || format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let tls = trusted::config(authorities.unwrap_or_default().as_bytes(), false, None)?;
        let discovery = discovery.map_or_else(usual, str::to_owned);
        let (known, asking) = (ArcSwapOption::empty(), Mutex::default());
        let source = Arc::new(Source { issuer: issuer.to_owned(), discovery, tls });
        Ok(Self { source, known, asking })
    }

    /// Keys that are not `old`, asked for unless somebody just has.
    async fn others_than(&self, old: Option<&Arc<KeySet>>) -> Result<Arc<KeySet>, String> {
        let patience = old.map_or(Duration::ZERO, |_| BESIDE);
        let Ok(mut asking) = tokio::time::timeout(patience, self.asking.lock()).await else {
            return old.cloned().ok_or_else(|| NOT_READY.to_owned());
        };
        let known = self.known.load_full();
        if let Some(known) = &known
            && (old.is_none_or(|old| !Arc::ptr_eq(&known.keys, old)) || known.at.elapsed() < AFTER_ANSWER)
        {
            return Ok(known.keys.clone());
        }
        // Keys that were right are right still.
        let kept = |error: String| known.as_ref().map(|known| known.keys.clone()).ok_or(error);
        if let Some((at, error)) = &asking.failed
            && at.elapsed() < AFTER_FAILURE
        {
            return kept(error.clone());
        }
        let mut question: BoxFuture<'static, Answer> = match asking.under_way.take() {
            Some(question) => question,
            None => {
                let (source, place) = (self.source.clone(), asking.place.take());
                Box::pin(async move { source.ask(place).await })
            }
        };
        let Ok((answer, place)) = tokio::time::timeout(BESIDE, &mut question).await else {
            asking.under_way = Some(question);
            return kept(NOT_READY.to_owned());
        };
        asking.place = place;
        match answer {
            Ok(keys) => {
                if known.as_ref().is_some_and(|known| *known.keys == keys) {
                    // The key that was wanted may be in a set that is somewhere else by now.
                    asking.place = None;
                }
                let keys = Arc::new(keys);
                self.known.store(Some(Arc::new(Known { at: Instant::now(), keys: keys.clone() })));
                asking.failed = None;
                Ok(keys)
            }
            Err(error) => {
                tracing::error!(issuer = self.source.issuer, error, "read an issuer's keys");
                let error = format!("{NOT_READY}: {error}");
                asking.failed = Some((Instant::now(), error.clone()));
                kept(error)
            }
        }
    }
}

impl Source {
    async fn ask(&self, mut place: Option<String>) -> Answer {
        let answer = self.keys(&mut place).await;
        (answer, place)
    }

    async fn keys(&self, place: &mut Option<String>) -> Result<KeySet, String> {
        let found = match place.clone() {
            Some(found) => found,
            None => {
                let document = self.get(&self.discovery).await?;
                let named = document["issuer"].as_str().unwrap_or_default();
                if named != self.issuer {
                    return Err(format!(
                        "oidc: issuer did not match the issuer returned by provider, expected {:?} got {named:?}",
                        self.issuer
                    ));
                }
                let found = document["jwks_uri"].as_str().unwrap_or_default();
                if found.is_empty() {
                    return Err("provider did not return JWKS URL".to_owned());
                }
                place.insert(found.to_owned()).clone()
            }
        };
        let set = self.get(&found).await;
        if set.is_err() {
            // It may have moved.
            *place = None;
        }
        Ok(KeySet::of(&set?))
    }

    async fn get(&self, url: &str) -> Result<Value, String> {
        let said = |e: String| format!("Get {url:?}: {e}");
        let asked = tokio::time::timeout(PATIENCE, self.fetch(url)).await;
        let (code, body) =
            asked.unwrap_or_else(|_| Err("context deadline exceeded".to_owned())).map_err(said)?;
        if code != 200 {
            return Err(said(format!("the answer is {code}")));
        }
        serde_json::from_slice(&body).map_err(|e| said(e.to_string()))
    }

    async fn fetch(&self, url: &str) -> Result<(u16, Bytes), String> {
        let uri: http::Uri = url.parse().map_err(|e: http::uri::InvalidUri| e.to_string())?;
        if uri.scheme_str() != Some("https") {
            return Err("URL scheme must be https".to_owned());
        }
        let authority = uri.authority().ok_or("the URL names no host")?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(443);
        let stream = trusted::connect(host, port, host, self.tls.clone()).await?;
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let question = http::Request::get(path)
            .header(HOST, authority.as_str())
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, "kube-apiserver")
            .body(Empty::<Bytes>::new())
            .map_err(|e| e.to_string())?;
        trusted::exchange(stream, question, LONGEST).await
    }
}

impl Keys for Remote {
    fn known(&self) -> BoxFuture<'_, Result<Arc<KeySet>, String>> {
        Box::pin(async move {
            match self.known.load_full() {
                Some(known) => Ok(known.keys.clone()),
                None => self.others_than(None).await,
            }
        })
    }

    fn fresh<'a>(&'a self, old: &'a Arc<KeySet>) -> BoxFuture<'a, Result<Arc<KeySet>, String>> {
        Box::pin(self.others_than(Some(old)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_question_under_way_must_not_hold_up_those_whose_keys_are_known() {
        let remote = Remote::new("https://127.0.0.1:1", None, None).unwrap();
        let error = remote.known().await.unwrap_err();
        assert!(error.starts_with("oidc: authenticator not initialized: Get"), "{error}");
        let keys = Arc::new(KeySet::default());
        remote.known.store(Some(Arc::new(Known { at: Instant::now(), keys: keys.clone() })));
        let asking = remote.asking.lock().await;
        let known = tokio::time::timeout(Duration::from_secs(60), remote.known()).await;
        assert!(Arc::ptr_eq(&known.unwrap().unwrap(), &keys));
        drop(asking);
        assert!(Arc::ptr_eq(&remote.fresh(&keys).await.unwrap(), &keys), "it was asked just now");
    }

    #[tokio::test]
    async fn no_caller_must_wait_for_an_issuer_that_is_silent() {
        // It takes connections, and says nothing.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let remote = Remote::new(&format!("https://{}", listener.local_addr().unwrap()), None, None).unwrap();
        for _ in 0..2 {
            let began = Instant::now();
            assert_eq!(remote.known().await.unwrap_err(), NOT_READY);
            assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
        }
        assert!(
            remote.asking.lock().await.under_way.is_some(),
            "the second went on with the first one's question"
        );
        let (_first, _) = listener.accept().await.unwrap();
        let second = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
        assert!(second.is_err(), "and asked no other");
    }

    #[tokio::test]
    async fn callers_must_not_wait_for_an_issuer_that_another_is_asking() {
        let remote = Remote::new("https://127.0.0.1:1", None, None).unwrap();
        let asking = remote.asking.lock().await;
        let at_once = tokio::time::timeout(Duration::from_millis(500), remote.known()).await;
        assert_eq!(at_once.unwrap().unwrap_err(), NOT_READY);
        let old = Arc::new(KeySet::default());
        let soon = tokio::time::timeout(Duration::from_secs(20), remote.fresh(&old)).await;
        assert!(Arc::ptr_eq(&soon.unwrap().unwrap(), &old));
        drop(asking);
    }

    /// An issuer whose key set is where `place` says, and that has served these paths.
    #[allow(clippy::disallowed_methods, reason = "a test")]
    async fn issuer(
        place: Arc<parking_lot::Mutex<&'static str>>,
    ) -> (Remote, Arc<parking_lot::Mutex<Vec<String>>>) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let authority = pki::Authority::generate("ca", jiff::Timestamp::now()).unwrap();
        let leaf = pki::Leaf::server("issuer", Vec::new(), vec!["127.0.0.1".parse().unwrap()]);
        let issued = authority.issue(&leaf, jiff::Timestamp::now()).unwrap();
        let chain = pki::pem::certificates(issued.cert_pem.as_bytes()).unwrap();
        let key = pki::pem::private_key(issued.key_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let log = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let (named, served) = (url.clone(), log.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = [0; 4096];
                let length = stream.read(&mut request).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                served.lock().push(path.clone());
                let place = *place.lock();
                let (code, body) = match path.as_str() {
                    "/.well-known/openid-configuration" => {
                        let jwks_uri = format!("{named}{place}");
                        (200, serde_json::json!({"issuer": named, "jwks_uri": jwks_uri}))
                    }
                    path if path == place => (200, serde_json::json!({"keys": []})),
                    _ => (404, Value::Null),
                };
                let body = body.to_string();
                let answer = format!("HTTP/1.1 {code} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.ok();
                stream.shutdown().await.ok();
            }
        });
        (Remote::new(&url, None, Some(&authority.cert_pem())).unwrap(), log)
    }

    #[tokio::test]
    async fn keys_that_moved_must_not_be_looked_for_at_their_old_place_for_ever() {
        let place = Arc::new(parking_lot::Mutex::new("/a"));
        let (remote, log) = issuer(place.clone()).await;
        let discovery = "/.well-known/openid-configuration";
        let mut asking = Asking::default();
        remote.source.keys(&mut asking.place).await.unwrap();
        assert_eq!(*log.lock(), [discovery, "/a"]);
        remote.source.keys(&mut asking.place).await.unwrap();
        assert_eq!(log.lock().pop().unwrap(), "/a", "once is enough while they are there");
        *place.lock() = "/b";
        assert!(remote.source.keys(&mut asking.place).await.is_err());
        remote.source.keys(&mut asking.place).await.unwrap();
        assert_eq!(log.lock()[3..], [discovery, "/b"]);
        // And where the old place still answers, but has no new keys.
        let known = Arc::new(KeySet::default());
        let long_ago = Instant::now().checked_sub(2 * AFTER_ANSWER).unwrap();
        remote.known.store(Some(Arc::new(Known { at: long_ago, keys: known.clone() })));
        *remote.asking.lock().await = asking;
        remote.fresh(&known).await.unwrap();
        assert!(remote.asking.lock().await.place.is_none());
    }
}
