//! A patch as an update: upstream's roles let many controllers update what ours patch.
//!
//! The object is read, the patch applied to it as JSON, so that no field is lost, and the whole written back, by compare-and-swap on the
//! version that was read. What the patch itself says of versions counts first: a patch of another version conflicts, as it should.
//!
//! Some roles let an account update what it may not even read (quotas' status, the map of the root authority): upstream's controllers write back
//! what the informers saw, which list as the controller manager itself. So it is listed, by name, as that.

use http::header::CONTENT_TYPE;
use http::{Method, Request};
use kube::client::Body;
use machinery::patch::{json, merge, strategic};
use machinery::schema;
use serde_json::Value;

/// A patch that may be sent again as an update.
pub(super) struct Patch {
    uri: http::Uri,
    format: String,
    bytes: bytes::Bytes,
}

impl Patch {
    /// What a request is as a patch; server-side apply is none that could be an update.
    pub(super) fn of(parts: &http::request::Parts, bytes: &bytes::Bytes) -> Option<Self> {
        let format = parts.headers.get(CONTENT_TYPE)?.to_str().ok()?.split(';').next()?.trim().to_owned();
        let known = ["application/json-patch+json", "application/merge-patch+json", STRATEGIC];
        let patches = parts.method == Method::PATCH && known.contains(&format.as_str());
        patches.then(|| Self { uri: parts.uri.clone(), format, bytes: bytes.clone() })
    }

    /// Group, resource and subresource, which one role covers.
    pub(super) fn subject(&self) -> String {
        let words: Vec<&str> = self.uri.path().trim_start_matches('/').split('/').collect();
        let after = if words.first() == Some(&"api") { 2 } else { 3 };
        let rest = words.get(after..).unwrap_or_default();
        let rest = if rest.first() == Some(&"namespaces") && rest.len() > 3 { &rest[2..] } else { rest };
        let (resource, subresource) = (rest.first().unwrap_or(&""), rest.get(2).unwrap_or(&""));
        format!("{}/{resource}/{subresource}", words.get(1).unwrap_or(&""))
    }

    /// The path of the object, of which the patch may change a part.
    fn object(&self) -> &str {
        let path = self.uri.path();
        // An object may be called what a part is.
        let subject = self.subject();
        let part = PARTS.iter().find(|part| subject.ends_with(**part));
        part.and_then(|part| path.strip_suffix(part)).unwrap_or(path)
    }

    /// Asks for the object, which a role may let one read whose parts it lets one write only.
    pub(super) fn read(&self) -> Option<Request<Body>> {
        Request::get(self.object()).body(Body::empty()).ok()
    }

    /// Asks for the list of the object alone, which is not the same right.
    pub(super) fn list(&self) -> Option<Request<Body>> {
        let (all, name) = self.object().rsplit_once('/')?;
        Request::get(format!("{all}?fieldSelector=metadata.name%3D{name}")).body(Body::empty()).ok()
    }

    /// The object of such a list, as it is when it is read; `None`: it is not there.
    pub(super) fn listed(mut list: Value) -> Option<Value> {
        let mut object = list["items"].as_array_mut()?.pop()?;
        // Of built-in kinds only the list says what they are.
        if object["kind"].is_null() {
            object["kind"] = list["kind"].as_str()?.strip_suffix("List")?.into();
            object["apiVersion"] = list["apiVersion"].take();
        }
        Some(object)
    }

    /// Writes the object changed; `None` where the patch cannot be applied to it.
    pub(super) fn write(&self, mut object: Value) -> Option<Request<Body>> {
        match self.format.as_str() {
            STRATEGIC => {
                let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
                let id = schema::builtin().named(&text("apiVersion"), &text("kind"))?;
                strategic::apply(schema::builtin(), id, &mut object, &self.bytes).ok()?;
            }
            "application/json-patch+json" => json::apply(&mut object, &self.bytes).ok()?,
            _ => drop(merge::apply(&mut object, &self.bytes).ok()?),
        }
        let body = serde_json::to_vec(&object).ok()?;
        Request::put(self.uri.clone()).header(CONTENT_TYPE, "application/json").body(Body::from(body)).ok()
    }
}

const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// Subresources that are the object itself, of which a write changes a part; a Scale is an object of its own.
const PARTS: &[&str] = &["/status", "/approval", "/finalize", "/ephemeralcontainers", "/resize"];

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use serde_json::json;

    fn patch(path: &str, format: &str, body: &Value) -> Option<Patch> {
        let request = Request::patch(path).header(CONTENT_TYPE, format).body(()).unwrap();
        Patch::of(&request.into_parts().0, &body.to_string().into())
    }

    #[test]
    fn a_patch_is_of_what_roles_speak_of() {
        let merge = "application/merge-patch+json";
        for (path, subject) in [
            ("/apis/apps/v1/namespaces/n/deployments/d/status", "apps/deployments/status"),
            ("/apis/apps/v1/namespaces/n/deployments/d", "apps/deployments/"),
            ("/api/v1/nodes/n1/status", "v1/nodes/status"),
            ("/api/v1/namespaces/n", "v1/namespaces/"),
            ("/api/v1/namespaces/n/pods/p", "v1/pods/"),
        ] {
            assert_eq!(patch(path, merge, &json!({})).unwrap().subject(), subject, "{path}");
        }
        assert!(patch("/api/v1/nodes/n1", "application/apply-patch+yaml", &json!({})).is_none());
    }

    #[test]
    fn a_part_that_may_only_be_written_must_not_be_read() {
        let read = |path: &str| {
            let patch = patch(path, "application/merge-patch+json", &json!({})).unwrap();
            patch.read().unwrap().uri().path().to_owned()
        };
        let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests/csr-1";
        assert_eq!(read(&format!("{requests}/approval")), requests);
        assert_eq!(read(&format!("{requests}/status")), requests);
        assert_eq!(read("/api/v1/namespaces/n/finalize"), "/api/v1/namespaces/n");
        let named_so = "/apis/apps/v1/namespaces/n/deployments/resize";
        assert_eq!(read(named_so), named_so);
        let scale = "/apis/apps/v1/namespaces/n/deployments/d/scale";
        assert_eq!(read(scale), scale, "it is no Deployment");
    }

    #[test]
    fn what_may_only_be_listed_is_found_by_its_name() {
        let list = |path: &str| {
            let patch = patch(path, "application/merge-patch+json", &json!({})).unwrap();
            patch.list().unwrap().uri().to_string()
        };
        let quotas = "/api/v1/namespaces/n/resourcequotas";
        assert_eq!(list(&format!("{quotas}/q/status")), format!("{quotas}?fieldSelector=metadata.name%3Dq"));
        assert_eq!(list("/api/v1/nodes/n1"), "/api/v1/nodes?fieldSelector=metadata.name%3Dn1");
    }

    #[test]
    fn an_object_of_a_list_must_not_be_without_its_kind() {
        let list = |items: Value| json!({"kind": "ResourceQuotaList", "apiVersion": "v1", "items": items});
        let object = Patch::listed(list(json!([{"metadata": {"name": "q"}}]))).unwrap();
        assert_eq!(object, json!({"kind": "ResourceQuota", "apiVersion": "v1", "metadata": {"name": "q"}}));
        let own = json!({"kind": "Widget", "apiVersion": "example.com/v1", "metadata": {"name": "w"}});
        let widgets = json!({"kind": "WidgetList", "apiVersion": "example.com/v1", "items": [own]});
        assert_eq!(Patch::listed(widgets), Some(own));
        assert_eq!(Patch::listed(list(json!([]))), None);
    }

    #[tokio::test]
    async fn no_field_is_lost_when_a_patch_becomes_an_update() {
        let path = "/api/v1/namespaces/n/pods/p/status?fieldManager=m";
        let conditions = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        let patch = patch(path, STRATEGIC, &conditions).unwrap();
        assert_eq!(patch.read().unwrap().uri().path(), "/api/v1/namespaces/n/pods/p");
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "resourceVersion": "7"},
            "spec": {"strange": 1}, "status": {"conditions": [{"type": "Other", "status": "True"}]}});
        let request = patch.write(object).unwrap();
        assert_eq!((request.method(), request.uri().to_string().as_str()), (&Method::PUT, path));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let written: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(written["spec"]["strange"], 1);
        assert_eq!(written["metadata"]["resourceVersion"], "7");
        assert_eq!(written["status"]["conditions"].as_array().unwrap().len(), 2);
    }
}
