//! From a token's claims to a user.

use crate::context::User;
use machinery::admission::{Evaluator, Expression};
use serde_json::{Map, Value};

/// Where a part of a user comes from.
pub enum Source {
    /// A claim, by its name.
    Claim {
        /// Its name.
        name: String,
        /// What is put before its value.
        prefix: String,
    },
    /// An expression on `claims`.
    Expression(Expression),
}

/// What a user is made of.
pub struct Mapping {
    /// His name.
    pub username: Source,
    /// His groups.
    pub groups: Option<Source>,
    /// His unique id.
    pub uid: Option<Source>,
    /// The rest, by key.
    pub extra: Vec<(String, Expression)>,
}

/// Something that must hold.
pub struct Rule {
    /// As it is written.
    pub source: String,
    /// As it is evaluated.
    pub expression: Expression,
    /// What is said where it does not; may be empty.
    pub message: String,
}

impl Mapping {
    /// The user; `value` are the claims once more, for expressions.
    pub(super) fn user(&self, claims: &Map<String, Value>, value: &Value) -> Result<User, String> {
        let mut evaluator = Evaluator::default();
        evaluator.bind("claims", value);
        let mut user = User { name: self.name(claims, &mut evaluator)?, ..User::default() };
        user.groups = self.groups(claims, &mut evaluator)?;
        user.uid = match &self.uid {
            None => String::new(),
            Some(Source::Claim { name, .. }) => {
                text(claims, name).map_err(|e| format!("oidc: parse uid claim {name:?}: {e}"))?
            }
            Some(Source::Expression(expression)) => match evaluator.evaluate(expression) {
                Ok(Value::String(uid)) => uid,
                Ok(_) => {
                    return Err(failed("uid claim", "uid claim expression must return a string"));
                }
                Err(e) => return Err(failed("uid claim", &e.to_string())),
            },
        };
        if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            let key = "authentication.kubernetes.io/credential-id".to_owned();
            user.extra.insert(key, vec![format!("JTI={id}")]);
        }
        for (key, expression) in &self.extra {
            let value = evaluator.evaluate(expression).map_err(|e| failed("extra claim", &e.to_string()))?;
            let values = texts(value).map_err(|e| failed("extra claim", &e))?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        Ok(user)
    }

    fn name(&self, claims: &Map<String, Value>, evaluator: &mut Evaluator<'_>) -> Result<String, String> {
        match &self.username {
            Source::Expression(expression) => match evaluator.evaluate(expression) {
                Ok(Value::String(name)) if name.is_empty() => {
                    Err("oidc: empty username via CEL expression is not allowed".to_owned())
                }
                Ok(Value::String(name)) => Ok(name),
                Ok(_) => Err(failed("username claim", "username claim expression must return a string")),
                Err(e) => Err(failed("username claim", &e.to_string())),
            },
            Source::Claim { name, prefix } => {
                let value =
                    text(claims, name).map_err(|e| format!("oidc: parse username claims {name:?}: {e}"))?;
                // An address nobody has checked is anybody's.
                if name == "email" {
                    match claims.get("email_verified") {
                        None | Some(Value::Bool(true)) => {}
                        Some(Value::Bool(false)) => return Err("oidc: email not verified".to_owned()),
                        Some(_) => {
                            return Err(
                                "oidc: parse 'email_verified' claim: it is neither true nor false".to_owned()
                            );
                        }
                    }
                }
                Ok(format!("{prefix}{value}"))
            }
        }
    }

    fn groups(
        &self,
        claims: &Map<String, Value>,
        evaluator: &mut Evaluator<'_>,
    ) -> Result<Vec<String>, String> {
        match &self.groups {
            None => Ok(Vec::new()),
            Some(Source::Expression(expression)) => {
                let value =
                    evaluator.evaluate(expression).map_err(|e| failed("group claim", &e.to_string()))?;
                texts(value).map_err(|e| failed("group claim", &e))
            }
            Some(Source::Claim { name, prefix }) => {
                let groups = match claims.get(name) {
                    None => return Ok(Vec::new()),
                    // A role that is no list is one group.
                    Some(Value::String(one)) => vec![one.clone()],
                    Some(Value::Array(many)) if many.iter().all(Value::is_string) => {
                        many.iter().filter_map(Value::as_str).map(str::to_owned).collect()
                    }
                    Some(_) => {
                        return Err(format!("oidc: parse groups claim {name:?}: it is no list of texts"));
                    }
                };
                Ok(groups.into_iter().map(|group| format!("{prefix}{group}")).collect())
            }
        }
    }
}

fn failed(what: &str, why: &str) -> String {
    format!("oidc: error evaluating {what} expression: {why}")
}

fn text(claims: &Map<String, Value>, name: &str) -> Result<String, String> {
    match claims.get(name) {
        None => Err("claim not present".to_owned()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err("it is no text".to_owned()),
    }
}

/// A text, or a list of them; nothing where there is none.
fn texts(value: Value) -> Result<Vec<String>, String> {
    let wrong = || Err("expression must return a string or a list of strings".to_owned());
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) if text.is_empty() => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text]),
        Value::Array(items) => {
            let mut out = Vec::new();
            for item in items {
                match item {
                    Value::String(text) if text.is_empty() => {}
                    Value::String(text) => out.push(text),
                    _ => return wrong(),
                }
            }
            Ok(out)
        }
        _ => wrong(),
    }
}

/// Whether every rule holds.
pub(super) fn hold(rules: &[Rule], evaluator: &mut Evaluator<'_>) -> Result<(), String> {
    for Rule { source, expression, message } in rules {
        match evaluator.evaluate(expression) {
            Ok(Value::Bool(true)) => {}
            Ok(_) if message.is_empty() => return Err(format!("validation expression '{source}' failed")),
            Ok(_) => return Err(message.clone()),
            Err(e) => return Err(format!("expression '{source}' resulted in error: {e}")),
        }
    }
    Ok(())
}
