//! Another server becomes a member: it is added without a vote, starts, and is given its vote once it has caught up ([`super::stacked`]).
//!
//! Woken once, at a start. Reads the members there are, from those who are of the right cluster ([`super::agreement`]); changes membership one
//! step at a time, looking again before each. Promises: killed anywhere, the next start goes on from what it finds. A member of ours whose disk
//! is gone is removed and another one added: it has our name and address, nobody is at that address, and the address is this machine's. Another
//! server's member goes only if the operator named it (`--replace-member`) or it never had a vote, and it has been silent for [`health::GONE`];
//! and nobody goes whom the majority needs.

use super::agreement;
use super::health::{self, Silence};
use super::place::{Known, Place};
use super::program::{Cluster, Member};
use anyhow::{bail, ensure};
use etcd::{Client, Config, Membership, v3};
use std::path::Path;
use std::time::Duration;
use supervise::Backoff;
use tokio::time::Instant;

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Start etcd: it is a member, whether with a vote or without.
    Run,
    /// Our directory is that of a member that was removed: put it aside.
    Discard,
    /// Our member has lost its disk: remove it.
    Remove(u64),
    /// The operator named this one: remove it once it is gone.
    Replace(u64),
    /// Somebody else is a member by our name.
    Taken(u64),
    /// Somebody else is the member at our address.
    Elsewhere(u64),
    /// This one has no vote yet, and etcd takes one such member at a time: wait for it, or remove it once it is gone.
    Await(u64),
    /// Add us, without a vote.
    Add,
}

/// Pure.
fn step(members: &[v3::Member], name: &str, peer: &str, has_data: bool, replaces: Option<&str>) -> Step {
    let ours = members.iter().find(|member| member.peer_ur_ls.iter().any(|url| url == peer));
    match (ours, has_data) {
        (Some(_), true) => return Step::Run,
        (None, true) => return Step::Discard,
        // It has been added, and has never started.
        (Some(ours), false) if ours.name.is_empty() => return Step::Run,
        (Some(ours), false) if ours.name == name => return Step::Remove(ours.id),
        (Some(other), false) if replaces == Some(&other.name) => return Step::Replace(other.id),
        (Some(other), false) => return Step::Elsewhere(other.id),
        (None, false) => {}
    }
    let by_name = |name: &str| members.iter().find(|member| member.name == name);
    if let Some(named) = replaces.and_then(by_name) {
        return Step::Replace(named.id);
    }
    match (by_name(name), members.iter().find(|member| member.is_learner)) {
        (Some(other), _) => Step::Taken(other.id),
        (None, Some(learner)) => Step::Await(learner.id),
        (None, None) => Step::Add,
    }
}

/// A server that is to become a member.
pub(super) struct Candidate<'a> {
    pub(super) member: &'a Member,
    pub(super) place: &'a Place,
    /// To the members there are said to be.
    pub(super) connection: &'a Config,
    /// The cluster they are to be of, where that is known.
    pub(super) cluster: Option<u64>,
    /// The member whose place it takes, by the operator's word.
    pub(super) replaces: Option<&'a str>,
}

/// How a member is started, and in which cluster.
pub(super) struct Admitted {
    pub(super) others: Cluster,
    pub(super) cluster: u64,
    /// Members that answered.
    pub(super) endpoints: Vec<String>,
}

/// What came of one look.
enum Looked {
    Admitted(Admitted),
    /// Something was done; look again.
    Done,
    /// Nothing can be done yet.
    Wait(String),
}

/// The members as a candidate found them.
struct Found<'a> {
    members: &'a [v3::Member],
    connection: &'a Config,
    client: &'a Client,
}

impl Candidate<'_> {
    /// Becomes a member; gives how etcd is to be started. Tries until it has worked, or it is dropped.
    ///
    /// # Errors
    /// What only an operator can mend.
    pub(super) async fn become_member(&self) -> anyhow::Result<Admitted> {
        let mut pauses = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        let mut silence = Silence::default();
        loop {
            let why = match self.attempt(&mut silence).await {
                Ok(Looked::Admitted(admitted)) => return Ok(admitted),
                Ok(Looked::Done) => {
                    pauses.reset();
                    continue;
                }
                Ok(Looked::Wait(why)) => why,
                Err(error) if error.is::<etcd::Failure>() => format!("{error:#}"),
                Err(error) => return Err(error),
            };
            tracing::warn!(why, "become a member of etcd; will try again");
            pauses.pause().await;
        }
    }

    /// One step.
    async fn attempt(&self, silence: &mut Silence) -> anyhow::Result<Looked> {
        let answers = agreement::ask(self.connection).await;
        let Some((endpoints, said)) = agreement::agreed(&answers, self.cluster)? else {
            return Ok(Looked::Wait("no member of etcd answers that knows a majority".to_owned()));
        };
        let Membership { cluster, members } = said;
        let connection =
            Config { endpoints: endpoints.clone(), cluster: Some(cluster), ..self.connection.clone() };
        let client = Client::new(&connection)?;
        let found = Found { members: &members, connection: &connection, client: &client };
        let has_data = has_log(&self.place.data());
        let step = step(&members, &self.member.name, &self.member.peer_url(), has_data, self.replaces);
        if matches!(step, Step::Remove(_) | Step::Replace(_) | Step::Add)
            && let Err(why) = health::is_free(self.member.peer_address()).await
        {
            if let Step::Remove(id) = step {
                found.keep_well(id, &self.member.name).await?;
            }
            return Ok(Looked::Wait(format!("etcd cannot listen on {}: {why}", self.member.peer_url())));
        }
        let waits = match step {
            Step::Run => {
                let others = Cluster::Existing(named(&members, self.member));
                return Ok(Looked::Admitted(Admitted { others, cluster, endpoints }));
            }
            Step::Discard => {
                discard(self.place)?;
                None
            }
            Step::Remove(id) => {
                found.keep_well(id, &self.member.name).await?;
                found.remove(id, "our member, whose disk is gone").await?
            }
            Step::Elsewhere(id) => bail!(
                "{} is the address of the member {:?} of etcd ({id:x}), and this one is {:?}: look at --node-ip; or, if that machine is gone, remove it (`windlass member remove`) or give --replace-member",
                self.member.peer_url(),
                found.name(id),
                self.member.name
            ),
            Step::Replace(id) => {
                ensure!(
                    !found.is_well(id).await,
                    "--replace-member: the member {:?} is well: stop its server first, or remove it (`windlass member remove`)",
                    self.replaces.unwrap_or_default()
                );
                found.remove_gone(id, silence).await?
            }
            Step::Taken(id) => bail!(
                "another server is the member {:?} of etcd ({id:x}): name this one differently; or, if that machine is gone, remove it (`windlass member remove`) or give --replace-member",
                self.member.name
            ),
            Step::Await(id) if found.is_well(id).await => {
                silence.lasts(id, true, Instant::now());
                Some(format!("the member {id:x} has no vote yet, and one joins at a time"))
            }
            Step::Await(id) => found.remove_gone(id, silence).await?,
            Step::Add => {
                let id = client.member_add_learner(&self.member.peer_url()).await?;
                tracing::info!(id = format!("{id:x}"), "a member of etcd, without a vote yet");
                None
            }
        };
        Ok(waits.map_or(Looked::Done, Looked::Wait))
    }
}

impl Found<'_> {
    async fn is_well(&self, id: u64) -> bool {
        match self.members.iter().find(|member| member.id == id) {
            Some(member) => health::answers(self.connection, member).await,
            None => false,
        }
    }

    fn name(&self, id: u64) -> &str {
        self.members.iter().find(|member| member.id == id).map_or("", |member| member.name.as_str())
    }

    /// # Errors
    /// The member `id`, which has our name and address, is well: it is another process than we are.
    async fn keep_well(&self, id: u64, name: &str) -> anyhow::Result<()> {
        ensure!(
            !self.is_well(id).await,
            "the member {name:?} of etcd ({id:x}) is well, and this server has none of its files: another server is {name:?} at the same address"
        );
        Ok(())
    }

    /// Removes another server's member that did not answer just now, if that lasts; or says what is waited for.
    async fn remove_gone(&self, id: u64, silence: &mut Silence) -> anyhow::Result<Option<String>> {
        if silence.lasts(id, false, Instant::now()) {
            return self.remove(id, "a member that is gone").await;
        }
        let seconds = health::GONE.as_secs();
        Ok(Some(format!("the member {id:x} does not answer; it is removed if that lasts for {seconds} s")))
    }

    /// Removes a member unless the majority needs it; or says so.
    async fn remove(&self, id: u64, what: &str) -> anyhow::Result<Option<String>> {
        let votes = self.members.iter().any(|member| member.id == id && !member.is_learner);
        let well = health::well(self.connection, self.members).await;
        if votes && !health::keeps_majority(self.members, id, &well) {
            return Ok(Some(format!("too few others are well to remove {what} ({id:x})")));
        }
        tracing::warn!(id = format!("{id:x}"), "removing {what}");
        self.client.member_remove(id).await?;
        Ok(None)
    }
}

/// The members as etcd is told of them at a first start, which may have to be made again.
///
/// # Errors
/// Nobody says, or our member was removed.
pub(super) async fn others(member: &Member, connection: &Config) -> anyhow::Result<Cluster> {
    let members = Client::new(connection)?.member_list().await?.members;
    let peer = member.peer_url();
    ensure!(members.iter().any(|known| known.peer_ur_ls.contains(&peer)), "our member was removed");
    Ok(Cluster::Existing(named(&members, member)))
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
    Ok(pki::files::rename(&place.data(), &aside)?)
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
            Ok(Membership { members, .. }) => match members.iter().find(|m| m.peer_ur_ls.contains(&peer)) {
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
        let step = |members: &[v3::Member], has_data| step(members, "n2", "p2", has_data, None);
        assert_eq!(step(&others, false), Step::Add);
        let added = [others[0].clone(), member(2, "", "p2")];
        assert_eq!(step(&added, false), Step::Run, "killed after it was added");
        let started = [others[0].clone(), member(2, "n2", "p2")];
        assert_eq!(step(&started, true), Step::Run, "killed after etcd had started");
        assert_eq!(step(&started, false), Step::Remove(2), "its disk is gone");
        assert_eq!(step(&others, true), Step::Discard, "removed meanwhile");
    }

    #[test]
    fn a_member_that_nobody_named_must_not_be_replaced() {
        let others = [member(1, "n1", "p1"), member(2, "n2", "elsewhere")];
        assert_eq!(step(&others, "n2", "p2", false, None), Step::Taken(2));
        assert_eq!(step(&others, "n2", "p2", false, Some("n2")), Step::Replace(2));
        assert_eq!(step(&others, "n3", "p3", false, Some("n2")), Step::Replace(2));
        assert_eq!(step(&others, "n3", "p3", false, Some("n4")), Step::Add, "it was removed before");
        assert_eq!(step(&others, "n1", "p1", true, Some("n2")), Step::Run, "who is a member replaces nobody");
    }

    #[test]
    fn a_member_at_our_address_must_not_be_removed_by_another_name() {
        let others = [member(1, "n1", "p1"), member(2, "n2", "p2")];
        assert_eq!(step(&others, "n4", "p2", false, None), Step::Elsewhere(2), "a copied --node-ip");
        assert_eq!(step(&others, "n4", "p2", false, Some("n1")), Step::Elsewhere(2), "another was named");
        assert_eq!(step(&others, "n4", "p2", false, Some("n2")), Step::Replace(2), "by the operator's word");
        assert_eq!(step(&others, "n2", "p2", false, Some("n1")), Step::Remove(2), "its own lost disk");
    }

    #[tokio::test]
    async fn a_member_that_answers_must_not_pass_for_one_without_a_disk() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = format!("https://{}", listener.local_addr().unwrap());
        // One that has not told its client's address yet is known by its peer's.
        let members = [v3::Member { client_ur_ls: Vec::new(), ..member(2, "n2", &peer) }];
        let connection = Config { endpoints: vec!["http://127.0.0.1:1".to_owned()], ..Config::default() };
        let client = Client::new(&connection).unwrap();
        let found = Found { members: &members, connection: &connection, client: &client };
        let error = found.keep_well(2, "n2").await.unwrap_err().to_string();
        assert!(error.contains("another server is \"n2\""), "{error}");
        drop(listener);
        found.keep_well(2, "n2").await.unwrap();
    }

    #[test]
    fn a_learner_that_died_must_not_keep_others_out() {
        let learner = v3::Member { is_learner: true, ..member(2, "", "p2") };
        let others = [member(1, "n1", "p1"), learner];
        assert_eq!(step(&others, "n3", "p3", false, None), Step::Await(2), "etcd takes no second one");
        assert_eq!(step(&others, "n2", "p2", false, None), Step::Run, "our own");
    }

    #[test]
    fn who_has_no_vote_or_has_not_started_is_nobody_to_ask() {
        let learner = v3::Member { is_learner: true, ..member(2, "n2", "p2") };
        let unstarted = v3::Member { client_ur_ls: Vec::new(), ..member(3, "", "p3") };
        let known = voters(&[learner, unstarted, member(1, "n1", "p1")]);
        assert_eq!(known.iter().map(|k| k.id).collect::<Vec<_>>(), [1]);
    }
}
