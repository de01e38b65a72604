//! The members there are, as they come and go.
//!
//! Woken by time. Reads etcd's list of members; writes it to this server's disk, where the next start finds it, and into the
//! cluster ([`super::announced`]), where a server that joins does; tells the store's client. Renews etcd's certificates when they are due, and has
//! etcd start again where its authority was: one member after another.
//! Promises: a member that has come is used, and one that was removed is no longer, within [`PERIOD`]. Each turn compares what is with what is to
//! be: what one that failed left undone, the next does.

use super::announced::{self, Announcement};
use super::joining::voters;
use super::place::Known;
use super::stacked::Stacked;
use crate::parts::apiserver::publish::kubeadm;
use anyhow::{Context as _, bail};
use etcd::{Client, Config};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Task, jittered};
use tokio::time::Instant;

const PERIOD: Duration = Duration::from_secs(10);
/// How long each member has to start again before the next one does.
const TURN: Duration = Duration::from_secs(120);

/// Keeps all who ask up to date.
pub(crate) fn task(stacked: Arc<Stacked>, etcd: Client, api: kube::Client) -> Task {
    Task::endless("etcd/members", move || {
        let mut follower = Follower {
            stacked: stacked.clone(),
            etcd: etcd.clone(),
            api: api.clone(),
            renewal: None,
            known: String::new(),
            used: None,
            announced: false,
            named: Vec::new(),
            behind: None,
        };
        async move {
            loop {
                if let Err(error) = follower.turn().await {
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

struct Follower {
    stacked: Arc<Stacked>,
    etcd: Client,
    api: kube::Client,
    /// When certificates are looked at next; at once where it is not known.
    renewal: Option<Timestamp>,
    /// The authorities there were then.
    known: String,
    /// What the store's client was told last.
    used: Option<Config>,
    /// The settings of this start are in the cluster.
    announced: bool,
    /// The members that a control plane of kubeadm's was told of last.
    named: Vec<String>,
    /// Since when there are authorities that etcd has not read.
    behind: Option<Instant>,
}

impl Follower {
    async fn turn(&mut self) -> anyhow::Result<()> {
        let pki = self.stacked.dir().join("pki");
        // A rotation of the authority is done on files.
        let known = pki::rotation::known(&pki, pki::etcd::AUTHORITY)?;
        if known != self.known || self.renewal.is_none_or(|due| Timestamp::now() >= due) {
            let next = self.stacked.renew(&pki);
            self.renewal = Some(next.context("renew etcd's certificates")?);
            self.known = known;
        }
        // The list itself may need them.
        self.tell_client()?;
        // Read before the list, so that nobody's later list is overwritten by ours.
        let said = announced::find(&self.api).await;
        let membership = self.etcd.member_list().await?;
        let members = voters(&membership.members);
        if members.is_empty() {
            bail!("etcd names no member");
        }
        if self.stacked.state().members != members {
            let names: Vec<&str> = members.iter().map(|known| known.name.as_str()).collect();
            tracing::info!(?names, "the members of etcd");
            self.stacked.note(|state| state.members.clone_from(&members))?;
        }
        self.tell_client()?;
        let endpoints: Vec<String> =
            members.iter().flat_map(|known| known.client_urls.iter().cloned()).collect();
        let announcement = Announcement {
            endpoints: endpoints.join(","),
            cluster: membership.cluster,
            common: (!self.announced).then(|| self.stacked.common()),
        };
        announced::publish(&self.api, said?, &announcement).await?;
        self.announced = true;
        if self.named != endpoints {
            kubeadm::follow_etcd(&self.api, &endpoints).await?;
            self.named = endpoints;
        }
        self.follow_authorities(&members)
    }

    /// An authority is renewed around its key: until the life of the old one is over, members that read it at different times know each other.
    fn follow_authorities(&mut self, members: &[Known]) -> anyhow::Result<()> {
        if !self.stacked.is_behind()? {
            self.behind = None;
            return Ok(());
        }
        let since = *self.behind.get_or_insert_with(Instant::now);
        if since.elapsed() >= wait(members, &self.stacked.state().name) {
            tracing::info!("etcd's authority is another: etcd starts again");
            self.stacked.start_again();
            self.behind = None;
        }
        Ok(())
    }

    fn tell_client(&mut self) -> anyhow::Result<()> {
        use_members(&self.etcd, &mut self.used, self.stacked.storage()?.client()?)
    }
}

/// How long a member waits for those that are named before it.
fn wait(members: &[Known], name: &str) -> Duration {
    let before = members.iter().filter(|known| known.name.as_str() < name).count();
    TURN * u32::try_from(before).unwrap_or(u32::MAX)
}

/// Has the client use what is `wanted` now; `used` is what it was told last.
fn use_members(client: &Client, used: &mut Option<Config>, wanted: Config) -> anyhow::Result<()> {
    if used.as_ref() != Some(&wanted) {
        client.replace(&wanted)?;
        *used = Some(wanted);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_must_not_start_again_at_once() {
        let known = |name: &str| Known {
            id: 0,
            name: name.to_owned(),
            peer_urls: Vec::new(),
            client_urls: Vec::new(),
        };
        let members = ["n2", "n1", "n3"].map(known);
        let mut waits = members.clone().map(|member| wait(&members, &member.name));
        waits.sort();
        assert_eq!(waits, [Duration::ZERO, TURN, 2 * TURN]);
        assert!(TURN > 2 * PERIOD, "who looks late is done before the next begins");
    }

    #[tokio::test]
    async fn members_that_the_client_was_not_told_of_must_not_be_forgotten() {
        let to = |url: &str| Config { endpoints: vec![url.to_owned()], ..Config::default() };
        let client = Client::new(&to("http://127.0.0.1:1")).unwrap();
        let mut used = None;
        assert!(use_members(&client, &mut used, to("nonsense")).is_err());
        assert_eq!(used, None, "the next turn tries again");
        use_members(&client, &mut used, to("http://127.0.0.1:2")).unwrap();
        assert_eq!(used, Some(to("http://127.0.0.1:2")));
        assert!(use_members(&client, &mut used, to("nonsense")).is_err());
        assert_eq!(used, Some(to("http://127.0.0.1:2")));
    }
}
