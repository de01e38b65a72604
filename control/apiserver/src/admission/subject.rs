//! What expressions see of a request: its object as a version has it, the request itself, its namespace, its author's rights.

use super::{Attributes, Seen, review};
use crate::context::{RequestInfo, User};
use crate::registry::Registry;
use crate::registry::hooks::Decision;
use crate::registry::kind::Kind;
use machinery::admission::{Authorizer, Check, Evaluator};
use machinery::status::Status;
use serde_json::Value;
use std::sync::Arc;

/// A request in the version in which a webhook or policy means it.
pub(super) struct Subject {
    pub object: Value,
    pub old: Value,
    request: Value,
    namespace: Value,
}

/// Object and old object as `kind`'s version has them; null where there is none. Custom objects may have to be converted by a webhook.
pub(super) async fn shown(
    registry: &Registry,
    a: &Attributes<'_>,
    kind: &Kind,
) -> Result<(Value, Value), Status> {
    if !matches!(a.seen, Seen::As(_)) && a.sent.is_none() && kind.is_converted() {
        // Both in one question.
        let both = [&a.object, &a.old].into_iter().flatten().cloned().collect();
        let shown = registry.present_many(kind, both).await;
        let mut shown = shown.map_err(|e| Status::internal_error(e.message))?.into_iter();
        let object = a.object.as_ref().and_then(|_| shown.next()).unwrap_or_default();
        return Ok((object, shown.next().unwrap_or_default()));
    }
    Ok((show(a, kind, a.object.as_ref()), show(a, kind, a.old.as_ref())))
}

fn show(a: &Attributes<'_>, kind: &Kind, object: Option<&Value>) -> Value {
    let Some(object) = object else { return Value::Null };
    if let Seen::As(view) = a.seen {
        return (view.of)(&a.kind, object);
    }
    let mut object = object.clone();
    if a.sent.is_none() {
        kind.to_client(&mut object);
    }
    object
}

impl Subject {
    /// Without the namespace's object.
    pub(super) async fn new(registry: &Registry, a: &Attributes<'_>, kind: &Kind) -> Result<Self, Status> {
        let (object, old) = shown(registry, a, kind).await?;
        let mut review = review::request(a, kind, &Value::Null, &Value::Null, "v1", "");
        let mut request = review.get_mut("request").map(Value::take).unwrap_or_default();
        if let Some(request) = request.as_object_mut() {
            for hidden in ["uid", "object", "oldObject"] {
                request.remove(hidden);
            }
        }
        Ok(Subject { object, old, request, namespace: Value::Null })
    }

    /// The same request after its object was changed.
    pub(super) async fn renewed(
        &self,
        registry: &Registry,
        a: &Attributes<'_>,
        kind: &Kind,
    ) -> Result<Self, Status> {
        Ok(Subject { namespace: self.namespace.clone(), ..Subject::new(registry, a, kind).await? })
    }

    /// With the namespace's object, which policies see.
    pub(super) async fn in_namespace(
        registry: &Registry,
        a: &Attributes<'_>,
        kind: &Kind,
    ) -> Result<Self, Status> {
        let mut subject = Subject::new(registry, a, kind).await?;
        if !a.namespace.is_empty()
            && let Some(namespaces) = Kind::of("", "namespaces")
        {
            let found = registry.lookup(&namespaces, "", &a.namespace).await?;
            let mut namespace = found.ok_or_else(|| Status::not_found(&namespaces.gr(), &a.namespace))?;
            machinery::access::remove_at(&mut namespace, "metadata.managedFields");
            subject.namespace = namespace;
        }
        Ok(subject)
    }

    /// An evaluator of conditions about this request. They do not see its namespace, as upstream's do not.
    pub(super) fn evaluator<'e>(&self, registry: &Registry, a: &Attributes<'_>) -> Evaluator<'e> {
        let mut evaluator = Evaluator::default();
        evaluator.bind("object", &self.object);
        evaluator.bind("oldObject", &self.old);
        evaluator.bind("request", &self.request);
        evaluator.bind("namespaceObject", &Value::Null);
        evaluator.authorize(authorizer(registry, a).as_ref());
        evaluator
    }

    /// Shows the namespace to expressions of policies.
    pub(super) fn show_namespace(&self, evaluator: &mut Evaluator<'_>) {
        evaluator.bind("namespaceObject", &self.namespace);
    }
}

/// Decides as the server would; none before the front is there.
fn authorizer(registry: &Registry, a: &Attributes<'_>) -> Option<Authorizer> {
    let front = registry.front().ok()?.clone();
    let user = a.user.clone();
    let decide = move |check: &Check| {
        let user = check.account.as_ref().map_or_else(|| user.clone(), |name| account(name));
        let info = RequestInfo {
            is_resource: check.path.is_none(),
            path: check.path.clone().unwrap_or_default(),
            verb: check.verb.clone(),
            group: check.group.clone(),
            version: "*".to_owned(),
            namespace: check.namespace.clone(),
            resource: check.resource.clone(),
            subresource: check.subresource.clone(),
            name: check.name.clone(),
            ..RequestInfo::default()
        };
        match front.authorize_now(&user, &info, &check.fields) {
            Decision::Allow(reason) => (true, reason),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => (false, reason),
        }
    };
    let request = Check {
        group: a.kind.resource.group.to_owned(),
        resource: a.kind.resource.plural.to_owned(),
        subresource: a.request_subresource().to_owned(),
        namespace: a.request_namespace().to_owned(),
        name: a.name.clone(),
        ..Check::default()
    };
    Some(Authorizer::new(Arc::new(decide), request))
}

/// A service account, as a request with its token would have it.
fn account(name: &str) -> User {
    let namespace = name.rsplit(':').nth(1).unwrap_or_default();
    User {
        name: name.to_owned(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ],
        ..User::default()
    }
}
