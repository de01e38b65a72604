//! Keys and certificates of an etcd member beside an API server, under kubeadm's file names.
//!
//! As [`crate::Pki`], from which it differs in this: its authority is that of all members, and whoever holds a certificate of it may read and
//! write everything the cluster has. etcd reads a leaf that was made again by itself.

use crate::authority::{Authority, Issued, Leaf, Purpose};
use crate::certificate::Certificate;
use crate::cluster::{ClusterNames, authority, leaf};
use crate::files::PUBLIC;
use crate::{Error, files, rotation};
use jiff::Timestamp;
use std::path::{Path, PathBuf};

/// The trust between members and their clients.
#[derive(Debug)]
pub struct EtcdPki {
    dir: PathBuf,
    authority: Authority,
    leaves: [Issued; 4],
}

/// The authority's files without their extensions, below the directory of all.
pub const AUTHORITY: &str = "etcd/ca";
/// Every authority that members and clients trust: etcd reads one file.
pub const TRUSTED: &str = "etcd/ca-trusted";
const SERVER: &str = "etcd/server";
const PEER: &str = "etcd/peer";
const HEALTH: &str = "etcd/healthcheck-client";
const CLIENT: &str = "apiserver-etcd-client";

/// Leaves as [`crate::LEAVES`], where a server has a member of etcd beside it.
pub const LEAVES: [(&str, &str, Purpose); 4] = [
    (SERVER, AUTHORITY, Purpose::ServerAndClient),
    (PEER, AUTHORITY, Purpose::ServerAndClient),
    (HEALTH, AUTHORITY, Purpose::Client),
    (CLIENT, AUTHORITY, Purpose::Client),
];

impl EtcdPki {
    /// Loads what is below `dir`, completing and renewing what is needed, for a member called `name`. Idempotent and crash-safe.
    ///
    /// # Errors
    /// As [`crate::Pki::load_or_create`].
    pub fn load_or_create(
        dir: &Path,
        name: &str,
        names: &ClusterNames,
        now: Timestamp,
    ) -> Result<Self, Error> {
        files::create_private_dir(&dir.join("etcd"))?;
        let authority = authority(dir, AUTHORITY, "etcd-ca", now)?;
        let trusted = rotation::trusted(dir, AUTHORITY, &authority, now)?;
        let path = files::paths(dir, TRUSTED).0;
        if files::read_optional(&path)?.as_ref() != Some(&trusted) {
            files::write_atomic(&path, trusted.as_bytes(), PUBLIC)?;
        }
        // A member is a client of other members by its peer certificate, and of itself by its server's.
        let mut member = Leaf::server(name, names.dns_names.clone(), names.ips.clone());
        member.purpose = Purpose::ServerAndClient;
        let leaves = [
            leaf(dir, SERVER, &authority, &member, now)?,
            leaf(dir, PEER, &authority, &member, now)?,
            leaf(dir, HEALTH, &authority, &Leaf::client("kube-etcd-healthcheck-client", &[]), now)?,
            leaf(dir, CLIENT, &authority, &Leaf::client("kube-apiserver-etcd-client", &[]), now)?,
        ];
        Ok(Self { dir: dir.to_owned(), authority, leaves })
    }

    /// When [`EtcdPki::load_or_create`] has something to renew next.
    ///
    /// # Errors
    /// A certificate does not parse.
    pub fn next_renewal(&self) -> Result<Timestamp, Error> {
        let mut next = self.authority.certificate().renewal_time();
        for issued in &self.leaves {
            next = next.min(Certificate::from_pem(&issued.cert_pem)?.renewal_time());
        }
        Ok(next)
    }

    /// The authorities of members and clients: the one that signs, and those of a rotation.
    #[must_use]
    pub fn authority_file(&self) -> PathBuf {
        self.file(TRUSTED, "crt")
    }

    /// Certificate and key that a member shows its clients.
    #[must_use]
    pub fn server_files(&self) -> (PathBuf, PathBuf) {
        (self.file(SERVER, "crt"), self.file(SERVER, "key"))
    }

    /// Certificate and key that a member shows other members.
    #[must_use]
    pub fn peer_files(&self) -> (PathBuf, PathBuf) {
        (self.file(PEER, "crt"), self.file(PEER, "key"))
    }

    /// Certificate and key of the API server as a client.
    #[must_use]
    pub fn client_files(&self) -> (PathBuf, PathBuf) {
        (self.file(CLIENT, "crt"), self.file(CLIENT, "key"))
    }

    fn file(&self, name: &str, extension: &str) -> PathBuf {
        self.dir.join(format!("{name}.{extension}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation::{Step, rotate};

    /// Members whose files are another authority's at each step, and one that is a step behind.
    #[test]
    fn a_member_a_step_behind_must_not_lose_the_others() {
        let (ahead, behind) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let names = ClusterNames { dns_names: vec!["n1".into()], ips: vec!["192.0.2.1".parse().unwrap()] };
        let load = |dir: &Path| EtcdPki::load_or_create(dir, "n1", &names, now).unwrap();
        load(ahead.path());
        let copy = |file: &str| {
            std::fs::create_dir_all(behind.path().join("etcd")).unwrap();
            std::fs::copy(ahead.path().join(file), behind.path().join(file)).unwrap();
        };
        ["etcd/ca.crt", "etcd/ca.key"].iter().for_each(|name| copy(name));
        let read = |path: PathBuf| Certificate::list_from_pem(&files::read(&path).unwrap()).unwrap();
        // each shows the other what it has, as a peer and as a client
        let know_each_other = |one: &EtcdPki, other: &EtcdPki| {
            let trusts = |who: &EtcdPki, whom: &EtcdPki| {
                let authorities = read(who.authority_file());
                [whom.peer_files(), whom.server_files(), whom.client_files()].into_iter().all(|(path, _)| {
                    read(path).iter().all(|shown| authorities.iter().any(|by| shown.is_signed_by(by)))
                })
            };
            trusts(one, other) && trusts(other, one)
        };
        let first = read(load(ahead.path()).peer_files().0);
        for step in [Step::Prepare, Step::Switch, Step::Finish] {
            rotate(ahead.path(), AUTHORITY, "etcd-ca", step, now).unwrap();
            let before = load(behind.path());
            assert!(know_each_other(&load(ahead.path()), &before), "{step:?}, one member");
            if step == Step::Prepare {
                ["etcd/ca-next.crt", "etcd/ca-next.key"].iter().for_each(|name| copy(name));
            } else {
                rotate(behind.path(), AUTHORITY, "etcd-ca", step, now).unwrap();
            }
            assert!(know_each_other(&load(ahead.path()), &load(behind.path())), "{step:?}, both");
        }
        let last = load(behind.path());
        assert_eq!(read(last.authority_file()).len(), 1);
        assert!(!first[0].is_signed_by(&read(last.authority_file())[0]), "the first authority is gone");
    }

    #[test]
    fn members_know_each_other_by_one_authority_and_a_leaf_is_kept_while_it_is_good() {
        let dir = tempfile::tempdir().unwrap();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let names = ClusterNames { dns_names: vec!["n1".into()], ips: vec!["192.0.2.1".parse().unwrap()] };
        let first = EtcdPki::load_or_create(dir.path(), "n1", &names, now).unwrap();
        let read = |path: &Path| Certificate::from_pem(&files::read(path).unwrap()).unwrap();
        let authority = read(&first.authority_file());
        for (path, _) in [first.server_files(), first.peer_files(), first.client_files()] {
            assert!(read(&path).is_signed_by(&authority), "{}", path.display());
        }
        assert_eq!(read(&first.client_files().0).common_name, "kube-apiserver-etcd-client");
        let peer = read(&first.peer_files().0);
        assert_eq!((peer.common_name.as_str(), &peer.ips), ("n1", &names.ips));
        assert!(
            dir.path().join("etcd/ca.key").exists() && dir.path().join("apiserver-etcd-client.key").exists()
        );

        let made = EtcdPki::load_or_create(dir.path(), "n1", &names, now).unwrap();
        assert_eq!(made.leaves.len(), LEAVES.len());
        assert!(
            LEAVES
                .iter()
                .all(|(name, ..)| made.file(name, "crt").exists() && made.file(name, "key").exists())
        );
        assert_eq!(read(&first.peer_files().0), peer);
        let due = first.next_renewal().unwrap();
        let renewed = EtcdPki::load_or_create(dir.path(), "n1", &names, due).unwrap();
        assert_ne!(read(&renewed.peer_files().0), peer);
        assert_eq!(read(&renewed.authority_file()), authority);
    }
}
