//! TokenReview: whose token is this? Upstream: `pkg/registry/authentication/tokenreview`.

use super::{Authenticator, Identity};
use crate::authz::review::user_info;
use crate::objects::{text, texts};
use jiff::Timestamp;
use machinery::status::Status;
use serde_json::{Value, json};

pub(crate) async fn token(
    authenticator: &Authenticator,
    review: &Value,
    now: Timestamp,
) -> Result<Value, Status> {
    let token = text(review, "/spec/token");
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = texts(review, "/spec/audiences");
    let outcome = authenticator.authenticate_token(token, &audiences, now).await;
    let mut out = review.clone();
    out["status"] = status(outcome);
    Ok(out)
}

fn status(outcome: Result<Option<Identity>, String>) -> Value {
    match outcome {
        Ok(None) => json!({"user": {}}),
        Err(error) => json!({"user": {}, "error": error}),
        Ok(Some(identity)) => {
            let mut status = json!({"authenticated": true, "user": user_info(&identity.user)});
            if !identity.audiences.is_empty() {
                status["audiences"] = json!(identity.audiences);
            }
            status
        }
    }
}
