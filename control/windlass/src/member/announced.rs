//! What the cluster itself says of the etcd it is in, in the ConfigMap `kube-system/windlass-etcd`: for a server that joins.

use anyhow::{Context as _, bail};
use etcd::v3::request_op::Request;
use etcd::v3::{DeleteRangeRequest, RequestOp, TxnRequest};
use etcd::{Client, Repeat};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::BTreeMap;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "windlass-etcd";
/// The members' client URLs, with commas.
const ENDPOINTS: &str = "endpoints";
/// The cluster's id, as etcd prints it.
const CLUSTER: &str = "cluster-id";

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
    /// etcd's id of it; servers of an earlier version say nothing of that.
    pub(super) cluster: Option<u64>,
    pub(super) common: Common,
}

/// What a server says of it.
pub(super) struct Announcement<'a> {
    /// The members' client URLs, with commas.
    pub(super) endpoints: String,
    pub(super) cluster: u64,
    /// What its flags say, once a start: written at every look, servers that differ would overwrite each other forever.
    pub(super) common: Option<&'a Common>,
}

impl Announcement<'_> {
    /// What is to be written over what is there. Pure.
    fn due(&self, there: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let facts = [
            (ENDPOINTS.to_owned(), self.endpoints.clone()),
            (CLUSTER.to_owned(), format!("{:x}", self.cluster)),
        ];
        let settings = self.common.into_iter().flat_map(|common| common.0.clone());
        facts.into_iter().chain(settings).filter(|(name, value)| there.get(name) != Some(value)).collect()
    }
}

/// What there is, as it is.
pub(super) async fn find(client: &kube::Client) -> anyhow::Result<Option<ConfigMap>> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    Ok(api.get_opt(NAME).await?)
}

/// `None` where it says nothing.
pub(super) async fn read(client: &kube::Client) -> anyhow::Result<Option<Told>> {
    Ok(find(client).await?.and_then(told))
}

fn told(map: ConfigMap) -> Option<Told> {
    let mut data = map.data.unwrap_or_default();
    let endpoints = data.remove(ENDPOINTS).unwrap_or_default();
    let endpoints: Vec<String> =
        endpoints.split(',').filter(|url| !url.is_empty()).map(str::to_owned).collect();
    let cluster = data.remove(CLUSTER).and_then(|id| u64::from_str_radix(&id, 16).ok());
    (!endpoints.is_empty()).then_some(Told { endpoints, cluster, common: Common(data) })
}

/// Takes back what a cluster said that is restored now, where there is no API yet: whoever joins would go to the members of the one before.
pub(super) async fn take_back(etcd: &Client, prefix: &str) -> anyhow::Result<()> {
    let key = store::etcd::stored(prefix, &format!("/registry/configmaps/{NAMESPACE}/{NAME}"));
    let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
    let success = vec![RequestOp { request: Some(Request::RequestDeleteRange(delete)) }];
    etcd.txn(TxnRequest { success, ..TxnRequest::default() }, Repeat::Always).await?;
    Ok(())
}

/// Says what is different from what was `found`, unless somebody has written since.
pub(super) async fn publish(
    client: &kube::Client,
    found: Option<ConfigMap>,
    announcement: &Announcement<'_>,
) -> anyhow::Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let there = found.as_ref().and_then(|map| map.data.clone()).unwrap_or_default();
    let due = announcement.due(&there);
    if due.is_empty() {
        return Ok(());
    }
    if let Some(found) = found {
        for name in announcement.common.into_iter().flat_map(|common| common.0.keys()) {
            if let Some((before, now)) = there.get(name).zip(due.get(name)) {
                tracing::warn!(
                    name,
                    before,
                    now,
                    "this server's setting is not what the servers said before"
                );
            }
        }
        let patch =
            json!({ "metadata": { "resourceVersion": found.metadata.resource_version }, "data": due });
        api.patch(NAME, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .with_context(|| format!("update {NAME}"))?;
    } else {
        let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
        let map = ConfigMap { metadata, data: Some(due), ..ConfigMap::default() };
        api.create(&PostParams::default(), &map).await.with_context(|| format!("create {NAME}"))?;
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

    #[test]
    fn two_servers_that_differ_must_not_write_in_turn() {
        let [ours, theirs] = ["a", "b"].map(|domain| Common::new([("cluster-domain", domain.into())]));
        let says = |common| Announcement { endpoints: "https://n1:2379".into(), cluster: 0xcafe, common };
        let mut there = BTreeMap::from([("of-a-later-version".to_owned(), "x".to_owned())]);
        there.extend(says(Some(&ours)).due(&there));
        assert_eq!((there["cluster-id"].as_str(), there["cluster-domain"].as_str()), ("cafe", "a"));
        assert!(says(Some(&ours)).due(&there).is_empty());
        // One that means something else says so when it starts, and that is all.
        there.extend(says(Some(&theirs)).due(&there));
        assert_eq!(there["cluster-domain"], "b");
        for _ in 0..2 {
            assert!(says(None).due(&there).is_empty());
        }
        assert_eq!(there["of-a-later-version"], "x");
        let moved = Announcement { endpoints: "https://n2:2379".into(), ..says(None) };
        assert_eq!(moved.due(&there).len(), 1, "who is a member is everybody's to say");
        let told = told(ConfigMap { data: Some(there), ..ConfigMap::default() }).unwrap();
        assert_eq!((told.cluster, told.endpoints.len()), (Some(0xcafe), 1));
    }
}
