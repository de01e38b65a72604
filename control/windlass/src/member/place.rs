//! Where a member's state is, and what a server is to do at its start by what it finds there.
//!
//! `etcd/` in the server's directory: etcd's own `data/`, and `member.json`, which says who the member is and whom it knows. The directory is
//! there as a whole or not at all where a store moved into it. Beside it `etcd.cluster`, the id of the cluster that the server is of: it is there
//! from the first answer of that cluster on, and outlives the directory.

use super::objects::{self, Objects};
use crate::cli::ServerFlags;
use crate::settings;
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// etcd's ports, as everybody has them.
pub(super) const CLIENT_PORT: u16 = 2379;
pub(super) const PEER_PORT: u16 = 2380;

/// The directory of a member's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place(PathBuf);

impl Place {
    /// In the server's directory.
    pub(crate) fn of(server_dir: &Path) -> Self {
        Self(server_dir.join("etcd"))
    }

    /// Beside it, where it is made.
    pub(super) fn unfinished(&self) -> Self {
        Self(self.0.with_extension("moving"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// etcd's own.
    pub(super) fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// etcd's file.
    pub(super) fn database(&self) -> PathBuf {
        self.data().join("member/snap/db")
    }

    fn file(&self) -> PathBuf {
        self.0.join("member.json")
    }

    pub(super) fn cluster_file(&self) -> PathBuf {
        self.0.with_extension("cluster")
    }

    /// etcd's id of the cluster that this server is of; `None` where it has not been heard of yet.
    pub(super) fn cluster(&self) -> anyhow::Result<Option<u64>> {
        let Some(text) = pki::files::read_optional(&self.cluster_file())? else { return Ok(None) };
        let id = u64::from_str_radix(text.trim(), 16);
        Ok(Some(id.with_context(|| format!("read {}", self.cluster_file().display()))?))
    }

    /// Keeps that id, durably.
    pub(super) fn remember(&self, cluster: u64) -> anyhow::Result<()> {
        let text = format!("{cluster:x}\n");
        Ok(pki::files::write_atomic(&self.cluster_file(), text.as_bytes(), pki::files::PRIVATE)?)
    }

    /// Begins another cluster.
    pub(super) fn forget_cluster(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(self.cluster_file()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.cluster_file().display()))
            }
            _ => Ok(()),
        }
    }

    /// What is known here; `None` where there is no member.
    pub(crate) fn read(&self) -> anyhow::Result<Option<State>> {
        let Some(text) = pki::files::read_optional(&self.file())? else { return Ok(None) };
        let state = serde_json::from_str(&text);
        Ok(Some(state.with_context(|| format!("read {}", self.file().display()))?))
    }

    /// Durably.
    pub(crate) fn write(&self, state: &State) -> anyhow::Result<()> {
        pki::files::create_private_dir(&self.0)?;
        let text = serde_json::to_vec_pretty(state)?;
        Ok(pki::files::write_atomic(&self.file(), &text, pki::files::PRIVATE)?)
    }
}

/// A member and those it knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    pub(crate) name: String,
    pub(super) peer_url: String,
    pub(super) client_url: String,
    /// It has had a vote.
    pub(super) joined: bool,
    /// Every member with a vote, ourselves included, as last seen.
    pub(super) members: Vec<Known>,
}

/// A member as others know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Known {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) peer_urls: Vec<String>,
    pub(super) client_urls: Vec<String>,
}

impl State {
    /// Where the members answer, ourselves first.
    pub(super) fn endpoints(&self) -> Vec<String> {
        let others = self.members.iter().filter(|known| known.name != self.name);
        let others = others.flat_map(|known| known.client_urls.iter().cloned());
        let own = self.joined.then(|| self.client_url.clone());
        own.into_iter().chain(others).collect()
    }
}

/// How a server starts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the store of its own.
    Embedded,
    /// On an etcd that others run.
    External,
    /// As the member it is.
    Member(State),
    /// As the first member; with what the embedded store or a restored snapshot has, if there is one.
    First,
    /// As another member; with what an earlier start has done for that.
    Join(Option<State>),
}

impl Start {
    /// What `flags` ask for, where `dir` is the server's directory.
    ///
    /// # Errors
    /// What is asked for and what is there do not go together.
    pub(crate) fn of(flags: &ServerFlags, dir: &Path) -> anyhow::Result<Self> {
        let place = Place::of(dir);
        let store = settings::store_file(dir);
        let (member, asked) = (place.read()?, &flags.member);
        let was_member = settings::moved_store_file(dir).exists() || place.cluster()?.is_some();
        if asked.cluster_init && asked.server.is_some() {
            bail!("--cluster-init begins a cluster, --server joins one");
        }
        if !flags.storage.etcd_servers.is_empty() {
            if asked.cluster_init || member.is_some() {
                let dir = place.path().display();
                bail!(
                    "--etcd-servers names an etcd of others, and this server has a member of its own ({dir})"
                );
            }
            let own: Vec<String> = objects::own(dir).iter().map(|path| path.display().to_string()).collect();
            if !own.is_empty() {
                bail!(
                    "--etcd-servers names an etcd of others, and this server's objects are, or were, its own ({}): start it without, or with --cluster-init; or, to leave them for good, move these files away",
                    own.join(", ")
                );
            }
            return Ok(Self::External);
        }
        if member.is_none() {
            Objects::read(dir)?.stay(dir)?;
        }
        Ok(match member {
            Some(state) if state.joined => Self::Member(state),
            Some(state) => Self::Join(Some(state)),
            None if asked.server.is_some() && (store.exists() || settings::etcd_file(dir).exists()) => bail!(
                "{} holds the objects of a cluster of its own; a server that joins another has none",
                dir.display()
            ),
            None if asked.server.is_some() => Self::Join(None),
            // An empty cluster under the authority that agents trust would have them end every pod.
            None if was_member && !store.exists() && !settings::etcd_file(dir).exists() => bail!(
                "this server's objects were in etcd, and {} is gone: restore a snapshot, or join another server with --server",
                place.path().display()
            ),
            None if asked.cluster_init || settings::etcd_file(dir).exists() => Self::First,
            None => Self::Embedded,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{MemberFlags, StorageFlags};

    fn state(joined: bool) -> State {
        let known = |name: &str| Known {
            id: 1,
            name: name.into(),
            peer_urls: Vec::new(),
            client_urls: vec![format!("https://{name}:2379")],
        };
        State {
            name: "n1".into(),
            peer_url: "https://n1:2380".into(),
            client_url: "https://n1:2379".into(),
            joined,
            members: vec![known("n1"), known("n2")],
        }
    }

    fn flags(cluster_init: bool, server: Option<&str>) -> ServerFlags {
        let member =
            MemberFlags { cluster_init, server: server.map(str::to_owned), ..MemberFlags::default() };
        ServerFlags { member, ..ServerFlags::default() }
    }

    #[test]
    fn a_member_that_lost_its_etcd_must_not_begin_an_empty_cluster() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(settings::moved_store_file(dir.path()), "").unwrap();
        for cluster_init in [false, true] {
            let error = Start::of(&flags(cluster_init, None), dir.path()).unwrap_err().to_string();
            assert!(error.contains("restore a snapshot"), "{error}");
        }
        let joins = flags(false, Some("https://n2:6443"));
        assert_eq!(Start::of(&joins, dir.path()).unwrap(), Start::Join(None));
        std::fs::write(settings::etcd_file(dir.path()), "").unwrap();
        assert_eq!(Start::of(&flags(true, None), dir.path()).unwrap(), Start::First, "what was restored");
    }

    #[test]
    fn a_member_that_never_had_a_store_must_not_begin_an_empty_cluster_either() {
        let dir = tempfile::tempdir().unwrap();
        let first = || Start::of(&flags(true, None), dir.path());
        assert_eq!(first().unwrap(), Start::First, "an empty disk");
        let place = Place::of(dir.path());
        assert_eq!(place.cluster().unwrap(), None);
        place.write(&state(true)).unwrap();
        place.remember(0xcafe).unwrap();
        assert_eq!(place.cluster().unwrap(), Some(0xcafe));
        assert_eq!(first().unwrap(), Start::Member(state(true)));
        // The unit still says --cluster-init.
        std::fs::remove_dir_all(place.path()).unwrap();
        assert!(first().unwrap_err().to_string().contains("restore a snapshot"));
        assert!(Start::of(&flags(false, None), dir.path()).is_err());
        let joins = flags(false, Some("https://n2:6443"));
        assert_eq!(Start::of(&joins, dir.path()).unwrap(), Start::Join(None));
    }

    #[test]
    fn objects_of_its_own_must_not_be_left_for_an_etcd_of_others() {
        let storage = StorageFlags { etcd_servers: vec!["https://e:2379".into()], ..StorageFlags::default() };
        let external = ServerFlags { storage, ..ServerFlags::default() };
        type Place = fn(&Path) -> PathBuf;
        let places: [Place; 4] =
            [settings::store_file, settings::moved_store_file, settings::etcd_file, |dir| {
                super::Place::of(dir).cluster_file()
            }];
        for place in places {
            let dir = tempfile::tempdir().unwrap();
            assert_eq!(Start::of(&external, dir.path()).unwrap(), Start::External);
            let file = place(dir.path());
            std::fs::write(&file, "cafe").unwrap();
            let error = Start::of(&external, dir.path()).unwrap_err().to_string();
            assert!(error.contains(file.to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn a_server_on_an_etcd_of_others_must_not_begin_a_store_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let noted = Objects { external: Some("cafe".into()), ..Objects::default() };
        noted.write(dir.path()).unwrap();
        for flags in [flags(false, None), flags(true, None), flags(false, Some("https://n2:6443"))] {
            let error = Start::of(&flags, dir.path()).unwrap_err().to_string();
            assert!(error.contains("give --etcd-servers"), "{error}");
        }
        Objects::default().write(dir.path()).unwrap();
        assert_eq!(
            Start::of(&flags(false, None), dir.path()).unwrap(),
            Start::Embedded,
            "by the operator's word"
        );
    }

    #[test]
    fn what_a_server_is_must_not_depend_on_the_flag_that_made_it_so() {
        let dir = tempfile::tempdir().unwrap();
        let start = |flags: &ServerFlags| Start::of(flags, dir.path()).unwrap();
        assert_eq!(start(&flags(false, None)), Start::Embedded);
        assert_eq!(start(&flags(true, None)), Start::First);
        assert_eq!(start(&flags(false, Some("https://n2:6443"))), Start::Join(None));
        Place::of(dir.path()).write(&state(false)).unwrap();
        assert_eq!(start(&flags(false, None)), Start::Join(Some(state(false))));
        Place::of(dir.path()).write(&state(true)).unwrap();
        for flags in [flags(false, None), flags(true, None), flags(false, Some("https://n2:6443"))] {
            assert_eq!(start(&flags), Start::Member(state(true)));
        }
    }

    #[test]
    fn a_server_with_objects_of_its_own_must_not_join_another() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(settings::store_file(dir.path()), "").unwrap();
        assert!(Start::of(&flags(false, Some("https://n2:6443")), dir.path()).is_err());
        assert_eq!(Start::of(&flags(true, None), dir.path()).unwrap(), Start::First);
        assert!(Start::of(&flags(true, Some("https://n2:6443")), dir.path()).is_err());
        std::fs::write(settings::etcd_file(dir.path()), "").unwrap();
        assert_eq!(Start::of(&flags(false, None), dir.path()).unwrap(), Start::First, "a snapshot of etcd");
        Place::of(dir.path()).write(&state(true)).unwrap();
        let storage = StorageFlags { etcd_servers: vec!["https://e:2379".into()], ..StorageFlags::default() };
        assert!(Start::of(&ServerFlags { storage, ..ServerFlags::default() }, dir.path()).is_err());
    }

    #[test]
    fn a_member_without_a_vote_must_not_be_asked() {
        assert_eq!(state(true).endpoints(), ["https://n1:2379", "https://n2:2379"]);
        assert_eq!(state(false).endpoints(), ["https://n2:2379"]);
    }
}
