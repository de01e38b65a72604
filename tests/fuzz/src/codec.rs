//! Bodies of requests. What was read once must come back from what is written of it.

use machinery::codec::{json as json_codec, proto, yaml as yaml_codec};
use machinery::schema::builtin;

/// JSON text: read, written, read again.
pub fn json(bytes: &[u8]) {
    let Ok(decoded) = json_codec::decode(bytes) else { return };
    let again = json_codec::decode(&json_codec::encode(&decoded.value)).map(|decoded| decoded.value);
    assert_eq!(again.as_ref(), Ok(&decoded.value));
    let object = decoded.value;
    if let Some(id) =
        builtin().named(machinery::object::api_version(&object), machinery::object::kind(&object))
        && let Ok(normal) = builtin().normalize(id, object)
    {
        same_in_protobuf(&normal.value);
    }
}

/// YAML documents.
pub fn yaml(bytes: &[u8]) {
    let _ = yaml_codec::decode(bytes).map(|decoded| yaml_codec::encode(&decoded.value));
    let _ = yaml_codec::decode_all(bytes);
}

/// An object in its protobuf envelope.
pub fn protobuf(bytes: &[u8]) {
    let _ = proto::peek(bytes);
    if let Ok(object) = proto::decode(builtin(), bytes, None) {
        same_in_protobuf(&object);
    }
}

fn same_in_protobuf(object: &serde_json::Value) {
    let Ok(encoded) = proto::encode(builtin(), object) else { return };
    let first = proto::decode(builtin(), &encoded, None).map(|object| proto::encode(builtin(), &object));
    let Ok(Ok(second)) = first else { panic!("what was written is not read: {object}: {first:?}") };
    assert_eq!(encoded, second, "{object}");
}
