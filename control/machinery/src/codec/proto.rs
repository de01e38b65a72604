//! Kubernetes protobuf, driven by the field table: bytes to JSON values and back, nothing generated.
//!
//! An object on the wire is `k8s\0` and a `runtime.Unknown{typeMeta, raw, contentEncoding, contentType}`. Values are
//! written as gogo writes them: fields by number, values held by value even when zero, maps by key.

mod decode;
mod encode;
mod wire;

use crate::object::Gvk;
use crate::schema::{Schema, TypeError, TypeId};
use serde_json::Value;

/// What every object on the wire starts with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// Messages nested deeper are refused, as is JSON.
pub(crate) const MAX_DEPTH: usize = 128;

/// Why bytes are no object, or an object has no bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No `k8s\0` in front.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    /// The bytes end within a value.
    #[error("unexpected EOF")]
    Truncated,
    /// A malformed length, tag or number.
    #[error("proto: illegal wireType or length in message {message}")]
    Malformed {
        /// Message type.
        message: &'static str,
    },
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("proto: exceeded maximum nesting depth")]
    Depth,
    /// A kind the table does not have.
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    UnknownKind {
        /// `apiVersion`.
        api_version: String,
        /// `kind`.
        kind: String,
    },
    /// The content is encoded (compressed) in a way nobody writes.
    #[error("unsupported content encoding {0:?} in protobuf message")]
    ContentEncoding(String),
    /// A value that is not of its type.
    #[error(transparent)]
    Type(#[from] TypeError),
    /// Raw JSON within the message that does not parse.
    #[error("parse raw JSON in protobuf message: {0}")]
    RawJson(String),
    /// A value to be written that is not of its type.
    #[error("object of type {message} has a field {field} that does not convert to protobuf")]
    Encode {
        /// Message type.
        message: &'static str,
        /// JSON name of the field.
        field: &'static str,
    },
}

/// Reads an object from its envelope. `default` says what it is where the envelope does not.
///
/// # Errors
/// For anything but an enveloped object of a known kind.
pub fn decode(schema: &Schema, bytes: &[u8], default: Option<&Gvk>) -> Result<Value, Error> {
    decode::envelope(schema, bytes, default, 0)
}

/// What an envelope says it holds, without reading it.
///
/// # Errors
/// For anything but an envelope.
pub fn peek(bytes: &[u8]) -> Result<(String, String), Error> {
    decode::Envelope::read(bytes).map(|e| (e.api_version, e.kind))
}

/// Writes an object in its envelope, the type taken from its `apiVersion` and `kind`. The object should be canonical
/// ([`Schema::normalize`]).
///
/// # Errors
/// For an unknown kind, or a value that is not of its type.
pub fn encode(schema: &Schema, object: &Value) -> Result<Vec<u8>, Error> {
    let (api_version, kind) = (crate::object::api_version(object), crate::object::kind(object));
    let unknown = || Error::UnknownKind { api_version: api_version.to_owned(), kind: kind.to_owned() };
    let id = schema.named(api_version, kind).ok_or_else(unknown)?;
    encode_as(schema, id, object)
}

/// As [`encode()`], with the type given: for objects that do not name it, such as `WatchEvent`.
///
/// # Errors
/// For a value that is not of its type.
pub fn encode_as(schema: &Schema, id: TypeId, object: &Value) -> Result<Vec<u8>, Error> {
    let raw = encode::message(schema, id, object)?;
    Ok(encode::envelope(crate::object::api_version(object), crate::object::kind(object), &raw))
}

/// A `WatchEvent` frame around an object that is already encoded (envelope included), without the length in front
/// that the stream's framing adds (four bytes, big endian). The event itself has no envelope: streams are written by
/// upstream's raw serializer, and a client that finds one reads an event without a type.
#[must_use]
pub fn watch_frame(event_type: &str, object: &[u8]) -> Vec<u8> {
    encode::watch_event(event_type, object)
}

#[cfg(test)]
mod tests;
