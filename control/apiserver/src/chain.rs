//! What every request goes through, in order. The order is upstream's and stands in one place: [`Chain::filters`].

use crate::aggregation::Aggregator;
use crate::authn::{Authenticator, Peer};
use crate::authz::{Attributes, Authorizer, forbidden};
use crate::context::{Body, Context, Request, RequestInfo, Response, User};
use crate::flow::Flow;
use crate::handler::FailureLooks;
use crate::headers::Headers;
use crate::metrics::Metrics;
use crate::paths::Paths;
use crate::shutdown::Ending;
use crate::{answer, deadline, drain, impersonation, query, request};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{CACHE_CONTROL, HeaderValue, USER_AGENT};
use http::{HeaderName, Method, StatusCode};
use jiff::Timestamp;
use machinery::status::{Reason, Status};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Answers requests about resources: the registry.
pub trait Resources: Send + Sync + 'static {
    /// Answers one authorised request.
    fn serve(&self, context: Context, request: Request) -> BoxFuture<'static, Response>;

    /// Whether the resource exists, so that metrics may name it.
    fn knows(&self, info: &RequestInfo) -> bool;
}

/// Who is at the other end.
#[derive(Clone)]
pub enum Caller {
    /// A connection; its certificate and the request's token tell.
    Remote(Arc<Peer>),
    /// A part of this program, known by name.
    Local(Arc<User>),
}

/// Everything the filters need.
pub struct Chain {
    pub authenticator: Arc<Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    /// Bounds what is worked on.
    pub flow: Arc<Flow>,
    pub metrics: Arc<Metrics>,
    pub resources: Arc<dyn Resources>,
    /// Requests that other servers answer.
    pub aggregator: Option<Arc<Aggregator>>,
    pub paths: Arc<dyn Paths>,
    /// Longest time of a request that is not long-running.
    pub longest: Duration,
    /// What is said beside every answer.
    pub headers: Headers,
    /// How the server stops.
    pub ending: Arc<Ending>,
    /// Cancelled when the server stops: ends watches.
    pub stopping: CancellationToken,
}

/// An answer found before the end of the chain.
type Refusal = Box<Response>;

fn refuse(status: &Status) -> Refusal {
    Box::new(answer::status(status))
}

impl Chain {
    pub async fn handle(&self, caller: Caller, request: Request) -> Response {
        let begun = Instant::now();
        let audit_id = audit_id(&request);
        let remote = matches!(caller, Caller::Remote(_));
        if let Some(refusal) = self.ending.refusal(&request).filter(|_| remote) {
            return refusal;
        }
        let origin = self.headers.origin(request.headers());
        // Browsers ask without credentials whether they may ask with them.
        if origin.is_some() && request.method() == Method::OPTIONS {
            let mut response = Headers::preflight();
            finish(&mut response, audit_id);
            self.headers.dress(&mut response, origin);
            return response;
        }
        let head = request.method() == Method::HEAD;
        let looks =
            FailureLooks::of(request.headers(), &query::parse(request.uri().query().unwrap_or_default()));
        let mut info = RequestInfo::default();
        let outcome = AssertUnwindSafe(self.filters(caller, request, &mut info)).catch_unwind().await;
        let mut response = match outcome {
            Ok(Ok(response)) => response,
            Ok(Err(refusal)) => *refusal,
            Err(_) => panicked(&info, &audit_id),
        };
        response = looks.dress(response);
        if head {
            *response.body_mut() = Body::default();
        }
        let known = !info.is_resource || self.resources.knows(&info);
        self.metrics.observe(&info, &response, begun.elapsed(), known);
        finish(&mut response, audit_id);
        self.headers.dress(&mut response, origin);
        response
    }

    /// The filters, in order: request info, deadline, authentication, impersonation, limits, authorisation, dispatch.
    /// Around them stand the panic guard, the audit id and the metrics. Limits come after authentication as upstream's
    /// do, since who asks decides which ones hold.
    async fn filters(
        &self,
        caller: Caller,
        request: Request,
        seen: &mut RequestInfo,
    ) -> Result<Response, Refusal> {
        let (mut parts, body) = request.into_parts();
        let query = query::parse(parts.uri.query().unwrap_or_default());
        let info = request::parse(&parts.method, parts.uri.path(), &query)
            .map_err(|e| refuse(&Status::internal_error(e)))?;
        *seen = info.clone();
        let long_running = request::is_long_running(&info);
        // A long-running request's `timeout` is the business of whoever answers it.
        let time = if long_running { Ok(self.longest) } else { deadline::of(&query, self.longest) };
        let time = time.map_err(|s| refuse(&s))?;

        let rest = async {
            let user = self.authenticate(&caller, &mut parts).await?;
            let user = impersonation::impersonate(&mut parts.headers, user, &info, &query, &*self.authorizer)
                .await
                .map_err(|s| refuse(&s))?;
            let admitted = self.flow.admit(&info, &user).await?;
            let mut response = match self.authorize(&info, &user, &query).await {
                Err(refusal) => *refusal,
                Ok(()) => {
                    let user_agent = parts.headers.get(USER_AGENT).and_then(|v| v.to_str().ok());
                    let user_agent = user_agent.unwrap_or_default().to_owned();
                    let context = Context { info, user, query, user_agent };
                    self.dispatch(context, Request::from_parts(parts, body)).await
                }
            };
            admitted.mark(&mut response);
            Ok(response)
        };
        let _under_way = (!long_running).then(|| self.ending.enter());
        if long_running {
            let response = rest.await?;
            return Ok(response.map(|body| drain::until(body, &self.stopping, self.ending.spread())));
        }
        match tokio::time::timeout(time, rest).await {
            Ok(answer) => answer,
            Err(_) => Err(refuse(&deadline::exceeded())),
        }
    }

    async fn authenticate(&self, caller: &Caller, parts: &mut http::request::Parts) -> Result<User, Refusal> {
        let peer = match caller {
            Caller::Local(user) => return Ok((**user).clone()),
            Caller::Remote(peer) => peer,
        };
        self.authenticator.authenticate(peer, parts, Timestamp::now()).await.map_err(|e| {
            tracing::debug!(error = %e, path = parts.uri.path(), "unauthenticated request");
            refuse(&Status::failure(401, Reason::Unauthorized, "Unauthorized"))
        })
    }

    async fn authorize(
        &self,
        info: &RequestInfo,
        user: &User,
        query: &[(String, String)],
    ) -> Result<(), Refusal> {
        let attributes = Attributes::of(info, user, query);
        let decision = self.authorizer.decide(&attributes).await;
        if decision.allowed() {
            return Ok(());
        }
        let mut refusal = refuse(&forbidden::status(&attributes, &decision));
        answer::set(&mut refusal, http::header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        Err(refusal)
    }

    async fn dispatch(&self, context: Context, request: Request) -> Response {
        let request = match &self.aggregator {
            Some(aggregator) => match aggregator.serve(&context, request).await {
                Ok(response) => return response,
                Err(ours) => ours,
            },
            None => request,
        };
        if context.info.is_resource {
            return self.resources.serve(context, request).await;
        }
        let (parts, _) = request.into_parts();
        self.paths.serve(&context, &parts)
    }
}

/// The id the client gave the request, or a new one.
fn audit_id(request: &Request) -> HeaderValue {
    let given =
        request.headers().get(&AUDIT_ID).filter(|v| !v.is_empty() && v.len() <= 64 && v.to_str().is_ok());
    given.cloned().unwrap_or_else(|| {
        let id = uuid::Uuid::new_v4().to_string();
        HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
    })
}

fn finish(response: &mut Response, audit_id: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(AUDIT_ID, audit_id);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
}

fn panicked(info: &RequestInfo, audit_id: &HeaderValue) -> Response {
    tracing::error!(path = info.path, verb = info.verb, audit_id = ?audit_id, "a request caused a panic");
    answer::text(
        StatusCode::INTERNAL_SERVER_ERROR,
        "This request caused apiserver to panic. Look in the logs for details.\n",
    )
}
