//! Who of the members answers, and whom the others can do without.
//!
//! etcd itself refuses a change of members that would cost the majority (`--strict-reconfig-check`: `mayRemoveMember`), by what its connections
//! show of five seconds; kubeadm looks at each member's status before it changes anything. Here both are asked for, and a member is taken for
//! gone only after [`GONE`].

use etcd::v3::Member;
use etcd::{Client, Config};
use futures::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// How long one member may take to say how it is.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// Who has not answered for so long does not come back by itself: longer than a restart and most starts of a machine.
pub(super) const GONE: Duration = Duration::from_secs(60);

/// Whether `member` says that it is well; of one that has not started yet, whether anybody is at its peer's address.
pub(super) async fn answers(connection: &Config, member: &Member) -> bool {
    if member.client_ur_ls.is_empty() {
        let found = join_all(member.peer_ur_ls.iter().map(|url| listens(url))).await;
        return found.contains(&true);
    }
    let config = Config { endpoints: member.client_ur_ls.clone(), ..connection.clone() };
    let Ok(client) = Client::new(&config) else { return false };
    let status = tokio::time::timeout(PATIENCE, client.status()).await;
    matches!(status, Ok(Ok(status)) if status.errors.is_empty())
}

async fn listens(url: &str) -> bool {
    let Some(address) = url.parse::<http::Uri>().ok().and_then(|url| Some(url.authority()?.to_string()))
    else {
        return false;
    };
    matches!(tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await, Ok(Ok(_)))
}

/// Whether this machine has `address`, and nobody listens there.
///
/// # Errors
/// Why a member cannot.
pub(super) async fn is_free(address: SocketAddr) -> io::Result<()> {
    TcpListener::bind(address).await.map(drop)
}

/// Those of `members` with a vote who say that they are well, by id.
pub(super) async fn well(connection: &Config, members: &[Member]) -> BTreeSet<u64> {
    let voters = members.iter().filter(|member| !member.is_learner);
    let each = voters.map(|member| async move { answers(connection, member).await.then_some(member.id) });
    join_all(each).await.into_iter().flatten().collect()
}

/// Whether those who stay can decide without the member `id`, where `well` are those who are. Pure.
pub(super) fn keeps_majority(members: &[Member], id: u64, well: &BTreeSet<u64>) -> bool {
    let stay = members.iter().filter(|member| !member.is_learner && member.id != id);
    let (all, alive) =
        stay.fold((0, 0), |(all, alive), member| (all + 1, alive + usize::from(well.contains(&member.id))));
    2 * alive > all
}

/// Since when members do not answer.
#[derive(Debug, Default)]
pub(super) struct Silence(BTreeMap<u64, Instant>);

impl Silence {
    /// Takes note of whether the member `id` answers; true once it has not for [`GONE`], each time it was asked. Pure.
    pub(super) fn lasts(&mut self, id: u64, answers: bool, now: Instant) -> bool {
        if answers {
            self.0.remove(&id);
            return false;
        }
        now.duration_since(*self.0.entry(id).or_insert(now)) >= GONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voter(id: u64) -> Member {
        Member { id, ..Member::default() }
    }

    #[test]
    fn a_member_must_not_go_whose_vote_the_majority_needs() {
        let all = [voter(1), voter(2), voter(3), Member { is_learner: true, ..voter(4) }];
        let keeps = |id, well: &[u64]| keeps_majority(&all, id, &well.iter().copied().collect());
        assert!(keeps(3, &[1, 2]), "the one that is gone");
        assert!(!keeps(1, &[1, 2]), "of two that are left, one is gone");
        assert!(keeps(1, &[1, 2, 3]) && keeps(4, &[1, 2]));
        assert!(!keeps_majority(&all[..1], 1, &BTreeSet::from([1])), "nobody is left");
    }

    #[test]
    fn a_member_that_is_silent_for_a_moment_must_not_pass_for_gone() {
        let (start, mut silence) = (Instant::now(), Silence::default());
        assert!(!silence.lasts(1, false, start));
        assert!(!silence.lasts(1, false, start + GONE / 2));
        assert!(!silence.lasts(1, true, start + GONE / 2), "it was slow");
        assert!(!silence.lasts(1, false, start + GONE), "counted anew");
        assert!(!silence.lasts(2, false, start + 2 * GONE), "each for itself");
        assert!(silence.lasts(1, false, start + 2 * GONE));
    }

    #[tokio::test]
    async fn an_address_of_somebody_else_must_not_pass_for_free() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(is_free(address).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        is_free(address).await.unwrap();
        // Of the range for documentation: no machine has it.
        let other = is_free("192.0.2.1:2380".parse().unwrap()).await.unwrap_err();
        assert_eq!(other.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[tokio::test]
    async fn who_has_not_started_is_known_by_its_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let learner = Member { peer_ur_ls: vec![url], is_learner: true, ..voter(1) };
        assert!(answers(&Config::default(), &learner).await);
        drop(listener);
        assert!(!answers(&Config::default(), &learner).await);
    }
}
