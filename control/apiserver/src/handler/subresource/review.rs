//! TokenReview, SubjectAccessReview and their kin: the front answers them.

use super::super::{Exchange, body};
use super::created;
use crate::context::{Body, Response};
use crate::registry::options::WriteOptions;
use machinery::status::Status;

pub(super) async fn create(x: &Exchange<'_>, request: Body) -> Result<Response, Status> {
    let options = WriteOptions::parse(x.context)?;
    let bytes = body::read(request).await?;
    let (review, warnings) = body::decode(&x.headers, &bytes, &x.kind.gvk(), options.field_validation)?;
    x.warn(warnings);
    let info = &x.context.info;
    let answer =
        x.registry.front()?.review(x.kind.resource.kind, review, &x.context.user, &info.namespace).await?;
    created(x, &answer)
}
