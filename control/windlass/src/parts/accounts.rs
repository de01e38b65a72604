//! A client for each controller, as its own service account (`--use-service-account-credentials`).
//!
//! A request takes the account's token along, which is asked for when it is first needed and again before it ends; an account that is not
//! there is made. What its role lets it update but not patch is updated ([`update`]). Upstream: `controller-manager`'s dynamic client builder.

mod update;

use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use kube::client::Body;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::Mutex;
use update::Patch;

/// Where the accounts are.
const NAMESPACE: &str = "kube-system";
/// Life of a token, in seconds.
const LIFE: i64 = 3600;
/// What is left of a token's life when the next one is asked for, in seconds.
const LEEWAY: i64 = 720;

/// A client of the account `name`; `root` gets its tokens, and requests go by `bare`, which has no credentials of its own.
pub(crate) fn client(root: &kube::Client, bare: &kube::Client, name: &str) -> kube::Client {
    let account = Account {
        root: root.clone(),
        bare: bare.clone(),
        name: name.to_owned(),
        token: Mutex::default(),
        updated: Mutex::default(),
    };
    kube::Client::new(Service(Arc::new(account)), NAMESPACE)
}

struct Account {
    root: kube::Client,
    bare: kube::Client,
    name: String,
    token: Mutex<Option<Token>>,
    /// What it may not patch.
    updated: Mutex<BTreeSet<String>>,
}

struct Token {
    header: HeaderValue,
    until: Timestamp,
}

#[derive(Clone)]
struct Service(Arc<Account>);

impl tower::Service<Request<Body>> for Service {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, kube::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let account = self.0.clone();
        Box::pin(async move {
            match request.method() == Method::PATCH {
                true => account.patch(request).await,
                false => account.send(request).await,
            }
        })
    }
}

impl Account {
    async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let token = self.token(Timestamp::now()).await?;
        request.headers_mut().insert(header::AUTHORIZATION, token);
        let response = self.bare.send(request).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            // Its account was deleted, or the keys changed: the next request asks again.
            *self.token.lock().await = None;
        }
        Ok(response)
    }

    /// Patches, or updates where only that is allowed.
    async fn patch(&self, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.map_err(|error| kube::Error::Service(error.into()))?.to_bytes();
        let patch = Patch::of(&parts, &bytes);
        let again = || Request::from_parts(parts, Body::from(bytes.to_vec()));
        let Some(patch) = patch else { return self.send(again()).await };
        let subject = patch.subject();
        if !self.updated.lock().await.contains(&subject) {
            let response = self.send(again()).await?;
            if response.status() != StatusCode::FORBIDDEN {
                return Ok(response);
            }
            tracing::debug!(account = self.name, subject, "may not patch; updates");
            self.updated.lock().await.insert(subject);
        }
        let failed = |why: &str| kube::Error::Service(format!("update instead of a patch: {why}").into());
        let response = self.send(patch.read().ok_or_else(|| failed("no path"))?).await?;
        let object = match response.status() {
            StatusCode::FORBIDDEN => {
                let response = self.root.send(patch.list().ok_or_else(|| failed("no path"))?).await?;
                if !response.status().is_success() {
                    return Ok(response);
                }
                Patch::listed(json(response).await?)
            }
            status if status.is_success() => Some(json(response).await?),
            _ => return Ok(response),
        };
        match object {
            Some(object) => self.send(patch.write(object).ok_or_else(|| failed("it does not apply"))?).await,
            None => not_found(),
        }
    }

    async fn token(&self, now: Timestamp) -> Result<HeaderValue, kube::Error> {
        let mut kept = self.token.lock().await;
        let good = kept.as_ref().filter(|token| token.until.as_second() - LEEWAY > now.as_second());
        if let Some(token) = good {
            return Ok(token.header.clone());
        }
        let token = self.ask(now).await?;
        let header = token.header.clone();
        *kept = Some(token);
        Ok(header)
    }

    async fn ask(&self, now: Timestamp) -> Result<Token, kube::Error> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.root.clone(), NAMESPACE);
        let spec = TokenRequestSpec { expiration_seconds: Some(LIFE), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let parameters = PostParams::default();
        let mut answer = accounts.create_token_request(&self.name, &parameters, &request).await;
        if let Err(kube::Error::Api(status)) = &answer
            && status.code == 404
        {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let account = ServiceAccount { metadata, ..ServiceAccount::default() };
            match accounts.create(&parameters, &account).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                made => drop(made?),
            }
            answer = accounts.create_token_request(&self.name, &parameters, &request).await;
        }
        let status = answer?.status.unwrap_or_default();
        let token =
            status.token.ok_or_else(|| kube::Error::Service("a token was asked for in vain".into()))?;
        let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|error| kube::Error::Service(error.into()))?;
        header.set_sensitive(true);
        let until = status.expiration_timestamp.map_or(now, |until| until.0);
        Ok(Token { header, until })
    }
}

async fn json(response: Response<Body>) -> Result<serde_json::Value, kube::Error> {
    let read = response.into_body().collect().await.map_err(|error| kube::Error::Service(error.into()))?;
    serde_json::from_slice(&read.to_bytes()).map_err(kube::Error::SerdeError)
}

/// What a server says of an object that is not there.
fn not_found() -> Result<Response<Body>, kube::Error> {
    let status = kube::core::Status::failure("not found", "NotFound").with_code(404);
    let body = serde_json::to_vec(&status).map_err(kube::Error::SerdeError)?;
    let response = Response::builder().status(StatusCode::NOT_FOUND).body(Body::from(body));
    response.map_err(kube::Error::HttpError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ConfigMap, Pod};
    use kube::api::{Patch as Change, PatchParams};
    use serde_json::json;
    use std::convert::Infallible;
    use std::sync::Mutex as Plain;

    type Seen = Arc<Plain<Vec<String>>>;

    fn answer(code: u16, body: serde_json::Value) -> Response<Body> {
        Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap()
    }

    /// The API server as the root client sees it: the account is made first.
    fn root(seen: &Seen, seconds: i64) -> kube::Client {
        let seen = seen.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let seen = seen.clone();
            async move {
                let path = request.uri().path().to_owned();
                drop(request.into_body().collect().await);
                let made = seen.lock().unwrap().iter().any(|p| p.ends_with("/serviceaccounts"));
                seen.lock().unwrap().push(path.clone());
                let until = Timestamp::from_second(Timestamp::now().as_second() + seconds).unwrap();
                Ok::<_, Infallible>(match (path.ends_with("/token"), made) {
                    (true, false) => answer(
                        404,
                        json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "", "status": "Failure"}),
                    ),
                    (true, true) => answer(
                        201,
                        json!({"metadata": {}, "spec": {"audiences": []}, "status": {"token": "t1", "expirationTimestamp": until}}),
                    ),
                    (false, _) => answer(201, json!({"metadata": {"name": "x"}})),
                })
            }
        });
        kube::Client::new(service, "default")
    }

    fn bare(seen: &Seen) -> kube::Client {
        let seen = seen.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let token = request.headers()[header::AUTHORIZATION].to_str().unwrap().to_owned();
            seen.lock().unwrap().push(token);
            async { Ok::<_, Infallible>(answer(200, json!({"metadata": {"name": "p"}}))) }
        });
        kube::Client::new(service, "default")
    }

    #[tokio::test]
    async fn requests_go_as_the_account_whose_token_is_asked_for_once() {
        let (asked, sent) = (Seen::default(), Seen::default());
        let client = client(&root(&asked, 3600), &bare(&sent), "job-controller");
        let pods: Api<Pod> = Api::namespaced(client, "n");
        for _ in 0..3 {
            pods.get("p").await.unwrap();
        }
        assert_eq!(*sent.lock().unwrap(), ["Bearer t1"; 3]);
        let accounts = "/api/v1/namespaces/kube-system/serviceaccounts";
        let token = format!("{accounts}/job-controller/token");
        assert_eq!(*asked.lock().unwrap(), [token.as_str(), accounts, token.as_str()]);
    }

    /// Upstream lets the publisher of the root authority update ConfigMaps, and neither patch, get nor list them.
    #[tokio::test]
    async fn what_an_account_may_only_update_must_not_be_left_as_it_is() {
        let root = tower::service_fn(|request: Request<Body>| async move {
            let uri = request.uri().to_string();
            let map =
                json!({"metadata": {"name": "m", "resourceVersion": "7"}, "data": {"a": "b", "c": "d"}});
            Ok::<_, Infallible>(match uri.as_str() {
                "/api/v1/namespaces/n/configmaps?fieldSelector=metadata.name%3Dm" => {
                    answer(200, json!({"kind": "ConfigMapList", "apiVersion": "v1", "items": [map]}))
                }
                gone if gone.ends_with("metadata.name%3Dgone") => {
                    answer(200, json!({"kind": "ConfigMapList", "apiVersion": "v1", "items": []}))
                }
                _ => answer(
                    201,
                    json!({"metadata": {}, "spec": {"audiences": []}, "status": {"token": "t1", "expirationTimestamp": Timestamp::MAX}}),
                ),
            })
        });
        let written = Arc::new(Plain::new(Vec::new()));
        let seen = written.clone();
        let bare = tower::service_fn(move |request: Request<Body>| {
            let seen = seen.clone();
            async move {
                if request.method() != Method::PUT {
                    let status = kube::core::Status::failure("no", "Forbidden").with_code(403);
                    return Ok::<_, Infallible>(answer(403, serde_json::to_value(status).unwrap()));
                }
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                seen.lock().unwrap().push(body.clone());
                Ok(answer(200, body))
            }
        });
        let client =
            client(&kube::Client::new(root, "default"), &kube::Client::new(bare, "default"), "publisher");
        let maps: Api<ConfigMap> = Api::namespaced(client, "n");
        let patch = Change::Merge(json!({"data": {"a": "new"}}));
        maps.patch("m", &PatchParams::default(), &patch).await.unwrap();
        let expected = json!({"kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": "m", "resourceVersion": "7"}, "data": {"a": "new", "c": "d"}});
        assert_eq!(*written.lock().unwrap(), [expected]);
        let gone = maps.patch("gone", &PatchParams::default(), &patch).await.unwrap_err();
        assert!(matches!(gone, kube::Error::Api(status) if status.code == 404));
    }

    #[tokio::test]
    async fn a_token_is_replaced_before_it_ends() {
        let (asked, sent) = (Seen::default(), Seen::default());
        let client = client(&root(&asked, LEEWAY - 10), &bare(&sent), "job-controller");
        let pods: Api<Pod> = Api::namespaced(client, "n");
        pods.get("p").await.unwrap();
        pods.get("p").await.unwrap();
        assert_eq!(asked.lock().unwrap().len(), 4);
    }
}
