//! The members there are, as they come and go.
//!
//! Woken by time. Reads etcd's list of members; writes it to this server's disk, where the next start finds it, and to the ConfigMap
//! `kube-system/windlass-etcd`, where a server that joins does; tells the store's client. Renews etcd's certificates when they are due.
//! Promises: a member that has come is used, and one that was removed is no longer, within [`PERIOD`].

use super::joining::voters;
use super::stacked::Stacked;
use anyhow::{Context as _, bail};
use etcd::Client;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Task, jittered};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "windlass-etcd";
/// The members' client URLs, with commas.
const ENDPOINTS: &str = "endpoints";
const PERIOD: Duration = Duration::from_secs(10);

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

/// Keeps all who ask up to date.
pub(crate) fn task(stacked: Arc<Stacked>, etcd: Client, api: kube::Client) -> Task {
    Task::endless("etcd/members", move || {
        let (stacked, etcd, api) = (stacked.clone(), etcd.clone(), api.clone());
        async move {
            let mut renewal = Timestamp::MIN;
            loop {
                if let Err(error) = turn(&stacked, &etcd, &api, &mut renewal).await {
                    tracing::debug!(
                        error = format!("{error:#}"),
                        "follow the members of etcd; will try again"
                    );
                }
                tokio::time::sleep(jittered(PERIOD)).await;
            }
        }
    })
}

async fn turn(
    stacked: &Stacked,
    etcd: &Client,
    api: &kube::Client,
    renewal: &mut Timestamp,
) -> anyhow::Result<()> {
    let mut changed = false;
    if Timestamp::now() >= *renewal {
        let first = *renewal == Timestamp::MIN;
        *renewal = stacked.renew(&stacked.dir().join("pki")).context("renew etcd's certificates")?;
        changed = !first;
    }
    let members = voters(&etcd.member_list().await?);
    if members.is_empty() {
        bail!("etcd names no member");
    }
    if stacked.state().members != members {
        let names: Vec<&str> = members.iter().map(|known| known.name.as_str()).collect();
        tracing::info!(?names, "the members of etcd");
        stacked.note(|state| state.members.clone_from(&members))?;
        changed = true;
    }
    if changed {
        etcd.replace(&stacked.storage()?.client()?)?;
    }
    let endpoints: Vec<&str> =
        members.iter().flat_map(|known| known.client_urls.iter().map(String::as_str)).collect();
    publish(api, &endpoints.join(","), stacked.common()).await
}

async fn publish(client: &kube::Client, endpoints: &str, common: &Common) -> anyhow::Result<()> {
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
