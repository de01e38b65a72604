//! Which cluster those are of who answer. An endpoint that was a member's may be of another cluster now: one that was begun anew or restored on
//! that machine. What it says of membership says nothing of ours.

use anyhow::{bail, ensure};
use etcd::{Client, Config, Membership};
use futures::future::join_all;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long one member may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// What one endpoint says.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) endpoint: String,
    pub(super) said: Membership,
}

/// What each endpoint of `connection` says when it is asked alone; nothing of those that do not answer, or know no majority.
pub(super) async fn ask(connection: &Config) -> Vec<Answer> {
    let each = connection.endpoints.iter().map(|endpoint| async move {
        let alone = Config { endpoints: vec![endpoint.clone()], cluster: None, ..connection.clone() };
        let client = Client::new(&alone).ok()?;
        let said = tokio::time::timeout(PATIENCE, client.member_list()).await.ok()?.ok()?;
        Some(Answer { endpoint: endpoint.clone(), said })
    });
    join_all(each).await.into_iter().flatten().collect()
}

/// The cluster to join, the endpoints that are of it, and its members; `None` where nobody answers. Pure.
///
/// # Errors
/// Those who answer are all of other clusters than `expected`; or nothing is expected, and they are not all of one.
pub(super) fn agreed(
    answers: &[Answer],
    expected: Option<u64>,
) -> anyhow::Result<Option<(Vec<String>, Membership)>> {
    let clusters: BTreeSet<u64> = answers.iter().map(|answer| answer.said.cluster).collect();
    let Some(first) = clusters.first() else { return Ok(None) };
    let cluster = match expected {
        Some(expected) if !clusters.contains(&expected) => bail!(
            "{} answer for the etcd cluster {}, and this server is of {expected:x}",
            show(answers.iter().map(|answer| answer.endpoint.clone())),
            show(clusters.iter().map(|id| format!("{id:x}")))
        ),
        Some(expected) => expected,
        None => {
            ensure!(
                clusters.len() == 1,
                "those who answer are of several clusters of etcd: {}",
                show(
                    answers.iter().map(|answer| format!("{} of {:x}", answer.endpoint, answer.said.cluster))
                )
            );
            *first
        }
    };
    let of: Vec<&Answer> = answers.iter().filter(|answer| answer.said.cluster == cluster).collect();
    let endpoints = of.iter().map(|answer| answer.endpoint.clone()).collect();
    Ok(of.first().map(|answer| (endpoints, answer.said.clone())))
}

/// Whether the member at `peer` was removed from `cluster`; `None` where nobody of that cluster says. Pure.
pub(super) fn is_removed(answers: &[Answer], cluster: u64, peer: &str) -> Option<bool> {
    let mut of = answers.iter().filter(|answer| answer.said.cluster == cluster).peekable();
    of.peek()?;
    Some(!of.any(|answer| {
        answer.said.members.iter().any(|member| member.peer_ur_ls.iter().any(|url| url == peer))
    }))
}

fn show(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use etcd::v3::Member;

    fn answer(endpoint: &str, cluster: u64, peers: &[&str]) -> Answer {
        let member = |peer: &&str| Member { peer_ur_ls: vec![(*peer).to_owned()], ..Member::default() };
        let members = peers.iter().map(member).collect();
        Answer { endpoint: endpoint.to_owned(), said: Membership { cluster, members } }
    }

    #[test]
    fn another_cluster_must_not_tell_a_member_that_it_was_removed() {
        let (fresh, ours) = (answer("e1", 8, &["p1"]), answer("e2", 7, &["p1", "p2", "p3"]));
        assert_eq!(is_removed(std::slice::from_ref(&fresh), 7, "p3"), None, "a cluster begun anew");
        assert_eq!(is_removed(&[fresh.clone(), ours], 7, "p3"), Some(false));
        assert_eq!(is_removed(&[fresh, answer("e2", 7, &["p1", "p2"])], 7, "p3"), Some(true));
        assert_eq!(is_removed(&[], 7, "p3"), None);
    }

    #[test]
    fn a_server_must_not_join_another_cluster_than_the_one_it_knows() {
        let (other, ours) = (answer("e1", 8, &["p1"]), answer("e2", 7, &["p1", "p2"]));
        let error = agreed(std::slice::from_ref(&other), Some(7)).unwrap_err().to_string();
        assert!(error.contains("the etcd cluster 8, and this server is of 7"), "{error}");
        let (endpoints, said) = agreed(&[other, ours.clone()], Some(7)).unwrap().unwrap();
        assert_eq!((endpoints, said), (vec!["e2".to_owned()], ours.said));
        assert!(agreed(&[], Some(7)).unwrap().is_none(), "nobody is no other cluster");
    }

    #[test]
    fn a_server_that_knows_none_must_not_choose_among_several_clusters() {
        let (one, two) = (answer("e1", 8, &["p1"]), answer("e2", 7, &["p2"]));
        let error = agreed(&[one.clone(), two], None).unwrap_err().to_string();
        assert!(error.ends_with("e1 of 8, e2 of 7"), "{error}");
        assert_eq!(agreed(std::slice::from_ref(&one), None).unwrap().unwrap().1, one.said);
    }
}
