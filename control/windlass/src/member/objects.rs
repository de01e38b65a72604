//! What a server knows of where its objects are: the etcd of others they are in, what their keys begin with, and which revisions were in use.
//!
//! `objects.json` in the server's directory. Written by a restore, and once the objects were served; read by every start, which goes on with the
//! same objects or not at all: an empty cluster under the authority that agents trust would have them end every pod. A start that means other
//! objects is told so by removing the file.

use crate::cli::StorageFlags;
use crate::parts::apiserver::storage::PREFIX;
use crate::settings;
use anyhow::{Context as _, bail, ensure};
use etcd::Client;
use etcd::v3::RangeRequest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How far revisions move forward at a restore without a clock: further than any server wrote between the snapshot and its end, so that no revision
/// comes again with another meaning. etcd's own tools advise as much.
pub(crate) const AHEAD: u64 = 1_000_000_000;

/// Where a server's objects are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Objects {
    /// etcd's id, in hexadecimal, of the cluster of others that they are in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) external: Option<String>,
    /// What their keys in etcd begin with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prefix: Option<String>,
    /// What was restored goes on at no lower revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) floor: Option<u64>,
}

/// What is in an etcd under a prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// etcd's id of the cluster.
    pub(super) cluster: u64,
    pub(super) revision: i64,
    /// How many objects.
    pub(super) count: i64,
}

impl Held {
    /// # Errors
    /// etcd does not answer.
    pub(super) async fn ask(client: &Client, prefix: &str) -> anyhow::Result<Self> {
        let from = store::etcd::stored(prefix, "/registry/");
        let mut end = from.to_vec();
        end.pop();
        end.push(b'/' + 1);
        let request =
            RangeRequest { key: from, range_end: end.into(), count_only: true, ..RangeRequest::default() };
        let counted = client.range(request).await.context("count what is in etcd")?;
        let header = counted.header.unwrap_or_default();
        Ok(Self { cluster: header.cluster_id, revision: header.revision, count: counted.count })
    }
}

impl Objects {
    fn file(dir: &Path) -> PathBuf {
        dir.join("objects.json")
    }

    /// What the server of `dir` knows; nothing where it has served none yet.
    pub(crate) fn read(dir: &Path) -> anyhow::Result<Self> {
        let Some(text) = pki::files::read_optional(&Self::file(dir))? else { return Ok(Self::default()) };
        serde_json::from_str(&text).with_context(|| format!("read {}", Self::file(dir).display()))
    }

    /// Durably; where it is another than is there.
    pub(crate) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        if Self::read(dir).is_ok_and(|there| there == *self) {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(self)?;
        Ok(pki::files::write_atomic(&Self::file(dir), &text, pki::files::PRIVATE)?)
    }

    /// Gives `flags` the prefix that is known, where they leave it open.
    ///
    /// # Errors
    /// They mean another one.
    pub(crate) fn settle(&self, flags: &mut StorageFlags, dir: &Path) -> anyhow::Result<()> {
        let Some(known) = &self.prefix else { return Ok(()) };
        match flags.etcd_prefix.as_deref().map(store::etcd::rooted) {
            Some(given) => ensure!(
                given == *known,
                "--etcd-prefix is {given:?}, and this server's objects are under {known:?}: to go on with others for good, remove {}",
                Self::file(dir).display()
            ),
            None if *known != PREFIX => flags.etcd_prefix = Some(known.clone()),
            None => {}
        }
        Ok(())
    }

    /// Whether a server that has its objects with others may start without naming these.
    ///
    /// # Errors
    /// It has; it would begin with none.
    pub(super) fn stay(&self, dir: &Path) -> anyhow::Result<()> {
        if let Some(cluster) = &self.external {
            bail!(
                "this server's objects are in the etcd {cluster} of others: give --etcd-servers; or, to go on with others for good, remove {}",
                Self::file(dir).display()
            );
        }
        Ok(())
    }

    /// Whether these objects are in the etcd of others that was found. Pure.
    ///
    /// # Errors
    /// There are none, though there were.
    fn agree(&self, held: &Held, dir: &Path) -> anyhow::Result<()> {
        let Some(cluster) = &self.external else { return Ok(()) };
        let found = format!("{:x}", held.cluster);
        ensure!(
            held.count > 0,
            "this server's objects were in the etcd {cluster}, and in the etcd {found} of --etcd-servers there are none under {:?}: to begin anew for good, remove {}",
            self.prefix.as_deref().unwrap_or(PREFIX),
            Self::file(dir).display()
        );
        if found != *cluster {
            tracing::warn!(
                before = cluster,
                now = found,
                "the etcd of --etcd-servers is another cluster than before"
            );
        }
        Ok(())
    }
}

/// What a start on an etcd of others makes sure of before it serves what is there.
///
/// # Errors
/// What was there is gone; or etcd does not answer.
pub(crate) async fn check(client: &Client, dir: &Path, prefix: &str) -> anyhow::Result<()> {
    let objects = Objects::read(dir)?;
    // One that has served nothing yet may begin with nothing.
    if objects.external.is_none() {
        return Ok(());
    }
    objects.agree(&Held::ask(client, prefix).await?, dir)
}

/// Notes that the objects of the server of `dir` are in the etcd of others behind `client`, once there are any.
pub(crate) async fn note_external(client: &Client, dir: &Path, prefix: &str) -> anyhow::Result<()> {
    let held = Held::ask(client, prefix).await?;
    let external = Some(format!("{:x}", held.cluster));
    Objects { external, prefix: Some(store::etcd::rooted(prefix)), floor: None }.write(dir)
}

/// Notes what the keys begin with in the etcd whose member is beside the server.
pub(super) fn note_member(dir: &Path, prefix: &str) -> anyhow::Result<()> {
    Objects { prefix: Some(store::etcd::rooted(prefix)), ..Objects::default() }.write(dir)
}

/// Whether `dir` has objects of its own, or had them in a member's: a server on an etcd of others has none. Gives where.
pub(super) fn own(dir: &Path) -> Vec<PathBuf> {
    let places = [
        settings::store_file(dir),
        settings::etcd_file(dir),
        settings::moved_store_file(dir),
        super::Place::of(dir).cluster_file(),
    ];
    places.into_iter().filter(|path| path.exists()).collect()
}

/// The revision that a restored state goes on at, where `served` is the newest that is known to have been in use: the clock's microseconds, which
/// no server outruns, so that a later restore goes beyond an earlier one wherever that was; further ahead than any server wrote since, where the
/// clock is of no use. (As a number it is one that JSON holds exactly.)
///
/// # Errors
/// There are no revisions left.
pub(crate) fn forward(served: u64, now: Timestamp) -> anyhow::Result<u64> {
    if let Some(clock) = u64::try_from(now.as_microsecond()).ok().filter(|clock| *clock > served) {
        return Ok(clock);
    }
    let ahead = served.checked_add(AHEAD).filter(|ahead| i64::try_from(*ahead).is_ok());
    ahead.context("there are no revisions left")
}

/// The newest revision that the server of `dir` is known to have used, whatever it had its objects in; what cannot be read says nothing.
pub(crate) fn served(dir: &Path) -> u64 {
    let read = |path: PathBuf, newest: fn(&Path) -> anyhow::Result<u64>| {
        if !path.exists() {
            return 0;
        }
        newest(&path).unwrap_or_else(|error| {
            let (path, error) = (path.display(), format!("{error:#}"));
            tracing::warn!(%path, error, "it does not say which revisions were in use");
            0
        })
    };
    let embedded: fn(&Path) -> anyhow::Result<u64> = |path| Ok(store::embedded::newest(path)?);
    let etcd: fn(&Path) -> anyhow::Result<u64> = |path| Ok(u64::try_from(etcd::database::newest(path)?)?);
    let files = [
        (settings::store_file(dir), embedded),
        (settings::moved_store_file(dir), embedded),
        (settings::etcd_file(dir), etcd),
        (super::Place::of(dir).database(), etcd),
    ];
    let floor = Objects::read(dir).ok().and_then(|objects| objects.floor).unwrap_or(0);
    files.into_iter().map(|(path, newest)| read(path, newest)).fold(floor, u64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn external(prefix: &str) -> Objects {
        Objects { external: Some("cafe".into()), prefix: Some(prefix.into()), floor: None }
    }

    #[test]
    fn a_restore_must_not_go_below_what_was_ever_served() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let first = forward(50_000, at("2026-11-30T10:00:00Z")).unwrap();
        // An hour of writes later, another snapshot, older than the first.
        let served = first + 40_000;
        assert!(forward(served, at("2026-11-30T11:00:00Z")).unwrap() > served, "where both are known");
        assert!(
            forward(40_000, at("2026-11-30T11:00:00Z")).unwrap() > served,
            "on a machine that has nothing"
        );
        assert!(forward(served, at("1970-01-01T00:00:00Z")).unwrap() > served, "whatever the clock says");
        assert!(forward(0, at("2100-01-01T00:00:00Z")).unwrap() < 1 << 53);
        assert!(forward(i64::MAX as u64, at("2026-11-30T10:00:00Z")).is_err());
    }

    #[tokio::test]
    async fn what_is_replaced_must_not_be_forgotten_whatever_it_is() {
        use bytes::Bytes;
        use store::embedded::{Options, Store};
        use store::{Backend as _, Expect};
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(served(dir.path()), 0);
        let store = Store::open(settings::store_file(dir.path()), Options::default()).unwrap();
        for name in ["/a", "/b"] {
            store.put(name, Bytes::new(), Expect::Absent, None).await.unwrap();
        }
        drop(store);
        assert_eq!(served(dir.path()), 2);
        // What cannot be read hides nothing else.
        std::fs::write(settings::etcd_file(dir.path()), "damaged").unwrap();
        Objects { floor: Some(77), ..Objects::default() }.write(dir.path()).unwrap();
        assert_eq!(served(dir.path()), 77);
    }

    #[test]
    fn a_server_must_not_start_under_another_prefix() {
        let dir = Path::new("/s");
        let settle = |known: &Objects, given: Option<&str>| {
            let mut flags = StorageFlags { etcd_prefix: given.map(str::to_owned), ..StorageFlags::default() };
            known.settle(&mut flags, dir).map(|()| flags.etcd_prefix)
        };
        assert_eq!(settle(&external("/a"), None).unwrap().as_deref(), Some("/a"), "the flag is not needed");
        assert_eq!(settle(&external("/a"), Some("a/")).unwrap().as_deref(), Some("a/"));
        let error = settle(&external("/a"), Some("/registry")).unwrap_err().to_string();
        assert!(error.contains("/s/objects.json"), "{error}");
        assert_eq!(settle(&external(PREFIX), None).unwrap(), None);
        assert_eq!(settle(&Objects::default(), Some("/b")).unwrap().as_deref(), Some("/b"), "a first start");
    }

    #[test]
    fn an_empty_etcd_must_not_take_the_place_of_the_one_before() {
        let (dir, held) = (Path::new("/s"), Held { cluster: 0xcafe, revision: 7, count: 3 });
        external("/a").agree(&held, dir).unwrap();
        external("/a").agree(&Held { cluster: 0xbeef, ..held }, dir).unwrap();
        for empty in [Held { count: 0, ..held }, Held { cluster: 0xbeef, count: 0, ..held }] {
            let error = external("/a").agree(&empty, dir).unwrap_err().to_string();
            assert!(error.contains("none under \"/a\""), "{error}");
        }
        Objects::default().agree(&Held::default(), dir).unwrap();
        assert!(external("/a").stay(dir).is_err() && Objects::default().stay(dir).is_ok());
    }

    #[test]
    fn what_was_noted_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Objects::read(dir.path()).unwrap(), Objects::default());
        external("/a").write(dir.path()).unwrap();
        assert_eq!(Objects::read(dir.path()).unwrap(), external("/a"));
        std::fs::write(Objects::file(dir.path()), "{").unwrap();
        assert!(Objects::read(dir.path()).is_err(), "nonsense is not nothing");
    }
}
