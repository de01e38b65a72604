//! Another server becomes a member: it is added without a vote, starts, and is given its vote once it has caught up ([`super::stacked`]).
//!
//! Woken once, at a start. Reads the members there are, from any of them, and our own directory; changes membership one step at a time, looking
//! again before each. Promises: killed anywhere, the next start goes on from what it finds. A member of ours whose disk is gone is removed and
//! another one added; a member of our name that answers elsewhere is somebody else's, and stays.

use super::place::{Known, Place};
use super::program::{Cluster, Member};
use anyhow::bail;
use etcd::{Client, Config, v3};
use std::path::Path;
use std::time::Duration;
use supervise::Backoff;

/// How long a member that may be another's is waited for.
const ALIVE: Duration = Duration::from_secs(3);

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Start etcd: it is a member, whether with a vote or without.
    Run,
    /// Our directory is that of a member that was removed: put it aside.
    Discard,
    /// Our member has lost its disk: remove it.
    Remove(u64),
    /// A member of our name is at other URLs: remove it unless it answers.
    Replace(u64, Vec<String>),
    /// Add us, without a vote.
    Add,
}

/// Pure.
fn step(members: &[v3::Member], name: &str, peer: &str, has_data: bool) -> Step {
    let ours = members.iter().find(|member| member.peer_ur_ls.iter().any(|url| url == peer));
    match (ours, has_data) {
        (Some(_), true) => Step::Run,
        (None, true) => Step::Discard,
        // It has been added, and has never started.
        (Some(ours), false) if ours.name.is_empty() => Step::Run,
        (Some(ours), false) => Step::Remove(ours.id),
        (None, false) => match members.iter().find(|member| member.name == name) {
            Some(other) => Step::Replace(other.id, other.client_ur_ls.clone()),
            None => Step::Add,
        },
    }
}

/// Becomes a member, with `connection` to those there are; gives how etcd is to be started. Tries until it has worked, or `stop` comes of
/// dropping it.
pub(super) async fn become_member(
    member: &Member,
    place: &Place,
    connection: &Config,
) -> anyhow::Result<Cluster> {
    let client = Client::new(connection)?;
    let mut pauses = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        match attempt(member, place, connection, &client).await {
            Ok(Some(cluster)) => return Ok(cluster),
            Ok(None) => pauses.reset(),
            Err(error) if error.is::<etcd::Failure>() => {
                tracing::warn!(error = format!("{error:#}"), "become a member of etcd; will try again");
                pauses.pause().await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// One step; gives the members once etcd may start.
async fn attempt(
    member: &Member,
    place: &Place,
    connection: &Config,
    client: &Client,
) -> anyhow::Result<Option<Cluster>> {
    let members = client.member_list().await?;
    match step(&members, &member.name, &member.peer_url(), has_log(&place.data())) {
        Step::Run => return Ok(Some(Cluster::Existing(named(&members, member)))),
        Step::Discard => discard(place)?,
        Step::Remove(id) => {
            tracing::info!(id = format!("{id:x}"), "removing our member, whose disk is gone");
            client.member_remove(id).await?;
        }
        Step::Replace(id, urls) => {
            if answers(connection, &urls).await {
                bail!(
                    "another server is the member {:?} of etcd, and it answers at {}: name this one differently",
                    member.name,
                    urls.join(", ")
                );
            }
            tracing::info!(id = format!("{id:x}"), "removing the member of our name, which is gone");
            client.member_remove(id).await?;
        }
        Step::Add => {
            let id = client.member_add_learner(&member.peer_url()).await?;
            tracing::info!(id = format!("{id:x}"), "a member of etcd, without a vote yet");
        }
    }
    Ok(None)
}

/// Whether etcd has begun to write here.
pub(super) fn has_log(data: &Path) -> bool {
    let files = std::fs::read_dir(data.join("member/wal"));
    files.is_ok_and(|mut files| {
        files.any(|f| f.is_ok_and(|f| f.path().extension().is_some_and(|e| e == "wal")))
    })
}

/// Puts what a removed member wrote aside: it may be what somebody looks for.
pub(super) fn discard(place: &Place) -> anyhow::Result<()> {
    let moment = jiff::Timestamp::now().as_second();
    let aside = place.path().join(format!("removed-{moment}"));
    tracing::warn!(aside = %aside.display(), "this member was removed; its files are put aside");
    super::moving::rename(&place.data(), &aside)
}

async fn answers(connection: &Config, urls: &[String]) -> bool {
    let config = Config { endpoints: urls.to_vec(), ..connection.clone() };
    let Ok(client) = Client::new(&config) else { return false };
    matches!(tokio::time::timeout(ALIVE, client.status()).await, Ok(Ok(_)))
}

/// Names and peer URLs; one that has not started has no name of its own yet.
fn named(members: &[v3::Member], own: &Member) -> Vec<(String, String)> {
    let peer = own.peer_url();
    let each = members.iter().flat_map(|member| {
        let name = match member.name.as_str() {
            _ if member.peer_ur_ls.contains(&peer) => own.name.clone(),
            "" => format!("{:x}", member.id),
            name => name.to_owned(),
        };
        member.peer_ur_ls.iter().map(move |url| (name.clone(), url.clone()))
    });
    each.collect()
}

/// Members with a vote, sorted.
pub(super) fn voters(members: &[v3::Member]) -> Vec<Known> {
    let mut known: Vec<Known> = members
        .iter()
        .filter(|member| !member.is_learner && !member.client_ur_ls.is_empty())
        .map(|member| Known {
            id: member.id,
            name: member.name.clone(),
            peer_urls: member.peer_ur_ls.clone(),
            client_urls: member.client_ur_ls.clone(),
        })
        .collect();
    known.sort();
    known
}

/// Waits until our member has its vote, giving it as soon as it has caught up; gives the members then.
pub(super) async fn get_vote(member: &Member, connection: &Config) -> anyhow::Result<Vec<Known>> {
    let client = Client::new(connection)?;
    let (peer, mut told) = (member.peer_url(), String::new());
    loop {
        let members = client.member_list().await;
        let why = match members {
            Ok(members) => match members.iter().find(|m| m.peer_ur_ls.contains(&peer)) {
                Some(ours) if !ours.is_learner => return Ok(voters(&members)),
                Some(ours) => client.member_promote(ours.id).await.err().map(|failure| failure.to_string()),
                None => bail!("our member was removed before it had its vote; start again"),
            },
            Err(failure) => Some(failure.to_string()),
        };
        if let Some(why) = why.filter(|why| *why != told) {
            tracing::info!(why, "etcd: waiting for our vote");
            told = why;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Whether the members there are no longer know us; `None` where none of them says.
pub(super) async fn is_removed(member: &Member, connection: &Config) -> Option<bool> {
    let client = Client::new(connection).ok()?;
    let listed = tokio::time::timeout(ALIVE, client.member_list()).await.ok()?.ok()?;
    Some(!listed.iter().any(|known| known.peer_ur_ls.contains(&member.peer_url())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str, peer: &str) -> v3::Member {
        v3::Member {
            id,
            name: name.into(),
            peer_ur_ls: vec![peer.into()],
            client_ur_ls: vec![format!("c{id}")],
            is_learner: false,
        }
    }

    #[test]
    fn each_start_goes_on_from_what_it_finds() {
        let others = [member(1, "n1", "p1")];
        assert_eq!(step(&others, "n2", "p2", false), Step::Add);
        let added = [others[0].clone(), member(2, "", "p2")];
        assert_eq!(step(&added, "n2", "p2", false), Step::Run, "killed after it was added");
        let started = [others[0].clone(), member(2, "n2", "p2")];
        assert_eq!(step(&started, "n2", "p2", true), Step::Run, "killed after etcd had started");
        assert_eq!(step(&started, "n2", "p2", false), Step::Remove(2), "its disk is gone");
        assert_eq!(step(&others, "n2", "p2", true), Step::Discard, "removed meanwhile");
    }

    #[test]
    fn a_member_of_our_name_elsewhere_must_not_be_removed_unseen() {
        let others = [member(1, "n1", "p1"), member(2, "n2", "elsewhere")];
        assert_eq!(step(&others, "n2", "p2", false), Step::Replace(2, vec!["c2".into()]));
    }

    #[test]
    fn who_has_no_vote_or_has_not_started_is_nobody_to_ask() {
        let learner = v3::Member { is_learner: true, ..member(2, "n2", "p2") };
        let unstarted = v3::Member { client_ur_ls: Vec::new(), ..member(3, "", "p3") };
        let known = voters(&[learner, unstarted, member(1, "n1", "p1")]);
        assert_eq!(known.iter().map(|k| k.id).collect::<Vec<_>>(), [1]);
    }
}
