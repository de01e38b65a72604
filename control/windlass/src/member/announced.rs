//! What the cluster itself says of the etcd it is in, in the ConfigMap `kube-system/windlass-etcd`: for a server that joins.

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::BTreeMap;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "windlass-etcd";
/// The members' client URLs, with commas.
const ENDPOINTS: &str = "endpoints";

/// What must be the same at every server, by the names of the flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Common(BTreeMap<String, String>);

impl Common {
    pub(crate) fn new<const N: usize>(settings: [(&str, String); N]) -> Self {
        Self(settings.map(|(name, value)| (name.to_owned(), value)).into())
    }

    /// # Errors
    /// Names what differs. What the other says nothing of is as it may be.
    pub(super) fn agree(&self, other: &Self) -> anyhow::Result<()> {
        for (name, ours) in &self.0 {
            if let Some(theirs) = other.0.get(name).filter(|theirs| *theirs != ours) {
                bail!("--{name} is {ours:?} here and {theirs:?} at the other servers");
            }
        }
        Ok(())
    }
}

/// What the cluster says of the etcd it is in.
pub(super) struct Told {
    pub(super) endpoints: Vec<String>,
    pub(super) common: Common,
}

/// `None` where it says nothing.
pub(super) async fn read(client: &kube::Client) -> anyhow::Result<Option<Told>> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let Some(found) = api.get_opt(NAME).await? else { return Ok(None) };
    let mut data = found.data.unwrap_or_default();
    let endpoints = data.remove(ENDPOINTS).unwrap_or_default();
    let endpoints: Vec<String> =
        endpoints.split(',').filter(|url| !url.is_empty()).map(str::to_owned).collect();
    Ok((!endpoints.is_empty()).then_some(Told { endpoints, common: Common(data) }))
}

/// Says where the members are, and what all servers have alike.
pub(super) async fn publish(client: &kube::Client, endpoints: &str, common: &Common) -> anyhow::Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let mut data = common.0.clone();
    data.insert(ENDPOINTS.to_owned(), endpoints.to_owned());
    match api.get_opt(NAME).await? {
        Some(found) if found.data.as_ref() == Some(&data) => {}
        Some(_) => {
            let patch = Patch::Merge(json!({ "data": data }));
            api.patch(NAME, &PatchParams::default(), &patch)
                .await
                .with_context(|| format!("update {NAME}"))?;
        }
        None => {
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
            api.create(&PostParams::default(), &map).await.with_context(|| format!("create {NAME}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_means_another_cluster_must_not_join() {
        let ours = Common::new([("service-cidr", "10.96.0.0/12".into()), ("cluster-domain", "a".into())]);
        let theirs = Common::new([("service-cidr", "10.96.0.0/12".into()), ("cluster-domain", "b".into())]);
        let error = ours.agree(&theirs).unwrap_err().to_string();
        assert!(error.contains("--cluster-domain"), "{error}");
        ours.agree(&Common::new([("service-cidr", "10.96.0.0/12".into())])).unwrap();
    }
}
