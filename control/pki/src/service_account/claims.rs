//! What a bound token says.

use serde::{Deserialize, Deserializer, Serialize};

/// An object a token is bound to: it dies with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundObject {
    /// `metadata.name`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `metadata.uid`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The private claim `kubernetes.io`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesClaims {
    /// Namespace of the service account.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The node the pod runs on, or the node the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<BoundObject>,
    /// The pod the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<BoundObject>,
    /// The secret the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<BoundObject>,
    /// Name and uid of the service account.
    #[serde(default)]
    pub serviceaccount: BoundObject,
    /// Seconds since the epoch after which a client should have fetched a newer token.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_seconds")]
    pub warnafter: Option<i64>,
}

/// All claims of a bound token, times in seconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// `aud`: one or more audiences.
    #[serde(default, deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub aud: Vec<String>,
    /// `exp`: end of validity.
    #[serde(deserialize_with = "seconds")]
    pub exp: i64,
    /// `iat`: time of issue.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_seconds")]
    pub iat: Option<i64>,
    /// `iss`: issuer URL.
    pub iss: String,
    /// `jti`: unique id of the token.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// What the token is bound to.
    #[serde(rename = "kubernetes.io", default)]
    pub kubernetes: KubernetesClaims,
    /// `nbf`: start of validity.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_seconds")]
    pub nbf: Option<i64>,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    #[serde(default)]
    pub sub: String,
}

/// All claims of a token kept in a secret: good as long as the secret holds it (upstream's `LegacyClaims`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyClaims {
    /// `kubernetes/serviceaccount`.
    pub iss: String,
    /// Namespace of account and secret.
    #[serde(rename = "kubernetes.io/serviceaccount/namespace", default)]
    pub namespace: String,
    /// Name of the Secret.
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name", default)]
    pub secret: String,
    /// Name of the service account.
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name", default)]
    pub account: String,
    /// `metadata.uid` of the service account.
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid", default)]
    pub account_uid: String,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    #[serde(default)]
    pub sub: String,
}

impl LegacyClaims {
    /// The issuer of every such token.
    pub const ISSUER: &str = "kubernetes/serviceaccount";

    /// What a token for an account, kept in a secret beside it, says.
    #[must_use]
    pub fn new(namespace: &str, account: &str, account_uid: &str, secret: &str) -> Self {
        Self {
            iss: Self::ISSUER.to_owned(),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            account: account.to_owned(),
            account_uid: account_uid.to_owned(),
            sub: format!("system:serviceaccount:{namespace}:{account}"),
        }
    }
}

/// RFC 7519: `aud` is a string or an array of strings.
fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(from)? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    })
}

/// RFC 7519: a NumericDate may have a fraction.
fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    let number = serde_json::Number::deserialize(from)?;
    number
        .as_i64()
        .or_else(|| number.as_f64().map(|f| f as i64))
        .ok_or_else(|| serde::de::Error::custom("not a date"))
}

fn optional_seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    seconds(from).map(Some)
}
