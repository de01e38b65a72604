//! The embedded store becomes the first member's: every object at the revision it has, so that nobody who watches or wrote before notices more
//! than that history is gone. Or a snapshot of etcd does, with its revision far ahead, as the later ones are in use.
//!
//! Woken once, at the first start with `--cluster-init` or on what was restored, while no server runs. Reads the closed file; writes
//! `etcd.moving/`, then renames that to `etcd/`; once etcd has been seen to serve what went in, renames the file. Promises: killed at any
//! instruction, the next start begins again or goes on; until the last rename the file is as it was, and after it it is kept.

use super::announced;
use super::objects::{self, Held};
use super::place::{Place, State};
use super::program::Member;
use super::seed;
use crate::settings;
use anyhow::{Context as _, anyhow, ensure};
use etcd::Client;
use etcd::database::Database;
use etcd::v3::KeyValue;
use jiff::Timestamp;
use pki::files::rename;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::embedded::{Living, each_living};
use store::encoding::Encoding;

/// Keys that expire within one span share a lease, in milliseconds.
const SPAN: i64 = 60_000;

/// How objects lie in etcd.
pub(super) struct Layout {
    pub(super) encoding: Arc<dyn Encoding>,
    pub(super) prefix: String,
}

/// What the first member is made of.
pub(super) enum Origin {
    /// The embedded store.
    Store(PathBuf, Layout),
    /// A snapshot of etcd, and the least revision that it goes on at.
    Snapshot(PathBuf, u64),
}

/// Builds the member's directory.
pub(super) async fn build(
    member: &Member,
    place: &Place,
    client: &Client,
    state: &State,
    origin: Origin,
) -> anyhow::Result<()> {
    let fresh = place.unfinished();
    remove(fresh.path())?;
    seed::make(member, &fresh, client).await.context("make the first member of etcd")?;
    let database = fresh.database();
    let exchanged = move || match origin {
        Origin::Store(store, layout) => {
            let count = exchange(&database, &store, &layout)?;
            tracing::info!(objects = count, "the store's objects are in etcd's file");
            Ok(())
        }
        Origin::Snapshot(snapshot, floor) => restore(&database, &snapshot, floor),
    };
    tokio::task::spawn_blocking(exchanged).await??;
    fresh.write(state)?;
    Ok(rename(fresh.path(), place.path())?)
}

/// Puts another file in the place of etcd's, with what `store` holds; gives the number of keys.
fn exchange(database: &Path, store: &Path, layout: &Layout) -> anyhow::Result<usize> {
    let made = database.with_extension("made");
    let mut new = Database::begin(database, &made)?;
    let (mut count, mut revision) = (0, 0);
    new.fill(|put| {
        let mut leases = Leases { now: Timestamp::now().as_millisecond(), ids: BTreeMap::new() };
        revision = each_living(store, |living| {
            if let Some(kv) = leases.record(living, layout)? {
                put(&kv)?;
                count += 1;
            }
            anyhow::Ok(())
        })?;
        anyhow::Ok(leases.all())
    })?;
    // etcd's own first revision is 1.
    new.finish(i64::try_from(revision).context("the store's revision is too large for etcd")?.max(1))?;
    rename(&made, database)?;
    Ok(count)
}

/// Puts another file in the place of etcd's, with what a snapshot has, moved forward.
fn restore(database: &Path, snapshot: &Path, floor: u64) -> anyhow::Result<()> {
    let made = database.with_extension("made");
    let mut new = Database::begin(database, &made)?;
    let revision = new.copy(snapshot)?;
    let revision = objects::forward(u64::try_from(revision)?, Timestamp::now())?.max(floor);
    new.finish(i64::try_from(revision).context("the revision is too large for etcd")?)?;
    Ok(rename(&made, database)?)
}

/// Leases of keys that expire.
struct Leases {
    /// Milliseconds since the epoch.
    now: i64,
    /// End of a span to the lease's id.
    ids: BTreeMap<i64, i64>,
}

impl Leases {
    /// A key as etcd has it; `None` where its time is over.
    fn record(&mut self, living: Living, layout: &Layout) -> anyhow::Result<Option<KeyValue>> {
        let Living { entry, deadline } = living;
        let deadline = deadline.map(i64::try_from).transpose()?;
        if deadline.is_some_and(|end| end <= self.now) {
            return Ok(None);
        }
        let lease = deadline.map_or(0, |end| self.id(end));
        let value = layout.encoding.encode(&entry.key, entry.value);
        let value = value.map_err(|e| anyhow!(e)).with_context(|| format!("encode {}", entry.key))?;
        Ok(Some(KeyValue {
            key: store::etcd::stored(&layout.prefix, &entry.key),
            create_revision: i64::try_from(entry.create_revision)?,
            mod_revision: i64::try_from(entry.mod_revision)?,
            // How often it was written is not known; only whether that was once.
            version: if entry.create_revision == entry.mod_revision { 1 } else { 2 },
            value,
            lease,
        }))
    }

    fn id(&mut self, deadline: i64) -> i64 {
        let end = (deadline.div_euclid(SPAN) + 1) * SPAN;
        let next = self.ids.len() as i64 + 1;
        *self.ids.entry(end).or_insert(next)
    }

    /// Ids and seconds left.
    fn all(&self) -> Vec<(i64, i64)> {
        self.ids.iter().map(|(end, id)| (*id, (end - self.now).div_euclid(1000) + 1)).collect()
    }
}

/// Puts aside what the member was made of, once `client` has shown that everything in it is in etcd.
pub(super) async fn finish(client: &Client, server_dir: &Path, prefix: &str) -> anyhow::Result<()> {
    let (store, snapshot) = (settings::store_file(server_dir), settings::etcd_file(server_dir));
    if snapshot.exists() {
        let path = snapshot.clone();
        let revision = tokio::task::spawn_blocking(move || etcd::database::newest(&path)).await??;
        let Held { revision: now, count, .. } = Held::ask(client, prefix).await?;
        ensure!(
            now > revision,
            "etcd is at revision {now}, the snapshot {} at {revision}",
            snapshot.display()
        );
        ensure!(
            count > 0,
            "the snapshot {} holds no objects under {prefix:?}: give the --etcd-prefix it was made with",
            snapshot.display()
        );
        announced::take_back(client, prefix).await?;
        rename(&snapshot, &settings::restored_etcd_file(server_dir))?;
    }
    if !store.exists() {
        return Ok(());
    }
    let Held { count: found, revision: now, .. } = Held::ask(client, prefix).await?;
    let (path, moment) = (store.clone(), u64::try_from(Timestamp::now().as_millisecond())?);
    let (revision, expected) = tokio::task::spawn_blocking(move || {
        let mut expected = 0_i64;
        let revision = each_living(&path, |living| {
            expected += i64::from(living.deadline.is_none_or(|end| end > moment + SPAN as u64));
            Ok::<(), store::Error>(())
        })?;
        Ok::<_, store::Error>((revision, expected))
    })
    .await??;
    ensure!(
        found >= expected && now >= i64::try_from(revision)?,
        "etcd holds {found} objects at revision {now}, the store {} holds {expected} at revision {revision}: it stays where it is",
        store.display()
    );
    let aside = settings::moved_store_file(server_dir);
    rename(&store, &aside)?;
    tracing::info!(aside = %aside.display(), "the cluster is in etcd; the store it was in is kept aside");
    Ok(())
}

fn remove(dir: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etcd::bolt::{self, Reader, Writer};
    use machinery::resources;
    use prost::Message as _;
    use store::embedded::{Options, Store};
    use store::encoding::{Layers, Plain};
    use store::{Backend as _, Entry, Expect};

    fn living(revision: u64, create: u64, deadline: Option<u64>) -> Living {
        let entry = Entry {
            key: "/registry/events/d/a".into(),
            value: "{}".into(),
            create_revision: create,
            mod_revision: revision,
            stale: false,
        };
        Living { entry, deadline }
    }

    #[test]
    fn keys_keep_their_revisions_and_end_when_they_were_to_end() {
        let layout = Layout { encoding: Arc::new(Plain), prefix: "/other".to_owned() };
        let now = 1_000_000_000_000;
        let mut leases = Leases { now, ids: BTreeMap::new() };
        let mut record = |living| leases.record(living, &layout).unwrap();
        let kept = record(living(9, 7, None)).unwrap();
        assert_eq!(kept.key, "/other/events/d/a");
        assert_eq!((kept.create_revision, kept.mod_revision, kept.version, kept.lease), (7, 9, 2, 0));
        assert_eq!(record(living(9, 9, None)).unwrap().version, 1);
        assert_eq!(record(living(9, 9, Some(now as u64))), None, "its time is over");
        let first = record(living(9, 9, Some(now as u64 + 1))).unwrap().lease;
        let second = record(living(9, 9, Some(now as u64 + 3_600_000))).unwrap().lease;
        assert_eq!(record(living(9, 9, Some(now as u64 + 3_600_001))).unwrap().lease, second);
        assert!(first != second && first > 0);
        for (id, seconds) in leases.all() {
            let least = if id == first { 1 } else { 3600 };
            assert!((least..=least + 61).contains(&seconds), "lease {id}: {seconds} s");
        }
    }

    /// Every golden object that is stored somewhere: key and JSON; none where they are not beside the checkout.
    fn golden() -> Vec<(String, Vec<u8>)> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/kubernetes-1.36/golden");
        let stored = resources::all().iter().filter(|r| r.is_stored() && r.group == r.storage_group);
        let files = stored.filter_map(|r| {
            let group = if r.group.is_empty() { "core" } else { r.group };
            let file = dir.join(format!("{group}.{}.{}.json", r.storage_version, r.kind));
            Some((r.key("d", "golden"), fs::read(file).ok()?))
        });
        files.collect()
    }

    #[tokio::test]
    async fn every_kind_moves_and_every_object_is_at_the_revision_it_had() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let store = Store::open(path("store"), Options::default()).unwrap();
        let mut writes = golden();
        println!("{} golden kinds", writes.len());
        writes.extend((0..2000).map(|n| (format!("/registry/configmaps/d/m{n}"), map(n))));
        let puts =
            writes.iter().map(|(key, value)| store.put(key, value.clone().into(), Expect::Absent, None));
        let mut entries = futures::future::try_join_all(puts).await.unwrap();
        // Overwritten and deleted ones leave history behind, which stays.
        for entry in entries.iter_mut().rev().take(100) {
            *entry = store
                .put(&entry.key, entry.value.clone(), Expect::At(entry.mod_revision), None)
                .await
                .unwrap();
        }
        let gone = entries.pop().unwrap();
        store.delete(&gone.key, Expect::At(gone.mod_revision)).await.unwrap();
        let revision = store.revision();
        drop(store);

        let mut seed = Writer::create(&path("db")).unwrap();
        seed.bucket(b"meta").finish().unwrap();
        seed.finish().unwrap();
        let encoding = Arc::new(Layers { outer: encryption::Unsealed, inner: apiserver::etcd::Upstream });
        let layout = Layout { encoding: encoding.clone(), prefix: "/registry".to_owned() };
        assert_eq!(exchange(&path("db"), &path("store"), &layout).unwrap(), entries.len());

        let mut found = Vec::new();
        let reader = Reader::open(&path("db")).unwrap();
        reader
            .each(b"key", |name, record| {
                let kv = KeyValue::decode(record).unwrap();
                assert_eq!(name[..8], kv.mod_revision.to_be_bytes());
                found.push(kv);
                Ok::<(), bolt::Error>(())
            })
            .unwrap();
        entries.sort_by_key(|entry| entry.mod_revision);
        for (kv, entry) in found.iter().zip(&entries) {
            assert_eq!((&*kv.key, kv.mod_revision as u64), (entry.key.as_bytes(), entry.mod_revision));
            assert_eq!(kv.create_revision as u64, entry.create_revision);
            assert!(kv.value == encoding.encode(&entry.key, entry.value.clone()).unwrap(), "{}", entry.key);
        }
        assert_eq!(found.len(), entries.len());
        let mut forgotten = Vec::new();
        reader
            .each(b"meta", |name, value| {
                forgotten.push((name.to_vec(), value[..8].to_vec()));
                Ok::<(), bolt::Error>(())
            })
            .unwrap();
        assert_eq!(forgotten, [(b"finishedCompactRev".to_vec(), (revision as i64).to_be_bytes().to_vec())]);
    }

    fn map(n: usize) -> Vec<u8> {
        let map = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"n": n.to_string()},
            "metadata": {"name": format!("m{n}"), "namespace": "d", "uid": format!("u{n}")}});
        serde_json::to_vec(&map).unwrap()
    }
}
