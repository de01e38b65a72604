//! What is watched.

use http::Request;
use http::header::{ACCEPT_ENCODING, HeaderValue};
use kube::api::{ListParams, WatchParams};
use kube::{Api, Client, Resource};

/// Objects at most in one page of a list, as client-go has it.
const PAGE: u32 = 500;

/// The objects of one resource, or some of them.
#[derive(Clone)]
pub struct Source {
    pub(crate) client: Client,
    /// Where the resource is: `/api/v1/pods`.
    pub(crate) path: String,
    labels: Option<String>,
    fields: Option<String>,
    metadata: bool,
}

impl Source {
    /// All objects an [`Api`] reaches: those of a namespace, or of all; only the metadata of `PartialObjectMeta`.
    #[must_use]
    pub fn of<K: Resource>(api: Api<K>) -> Self {
        Self {
            path: api.resource_url().to_owned(),
            client: api.into_client(),
            labels: None,
            fields: None,
            metadata: K::metadata_api(),
        }
    }

    /// All objects of a kind.
    #[must_use]
    pub fn all<K: Resource<DynamicType = ()>>(client: &Client) -> Self {
        Self::of(Api::<K>::all(client.clone()))
    }

    /// Those with these labels.
    #[must_use]
    pub fn labels(self, selector: &str) -> Self {
        Self { labels: Some(selector.to_owned()), ..self }
    }

    /// Those with these fields.
    #[must_use]
    pub fn fields(self, selector: &str) -> Self {
        Self { fields: Some(selector.to_owned()), ..self }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        self.fields(&format!("metadata.name={name}"))
    }

    /// Asks for one page of the list.
    pub(crate) fn list(&self, page: Option<String>) -> Result<Request<Vec<u8>>, kube::Error> {
        let params = ListParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            limit: Some(PAGE),
            continue_token: page,
            ..ListParams::default()
        };
        let request = kube::core::Request::new(self.path.as_str());
        let request = if self.metadata { request.list_metadata(&params) } else { request.list(&params) };
        request.map_err(kube::Error::BuildRequest)
    }

    /// Asks for changes after `version`.
    pub(crate) fn watch(&self, version: &str) -> Result<Request<Vec<u8>>, kube::Error> {
        let params = WatchParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            ..WatchParams::default()
        };
        let request = kube::core::Request::new(self.path.as_str());
        let request = match self.metadata {
            true => request.watch_metadata(&params, version),
            false => request.watch(&params, version),
        };
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        // A compressed stream reaches us in blocks, and newer servers compress each event by itself.
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Ok(request)
    }
}
