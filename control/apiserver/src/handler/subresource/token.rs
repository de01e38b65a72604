//! `serviceaccounts/token`: a signed token for an account, bound to what asks for it
//! (upstream: `pkg/registry/core/serviceaccount/storage/token.go`).

use super::super::{Exchange, body};
use super::created;
use crate::admission::{self, Attributes, Operation};
use crate::context::{Body, Response};
use crate::registry::kind::Kind;
use crate::registry::metadata::time;
use jiff::{SignedDuration, Timestamp};
use machinery::access::{Get as _, set_at};
use machinery::field::{FieldError, Path};
use machinery::object;
use machinery::object::{Gk, Gr, Gvk};
use machinery::status::Status;
use pki::service_account::{BoundObject, Claims, KubernetesClaims};
use serde_json::{Value, json};

const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
/// Admission's projected tokens ask for this; they are given a year with a warning after this long, so that clients which
/// never read their token again keep working.
const WARN_AFTER: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

pub(super) async fn create(x: &Exchange<'_>, request: Body) -> Result<Response, Status> {
    let call = x.call()?;
    let bytes = body::read(request).await?;
    let gvk = Gvk::new("authentication.k8s.io", "v1", "TokenRequest");
    let (review, warnings) = body::decode(&x.headers, &bytes, &gvk, call.options.field_validation)?;
    x.warn(warnings);
    x.audit_as_is(&review);
    let mut attributes = Attributes::of_sent(&x.writer.admission, &call, Operation::Create, gvk, review);
    admission::sent(x.registry, &mut attributes).await?;
    let mut review = attributes.object.take().unwrap_or_default();
    let config = &x.registry.config;
    let Some(key) = &config.service_account_key else {
        return Err(Status::not_found(&Gr::new("", "serviceaccounts/token"), &call.name));
    };
    let kind = Gk::new("authentication.k8s.io", "TokenRequest");
    let metadata = Path::new("metadata");
    for (field, given, own) in [
        ("name", object::name(&review), &call.name),
        ("namespace", object::namespace(&review), &call.namespace),
    ] {
        if !given.is_empty() && given != own {
            let why = format!("must match the service account {field} if specified");
            let error = FieldError::invalid(&metadata.child(field), given, why);
            return Err(Status::invalid(&kind, &call.name, &[error]));
        }
    }
    let account = x.registry.read_required(&x.kind, &call.namespace, &call.name).await?;
    let (asked, uid) = (object::uid(&review), object::uid(&account));
    if !asked.is_empty() && asked != uid {
        let why = format!(
            "the UID in the token request ({asked}) does not match the UID of the service account ({uid})"
        );
        return Err(Status::conflict(&Gr::new(&kind.group, &kind.kind), &call.name, why));
    }
    let spec = Path::new("spec");
    let seconds = review.present("spec.expirationSeconds").and_then(Value::as_i64).unwrap_or(DEFAULT_SECONDS);
    let path = spec.child("expirationSeconds");
    let mut errors = Vec::new();
    if seconds < MIN_SECONDS {
        errors.push(FieldError::invalid(&path, seconds, "may not specify a duration less than 10 minutes"));
    }
    if seconds > MAX_SECONDS {
        errors.push(FieldError::invalid(
            &path,
            seconds,
            "may not specify a duration larger than 2^32 seconds",
        ));
    }
    if !errors.is_empty() {
        return Err(Status::invalid(&kind, "", &errors));
    }
    let mut audiences: Vec<String> =
        review.items("spec.audiences").iter().filter_map(|a| a.as_str().map(str::to_owned)).collect();
    if audiences.is_empty() {
        audiences.clone_from(&config.api_audiences);
    }
    let now = Timestamp::now();
    let mut kubernetes = KubernetesClaims {
        namespace: call.namespace.clone(),
        serviceaccount: bound(&account),
        ..KubernetesClaims::default()
    };
    if let Some(reference) = review.present("spec.boundObjectRef") {
        bind(x, &call.namespace, reference, &account, &mut kubernetes).await?;
    }
    if seconds > config.max_token_seconds {
        x.warn([format!(
            "requested expiration of {seconds} seconds shortened to {} seconds",
            config.max_token_seconds
        )]);
    }
    let seconds = seconds.min(config.max_token_seconds);
    // Others do not know the mark of a token that outlives its time.
    let is_ours = audiences.iter().all(|audience| config.api_audiences.contains(audience));
    let pod_bound = kubernetes.pod.is_some();
    let extended = config.extend_token_expiration && seconds == WARN_AFTER && pod_bound && is_ours;
    if extended {
        kubernetes.warnafter = Some(now.as_second() + WARN_AFTER);
    }
    let life = if extended { EXTENDED_SECONDS } else { seconds };
    let claims = Claims {
        aud: audiences.clone(),
        exp: now.as_second() + life,
        iat: Some(now.as_second()),
        iss: config.service_account_issuer.clone(),
        jti: uuid::Uuid::new_v4().to_string(),
        kubernetes,
        nbf: Some(now.as_second()),
        sub: format!("system:serviceaccount:{}:{}", call.namespace, call.name),
    };
    let token =
        key.sign(&claims).map_err(|e| Status::internal_error(format!("failed to generate token: {e}")))?;
    x.context
        .audit
        .annotate("authentication.kubernetes.io/issued-credential-id", || format!("JTI={}", claims.jti));
    // The client learns when to fetch another, which for an extended token is long before its end.
    let shown = if extended { WARN_AFTER } else { life };
    let end = now.saturating_add(SignedDuration::from_secs(shown)).unwrap_or(Timestamp::MAX);
    object::set_name(&mut review, &call.name);
    object::set_namespace(&mut review, &call.namespace);
    object::set_uid(&mut review, object::uid(&account));
    set_at(&mut review, "metadata.creationTimestamp", time(now));
    set_at(&mut review, "spec.expirationSeconds", seconds);
    set_at(&mut review, "spec.audiences", json!(audiences));
    set_at(&mut review, "status", json!({"token": token, "expirationTimestamp": time(end)}));
    created(x, &review)
}

fn bound(object: &Value) -> BoundObject {
    BoundObject { name: object::name(object).to_owned(), uid: object::uid(object).to_owned() }
}

/// Looks up what the token should be bound to.
async fn bind(
    x: &Exchange<'_>,
    namespace: &str,
    reference: &Value,
    account: &Value,
    claims: &mut KubernetesClaims,
) -> Result<(), Status> {
    let name = reference.text("name");
    let (api_version, kind) = (reference.text("apiVersion"), reference.text("kind"));
    let of = |plural: &str| Kind::of("", plural).ok_or_else(|| Status::internal_error("not served"));
    let object = match (api_version, kind) {
        ("v1" | "", "Pod") => {
            let pod = x.registry.read_required(&of("pods")?, namespace, name).await?;
            let runs_as = pod.text("spec.serviceAccountName");
            if runs_as != object::name(account) {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    object::name(account)
                )));
            }
            let node = pod.text("spec.nodeName");
            if !node.is_empty() {
                let stored = x.registry.lookup(&of("nodes")?, "", node).await?;
                let uid = stored.as_ref().map(|n| object::uid(n).to_owned()).unwrap_or_default();
                claims.node = Some(BoundObject { name: node.to_owned(), uid });
            }
            claims.pod = Some(bound(&pod));
            pod
        }
        ("v1" | "", "Secret") => {
            let secret = x.registry.read_required(&of("secrets")?, namespace, name).await?;
            claims.secret = Some(bound(&secret));
            secret
        }
        ("v1" | "", "Node") => {
            let node = x.registry.read_required(&of("nodes")?, "", name).await?;
            claims.node = Some(bound(&node));
            node
        }
        _ => {
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {}",
                Gvk::parse(api_version, kind).unwrap_or_default()
            )));
        }
    };
    let uid = reference.text("uid");
    if !uid.is_empty() && uid != object::uid(&object) {
        return Err(Status::conflict(
            &Gr::new("", kind),
            name,
            format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            ),
        ));
    }
    Ok(())
}
