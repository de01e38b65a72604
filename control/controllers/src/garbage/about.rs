//! What an event is about: an object of a kind known only by discovery.

use super::identity::Identity;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::ObjectMeta;
use kube::core::DynamicResourceScope;
use std::borrow::Cow;

/// An object, as far as the recorder asks.
pub struct About {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
}

impl From<Identity> for About {
    fn from(identity: Identity) -> Self {
        let Identity { api_version, kind, namespace, name, uid } = identity;
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        let metadata = ObjectMeta { namespace, name: Some(name), uid: Some(uid), ..ObjectMeta::default() };
        Self { api_version, kind, metadata }
    }
}

/// Kind and version are the object's, not the type's: only [`kube::Resource::object_ref`] says them.
impl kube::Resource for About {
    type DynamicType = ();
    type Scope = DynamicResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn object_ref(&self, (): &()) -> ObjectReference {
        let ObjectMeta { namespace, name, uid, .. } = self.metadata.clone();
        ObjectReference {
            api_version: Some(self.api_version.clone()),
            kind: Some(self.kind.clone()),
            namespace,
            name,
            uid,
            ..ObjectReference::default()
        }
    }
}
