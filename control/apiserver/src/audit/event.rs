//! One event of the log, field by field as `audit.k8s.io/v1` Event. Upstream: `apiserver/pkg/apis/audit/v1/types.go`.

use super::level::{Level, Stage};
use crate::facts::{RequestInfo, User};
use jiff::Timestamp;
use machinery::access::Get as _;
use machinery::goformat::go_quote;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;

const API_VERSION: &str = "audit.k8s.io/v1";

/// JSON that is written as it is, on one line.
#[derive(Clone, Debug)]
pub(super) struct Json(Arc<RawValue>);

impl Json {
    /// Of a value.
    pub(super) fn of(value: &Value) -> Option<Self> {
        RawValue::from_string(value.to_string()).ok().map(|raw| Self(raw.into()))
    }

    /// Of bytes that are JSON; none where they are not.
    pub(super) fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        RawValue::from_string(on_one_line(text)).ok().map(|raw| Self(raw.into()))
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// JSON without the white space between its parts.
fn on_one_line(text: &str) -> String {
    let (mut out, mut quoted, mut escaped) = (String::with_capacity(text.len()), false, false);
    for c in text.chars() {
        if quoted {
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            quoted = c == '"';
        }
        out.push(c);
    }
    out
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct UserInfo {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Vec<String>>,
}

impl From<&User> for UserInfo {
    fn from(user: &User) -> Self {
        let User { name, uid, groups, extra } = user.clone();
        Self { username: name, uid, groups, extra }
    }
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuthenticationMetadata {
    /// The verb of the way by which the author was let act as another, but for the old way.
    pub(super) impersonation_constraint: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectReference {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) subresource: String,
}

impl ObjectReference {
    pub(super) fn of(info: &RequestInfo) -> Self {
        Self {
            resource: info.resource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            api_group: info.group.clone(),
            api_version: info.version.clone(),
            subresource: info.subresource.clone(),
            ..Self::default()
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct NoMetadata {}

/// A `Status` without what is its own: type and metadata.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct ResponseStatus {
    pub(super) metadata: NoMetadata,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) details: Option<Value>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) code: u16,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(code: &u16) -> bool {
    *code == 0
}

impl ResponseStatus {
    /// What a `Status` object says.
    pub(super) fn of(status: &Value) -> Self {
        let code = status.present("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
        Self {
            metadata: NoMetadata {},
            status: status.text("status").to_owned(),
            message: status.text("message").to_owned(),
            reason: status.text("reason").to_owned(),
            details: status.present("details").cloned(),
            code: code.unwrap_or_default(),
        }
    }
}

/// An event; as its request goes on, the next one's beginning.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    pub(super) kind: &'static str,
    pub(super) api_version: &'static str,
    pub(super) level: Level,
    #[serde(rename = "auditID")]
    pub(super) audit_id: String,
    pub(super) stage: Stage,
    #[serde(rename = "requestURI")]
    pub(super) request_uri: String,
    pub(super) verb: String,
    pub(super) user: UserInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) impersonated_user: Option<UserInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) authentication_metadata: Option<AuthenticationMetadata>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    pub(super) source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) object_ref: Option<ObjectReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response_status: Option<ResponseStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request_object: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response_object: Option<Json>,
    #[serde(serialize_with = "microseconds")]
    pub(super) request_received_timestamp: Timestamp,
    #[serde(serialize_with = "microseconds")]
    pub(super) stage_timestamp: Timestamp,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

/// `metav1.MicroTime`
fn microseconds<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
}

impl Event {
    /// An event of which no more is known.
    pub(super) fn new(level: Level, audit_id: String, received: Timestamp) -> Self {
        Event {
            kind: "Event",
            api_version: API_VERSION,
            level,
            audit_id,
            stage: Stage::RequestReceived,
            request_uri: String::new(),
            verb: String::new(),
            user: UserInfo::default(),
            impersonated_user: None,
            authentication_metadata: None,
            source_ips: Vec::new(),
            user_agent: String::new(),
            object_ref: None,
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: received,
            stage_timestamp: received,
            annotations: BTreeMap::new(),
        }
    }

    /// A line of JSON.
    pub(super) fn json_line(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }

    /// The format `legacy`: one line of text. Upstream: `apiserver/pkg/audit/format.go`.
    pub(super) fn legacy(&self) -> String {
        let listed = |groups: &[String]| groups.iter().map(|g| go_quote(g)).collect::<Vec<_>>().join(",");
        let (user, groups) = match &self.user {
            UserInfo { username, .. } if username.is_empty() => ("<none>", "<none>".to_owned()),
            UserInfo { username, groups, .. } if groups.is_empty() => {
                (username.as_str(), "<none>".to_owned())
            }
            UserInfo { username, groups, .. } => (username.as_str(), listed(groups)),
        };
        let (other, other_groups) = match &self.impersonated_user {
            None => ("<self>", "<lookup>".to_owned()),
            Some(other) if other.groups.is_empty() => (other.username.as_str(), "<lookup>".to_owned()),
            Some(other) => (other.username.as_str(), listed(&other.groups)),
        };
        let namespace = self.object_ref.as_ref().map_or("", |object| object.namespace.as_str());
        let response = self.response_status.as_ref().map(|status| status.code.to_string());
        let or = |text: &str, none: &str| go_quote(if text.is_empty() { none } else { text });
        format!(
            "{} AUDIT: id={} stage={} ip={} method={} user={} groups={} as={} asgroups={} user-agent={} namespace={} uri={} response=\"{}\"",
            self.request_received_timestamp,
            go_quote(&self.audit_id),
            go_quote(self.stage.name()),
            or(self.source_ips.first().map_or("", String::as_str), "<unknown>"),
            go_quote(&self.verb),
            go_quote(user),
            go_quote(&groups),
            go_quote(other),
            go_quote(&other_groups),
            go_quote(&self.user_agent),
            or(namespace, "<none>"),
            go_quote(&self.request_uri),
            response.as_deref().unwrap_or("<deferred>"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_must_not_be_more_than_one_line() {
        for (text, line) in [
            ("{ \"a\" :\n [1, 2] }", r#"{"a":[1,2]}"#),
            ("{\"a\": \" b\\\" \\\\\", \"c\":\t1}", r#"{"a":" b\" \\","c":1}"#),
        ] {
            let json = Json::of_bytes(text.as_bytes()).unwrap();
            assert_eq!(serde_json::to_string(&json).unwrap(), line);
        }
        assert!(Json::of_bytes(b"a: b\nc: d").is_none());
    }

    #[test]
    fn fields_are_upstreams() {
        let at: Timestamp = "2026-01-02T03:04:05.1Z".parse().unwrap();
        let mut event = Event::new(Level::Metadata, "id".into(), at);
        let bare = json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": "id",
            "stage": "RequestReceived", "requestURI": "", "verb": "", "user": {},
            "requestReceivedTimestamp": "2026-01-02T03:04:05.100000Z", "stageTimestamp": "2026-01-02T03:04:05.100000Z"});
        assert_eq!(serde_json::to_value(&event).unwrap(), bare);
        assert!(event.json_line().unwrap().starts_with(br#"{"kind":"Event","apiVersion":"#));
        event.response_status = Some(ResponseStatus { code: 200, ..ResponseStatus::default() });
        event.object_ref = Some(ObjectReference::default());
        let value = serde_json::to_value(&event).unwrap();
        assert_eq!(value["responseStatus"], json!({"metadata": {}, "code": 200}));
        assert_eq!(value["objectRef"], json!({}));
    }

    #[test]
    fn the_old_format_is_upstreams_to_the_letter() {
        let at: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let mut event = Event::new(Level::Metadata, "i".into(), at);
        assert_eq!(
            event.legacy(),
            r#"2026-01-02T03:04:05Z AUDIT: id="i" stage="RequestReceived" ip="<unknown>" method="" user="<none>" groups="<none>" as="<self>" asgroups="<lookup>" user-agent="" namespace="<none>" uri="" response="<deferred>""#
        );
        let user = User {
            name: "admin".into(),
            groups: vec!["system:masters".into(), "b".into()],
            ..User::default()
        };
        event.user = (&user).into();
        event.source_ips = vec!["127.0.0.1".into()];
        event.object_ref =
            Some(ObjectReference { namespace: "default".into(), ..ObjectReference::default() });
        event.response_status = Some(ResponseStatus { code: 200, ..ResponseStatus::default() });
        assert_eq!(
            event.legacy(),
            r#"2026-01-02T03:04:05Z AUDIT: id="i" stage="RequestReceived" ip="127.0.0.1" method="" user="admin" groups="\"system:masters\",\"b\"" as="<self>" asgroups="<lookup>" user-agent="" namespace="default" uri="" response="200""#
        );
    }
}
