//! A server's member of etcd, from the server's start until the member has its vote.
//!
//! [`Stacked::prepare`] makes ready what etcd starts on; then etcd runs as a child of the server, and beside it [`Stacked::settle`] waits until
//! it serves. Only then is there an API server.

use super::joining::Candidate;
use super::moving::{self, Layout, Origin};
use super::place::{Known, Place, Start, State};
use super::program::{self, Cluster as Others, Member};
use super::{agreement, announced, joining, objects, shared};
use crate::child::{Life, Program};
use crate::cli::ServerFlags;
use crate::parts::apiserver::storage::Cluster;
use crate::settings;
use anyhow::{Context as _, bail, ensure};
use etcd::{Client, Config};
use jiff::Timestamp;
use pki::Pki;
use pki::etcd::EtcdPki;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Between two looks whether etcd serves.
const LOOK: Duration = Duration::from_millis(200);

/// How long a cluster may take to say which members there are.
const TOLD: Duration = Duration::from_secs(30);

/// What a member is made of.
pub(crate) struct Surroundings<'a> {
    pub(crate) flags: &'a ServerFlags,
    /// The node's.
    pub(crate) name: &'a str,
    pub(crate) ips: &'a [IpAddr],
    /// The server's directory.
    pub(crate) dir: &'a Path,
    pub(crate) pki: &'a Pki,
    /// What must be the same at every server, by name.
    pub(crate) common: announced::Common,
}

/// A member beside a server.
pub(crate) struct Stacked {
    member: Member,
    place: Place,
    dir: PathBuf,
    ips: Vec<IpAddr>,
    /// As they were when it was prepared.
    others: Others,
    state: Mutex<State>,
    /// How objects lie in it, and how it is spoken to; the endpoints are the state's.
    cluster: Cluster,
    common: announced::Common,
    /// How its etcd fares.
    life: Life,
    /// The authorities that etcd read at its start: it reads them once.
    began_with: Mutex<BTreeSet<String>>,
    again: Notify,
}

impl Stacked {
    /// Makes ready what `start` asks for; `None` where the server has no member. On the main thread only, as it may start a child.
    pub(crate) async fn prepare(start: Start, of: Surroundings<'_>) -> anyhow::Result<Option<Self>> {
        let (known, joins) = match start {
            Start::Embedded | Start::External => return Ok(None),
            Start::Member(state) => (Some(state), false),
            Start::First => (None, false),
            Start::Join(state) => (state, true),
        };
        let names = program::names(of.name, of.ips);
        let pki = EtcdPki::load_or_create(of.pki.dir(), of.name, &names, Timestamp::now());
        let pki = pki.context("prepare etcd's keys and certificates")?;
        let ip = *of.ips.first().context("the node has no address")?;
        let cluster = Cluster::member(&of.flags.storage, &pki)?;
        let member = Member::new(of.name, ip, of.flags.member.etcd_program.as_deref(), pki)?;
        let fresh = State {
            name: member.name.clone(),
            peer_url: member.peer_url(),
            client_url: member.client_url(),
            joined: false,
            members: Vec::new(),
        };
        let mut this = Self {
            member,
            place: Place::of(of.dir),
            dir: of.dir.to_owned(),
            ips: of.ips.to_vec(),
            others: Others::New,
            state: Mutex::new(known.clone().unwrap_or(fresh)),
            cluster,
            common: of.common.clone(),
            life: Life::default(),
            began_with: Mutex::default(),
            again: Notify::new(),
        };
        match known {
            _ if joins => this.join(&of).await?,
            Some(known) => this.resume(&known, &of).await?,
            None => this.begin().await?,
        }
        Ok(Some(this))
    }

    /// As the member it is, unless the others have removed it and it may join anew.
    async fn resume(&mut self, known: &State, of: &Surroundings<'_>) -> anyhow::Result<()> {
        if known.name != self.member.name || known.peer_url != self.member.peer_url() {
            bail!(
                "this server is the member {} of etcd at {}, not {} at {}: remove that member (`windlass member remove`) and join anew",
                known.name,
                known.peer_url,
                self.member.name,
                self.member.peer_url()
            );
        }
        let endpoints: Vec<String> =
            known.endpoints().into_iter().filter(|url| *url != known.client_url).collect();
        let cluster = self.place.cluster()?;
        // Without its files, etcd would begin a cluster of its own.
        if !joining::has_log(&self.place.data()) && (!known.members.is_empty() || cluster.is_some()) {
            if endpoints.is_empty() {
                bail!(
                    "{} is gone, and no other member has it: restore a snapshot",
                    self.place.data().display()
                );
            }
            tracing::warn!(data = %self.place.data().display(), "etcd's files are gone: joining anew");
            self.note(|state| state.joined = false)?;
            return self.join(of).await;
        }
        let Some(cluster) = cluster.filter(|_| !endpoints.is_empty()) else { return Ok(()) };
        let answers = agreement::ask(&self.connection(endpoints)?).await;
        for other in answers.iter().filter(|answer| answer.said.cluster != cluster) {
            let (ours, theirs) = (format!("{cluster:x}"), format!("{:x}", other.said.cluster));
            tracing::warn!(
                other.endpoint,
                ours,
                theirs,
                "a member we know is of another cluster of etcd now"
            );
        }
        if agreement::is_removed(&answers, cluster, &self.member.peer_url()) == Some(true) {
            // etcd itself would end again and again, and say so to its log only.
            ensure!(
                of.flags.member.server.is_some(),
                "the member {} of etcd was removed: to join anew, start this server with --server",
                known.name
            );
            self.note(|state| state.joined = false)?;
            return self.join(of).await;
        }
        Ok(())
    }

    /// As the first member, with what the embedded store holds.
    async fn begin(&mut self) -> anyhow::Result<()> {
        // What it is made of may have been in another one.
        self.place.forget_cluster()?;
        let (store, snapshot) = (settings::store_file(&self.dir), settings::etcd_file(&self.dir));
        let mut state = self.state();
        state.joined = true;
        let origin = if snapshot.exists() {
            tracing::info!(snapshot = %snapshot.display(), "restoring the cluster");
            Origin::Snapshot(snapshot, objects::Objects::read(&self.dir)?.floor.unwrap_or(0))
        } else if store.exists() {
            tracing::info!(store = %store.display(), "moving the cluster to etcd");
            let (encoding, _tasks) = self.cluster.encoding().await?;
            Origin::Store(store, Layout { encoding, prefix: self.cluster.prefix().to_owned() })
        } else {
            return self.note(|known| *known = state);
        };
        let client = Client::new(&self.connection(vec![self.member.client_url()])?)?;
        moving::build(&self.member, &self.place, &client, &state, origin).await?;
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(())
    }

    /// As another member of the cluster behind `--server`.
    async fn join(&mut self, of: &Surroundings<'_>) -> anyhow::Result<()> {
        let mut endpoints = self.state().endpoints();
        let mut cluster = self.place.cluster()?;
        if let Some(server) = &of.flags.member.server {
            let admin =
                of.pki.kubeconfig(server, "kubernetes-admin", &["system:masters"], Timestamp::now())?;
            let client = shared::client(&admin).await?;
            let until = Instant::now() + if endpoints.is_empty() { TOLD } else { Duration::ZERO };
            let told = loop {
                match announced::read(&client).await {
                    // A server that has just begun says so a moment later.
                    Ok(None) | Err(_) if Instant::now() < until => tokio::time::sleep(LOOK).await,
                    told => break told.with_context(|| format!("ask {server} for the members of etcd")),
                }
            };
            match told {
                Ok(Some(told)) => {
                    self.common.agree(&told.common)?;
                    if let Some((ours, theirs)) =
                        cluster.zip(told.cluster).filter(|(ours, theirs)| ours != theirs)
                    {
                        bail!(
                            "this server is of the etcd cluster {ours:x}, and {server} of {theirs:x}: to leave the former for good, remove {} and join anew",
                            self.dir.display()
                        );
                    }
                    cluster = cluster.or(told.cluster);
                    endpoints = told.endpoints;
                }
                Ok(None) => bail!(
                    "the cluster of {server} has no etcd beside its servers: restart its server with --cluster-init, or give --etcd-servers"
                ),
                Err(error) if endpoints.is_empty() => return Err(error),
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "using the members known from before")
                }
            }
        }
        ensure!(!endpoints.is_empty(), "no member of etcd is known: give --server");
        let candidate = Candidate {
            member: &self.member,
            place: &self.place,
            connection: &self.connection(endpoints)?,
            cluster,
            replaces: of.flags.member.replace_member.as_deref(),
        };
        let admitted = candidate.become_member().await?;
        self.place.remember(admitted.cluster)?;
        self.others = admitted.others;
        self.note(|state| {
            state.joined = false;
            // Until the list of all is there, whom to ask.
            let client_urls = admitted.endpoints;
            state.members = vec![Known { id: 0, name: String::new(), peer_urls: Vec::new(), client_urls }];
        })
    }

    /// etcd, as it is to run now: until it has written anything, it looks at the members it is told of, and refuses a list that is old.
    pub(crate) async fn program(&self) -> anyhow::Result<Program> {
        let authorities = self.authorities()?;
        *self.began_with.lock().unwrap_or_else(PoisonError::into_inner) = authorities;
        if self.state().joined || joining::has_log(&self.place.data()) {
            return self.member.program(&self.place, &self.others);
        }
        let connection = self.connection(self.state().endpoints())?;
        self.member.program(&self.place, &joining::others(&self.member, &connection).await?)
    }

    /// Waits, for as long as it takes, until etcd serves and our member has its vote; then puts a store that has moved aside.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        if !self.state().joined {
            let connection = self.connection(self.state().endpoints())?;
            let members = joining::get_vote(&self.member, &connection).await?;
            self.note(|state| {
                state.joined = true;
                state.members = members;
            })?;
            tracing::info!("a member of etcd, with a vote");
        }
        let client = Client::new(&self.storage()?.client()?)?;
        let mut told = false;
        let said = loop {
            match client.member_list().await {
                Ok(said) => break said,
                Err(failure) if !told => {
                    tracing::info!(why = %failure, "waiting for etcd");
                    told = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(LOOK).await;
        };
        let is_ours = said.members.iter().any(|member| member.peer_ur_ls.contains(&self.member.peer_url()));
        if self.place.cluster()?.is_none() && is_ours {
            self.place.remember(said.cluster)?;
        }
        moving::finish(&client, &self.dir, self.cluster.prefix()).await?;
        objects::note_member(&self.dir, self.cluster.prefix())
    }

    /// Where objects are.
    pub(crate) fn storage(&self) -> anyhow::Result<Cluster> {
        let mut endpoints = self.state().endpoints();
        if endpoints.is_empty() {
            endpoints.push(self.member.client_url());
        }
        Ok(self.cluster.at(endpoints, self.place.cluster()?))
    }

    /// Renews etcd's certificates where they are due; gives when the next is.
    pub(super) fn renew(&self, pki: &Path) -> anyhow::Result<Timestamp> {
        let names = program::names(&self.member.name, &self.ips);
        Ok(EtcdPki::load_or_create(pki, &self.member.name, &names, Timestamp::now())?.next_renewal()?)
    }

    pub(crate) fn life(&self) -> &Life {
        &self.life
    }

    /// Each of them, in no order: which one signs is nothing to whoever trusts.
    fn authorities(&self) -> anyhow::Result<BTreeSet<String>> {
        let text = pki::files::read_optional(&self.member.pki.authority_file())?.unwrap_or_default();
        if text.is_empty() {
            return Ok(BTreeSet::new());
        }
        Ok(pki::Certificate::list_from_pem(&text)?.iter().map(pki::Certificate::to_pem).collect())
    }

    /// Whether there are other authorities than those that etcd began with.
    pub(super) fn is_behind(&self) -> anyhow::Result<bool> {
        Ok(self.authorities()? != *self.began_with.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has etcd end and start again.
    pub(super) fn start_again(&self) {
        self.again.notify_one();
    }

    /// Says when etcd is to start again.
    pub(crate) fn again(&self) -> &Notify {
        &self.again
    }

    pub(super) fn common(&self) -> &announced::Common {
        &self.common
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is known, here and on disk.
    pub(super) fn note(&self, change: impl FnOnce(&mut State)) -> anyhow::Result<()> {
        let mut state = self.state();
        change(&mut state);
        self.place.write(&state)?;
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(())
    }

    fn connection(&self, endpoints: Vec<String>) -> anyhow::Result<Config> {
        self.cluster.at(endpoints, self.place.cluster()?).client()
    }
}
