//! The members there are, as they come and go.
//!
//! Woken by time. Reads etcd's list of members; writes it to this server's disk, where the next start finds it, and into the
//! cluster ([`super::announced`]), where a server that joins does; tells the store's client. Renews etcd's certificates when they are due.
//! Promises: a member that has come is used, and one that was removed is no longer, within [`PERIOD`].

use super::announced::publish;
use super::joining::voters;
use super::stacked::Stacked;
use anyhow::{Context as _, bail};
use etcd::Client;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Task, jittered};

const PERIOD: Duration = Duration::from_secs(10);

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
