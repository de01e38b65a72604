//! TokenReview, SubjectAccessReview and their kin: the front answers them.

use super::super::{Exchange, body};
use super::created;
use crate::admission::{self, Attributes, Operation};
use crate::context::{Body, Response};
use machinery::status::Status;

pub(super) async fn create(x: &Exchange<'_>, request: Body) -> Result<Response, Status> {
    let call = x.call()?;
    let bytes = body::read(request).await?;
    let (review, warnings) = body::decode(&x.headers, &bytes, &x.kind.gvk(), call.options.field_validation)?;
    x.warn(warnings);
    x.audit_as_is(&review);
    let mut attributes =
        Attributes::of_sent(&x.writer.admission, &call, Operation::Create, x.kind.gvk(), review);
    admission::sent(x.registry, &mut attributes).await?;
    let review = attributes.object.take().unwrap_or_default();
    let info = &x.context.info;
    let answer =
        x.registry.front()?.review(x.kind.resource.kind, review, &x.context.user, &info.namespace).await?;
    created(x, &answer)
}
