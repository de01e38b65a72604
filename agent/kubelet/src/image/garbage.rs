//! Images nobody uses go when their disk runs full, or when they are old.
//!
//! Woken every [`PERIOD`], and by eviction. Reads the runtime's images, containers and filesystem. Writes removals, and an event when they
//! do not suffice. Promises: what a container uses, what the runtime pins and what sandboxes are made of stays; so does
//! what came less than `imageMinimumGCAge` ago.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cri_proto::client::Runtime;
use cri_proto::v1;
use tokio::time::Instant;

use crate::config::Config;
use crate::recorder::{Kind, Recorder, Subject};
use crate::stats::disk::Filesystem;

/// How often, as upstream's.
pub const PERIOD: Duration = Duration::from_secs(300);

/// An image as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    /// `None`: it was here when we came.
    first: Option<Instant>,
    /// `None`: never.
    used: Option<Instant>,
    size: u64,
    pinned: bool,
}

/// What is to be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// Bytes to free.
    Bytes(u64),
    /// Everything unused for so long.
    OlderThan(Duration),
}

/// Why the disk is still full.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime does not answer.
    #[error("collect unused images: {0}")]
    Runtime(#[from] cri_proto::client::Error),
    /// The filesystem cannot be asked.
    #[error("invalid capacity 0 on image filesystem")]
    Capacity,
    /// Not enough could be freed; the text is upstream's.
    #[error("{0}")]
    Insufficient(String),
}

/// A shared handle: the records must be one.
#[derive(Clone)]
pub struct Garbage {
    runtime: Runtime,
    config: Arc<Config>,
    recorder: Recorder,
    records: Arc<tokio::sync::Mutex<Records>>,
    began: Instant,
}

#[derive(Default)]
struct Records {
    images: BTreeMap<String, Seen>,
    listed: bool,
}

impl Garbage {
    /// No images seen yet.
    pub fn new(runtime: Runtime, config: Arc<Config>, recorder: Recorder) -> Self {
        Self { runtime, config, recorder, records: Arc::default(), began: Instant::now() }
    }

    /// Collects every [`PERIOD`] until the task is dropped. The first failures are not told: right after the start the runtime may know
    /// nothing of its filesystem. With a high mark of 100% and no age nothing is collected.
    pub async fn run(self) {
        if self.config.image_gc_high_percent == 100 && self.config.image_maximum_gc_age.is_zero() {
            return std::future::pending().await;
        }
        let mut succeeded = false;
        loop {
            match self.collect().await {
                Ok(()) => succeeded = true,
                Err(error) => {
                    tracing::warn!(%error, "image garbage collection");
                    if succeeded {
                        self.say("ImageGCFailed", error.to_string());
                    }
                }
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    fn say(&self, reason: &'static str, message: String) {
        self.recorder.record(Subject::node(&self.config.node_name), Kind::Warning, reason, message);
    }

    async fn collect(&self) -> Result<(), Error> {
        let now = Instant::now();
        let mut records = self.records.lock().await;
        self.look(&mut records, now).await?;
        let oldest = self.config.image_maximum_gc_age;
        if !oldest.is_zero() && now.duration_since(self.began) > oldest {
            self.free(&mut records, Target::OlderThan(oldest), now).await;
        }
        let info = self.runtime.image_fs_info().await?;
        let place = info.image_filesystems.into_iter().find_map(|f| f.fs_id);
        let place = PathBuf::from(place.map(|p| p.mountpoint).unwrap_or_default());
        let found = tokio::task::spawn_blocking(move || Filesystem::of(&place)).await.ok().flatten();
        let found = found.filter(|f| f.capacity > 0).ok_or(Error::Capacity)?;
        let (high, low) = (self.config.image_gc_high_percent, self.config.image_gc_low_percent);
        let Some(wanted) = amount_to_free(&found, high, low) else { return Ok(()) };
        let freed = self.free(&mut records, Target::Bytes(wanted), now).await;
        if freed >= wanted {
            return Ok(());
        }
        let text = format!(
            "Insufficient free disk space on the node's image filesystem ({}% of {} used). Failed to free sufficient \
             space by deleting unused images (freed {freed} bytes). Investigate disk usage, as it could be used by \
             active images, logs, volumes, or other data.",
            percent(&found),
            shown(found.capacity)
        );
        self.say("FreeDiskSpaceFailed", text.clone());
        Err(Error::Insufficient(text))
    }

    /// Removes every image nobody uses: the disk is under pressure.
    pub async fn remove_unused(&self) -> Result<u64, Error> {
        let now = Instant::now();
        let mut records = self.records.lock().await;
        self.look(&mut records, now).await?;
        Ok(self.free(&mut records, Target::Bytes(u64::MAX), now).await)
    }

    /// Brings the records up to date.
    async fn look(&self, records: &mut Records, now: Instant) -> Result<(), Error> {
        let images = self.runtime.list_images().await?;
        let containers = self.runtime.list_containers(HashMap::new()).await?;
        let sandbox = self.sandbox_image().await;
        let used = used(&images, &containers, sandbox.as_deref());
        note(records, &images, &used, now);
        Ok(())
    }

    /// The image of sandboxes: older runtimes do not pin it, and cannot make pods without.
    async fn sandbox_image(&self) -> Option<String> {
        let status = self.runtime.status(true).await.ok()?;
        let config: serde_json::Value = serde_json::from_str(status.info.get("config")?).ok()?;
        config.get("sandboxImage")?.as_str().map(str::to_owned)
    }

    /// Removes images, the longest unused first, until enough is freed; says how much was.
    async fn free(&self, records: &mut Records, wanted: Target, now: Instant) -> u64 {
        let mut freed: u64 = 0;
        for id in order(&records.images, wanted, now, self.config.image_minimum_gc_age) {
            if matches!(wanted, Target::Bytes(bytes) if freed >= bytes) {
                break;
            }
            match self.runtime.remove_image(&id).await {
                Ok(()) => {
                    let size = records.images.remove(&id).map_or(0, |seen| seen.size);
                    tracing::info!(image = id, size, "removed an unused image");
                    freed = freed.saturating_add(size);
                }
                Err(error) => tracing::warn!(image = id, %error, "remove an unused image"),
            }
        }
        freed
    }
}

fn percent(found: &Filesystem) -> u64 {
    100 - found.available.min(found.capacity) * 100 / found.capacity.max(1)
}

/// Bytes to free to come down to the low mark; none below the high one.
fn amount_to_free(found: &Filesystem, high: u32, low: u32) -> Option<u64> {
    if percent(found) < u64::from(high) {
        return None;
    }
    let wanted = u128::from(found.capacity) * u128::from(100_u32.saturating_sub(low)) / 100;
    Some(u64::try_from(wanted).unwrap_or(u64::MAX).saturating_sub(found.available))
}

/// Bytes for people, in powers of 1024.
fn shown(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{amount:.1} {}", UNITS[unit]) }
}

/// Ids of images that are in use: by a container, ended ones included, or by sandboxes.
fn used(images: &[v1::Image], containers: &[v1::Container], sandbox: Option<&str>) -> HashSet<String> {
    let mut names: HashSet<&str> = sandbox.into_iter().collect();
    for container in containers {
        names.insert(&container.image_ref);
        names.insert(&container.image_id);
        names.extend(container.image.as_ref().map(|i| i.image.as_str()));
    }
    names.remove("");
    let is_named = |image: &&v1::Image| {
        let mut own = image.repo_tags.iter().chain(&image.repo_digests).chain(std::iter::once(&image.id));
        own.any(|name| names.contains(name.as_str()))
    };
    images.iter().filter(is_named).map(|i| i.id.clone()).collect()
}

/// Records the images that exist now.
fn note(records: &mut Records, images: &[v1::Image], used: &HashSet<String>, now: Instant) {
    let first = records.listed.then_some(now);
    for image in images {
        let seen = records.images.entry(image.id.clone()).or_insert(Seen {
            first,
            used: None,
            size: 0,
            pinned: false,
        });
        seen.size = image.size;
        seen.pinned = image.pinned;
        if used.contains(&image.id) {
            seen.used = Some(now);
        }
    }
    let there: HashSet<&str> = images.iter().map(|i| i.id.as_str()).collect();
    records.images.retain(|id, _| there.contains(id.as_str()));
    records.listed = true;
}

/// The images that may go, the longest unused first, of those the longest here first.
fn order(images: &BTreeMap<String, Seen>, wanted: Target, now: Instant, minimum: Duration) -> Vec<String> {
    let may_go = |seen: &&Seen| {
        let idle = seen.used != Some(now) && !seen.pinned;
        match wanted {
            Target::Bytes(_) => idle && seen.first.is_none_or(|first| now.duration_since(first) >= minimum),
            Target::OlderThan(age) => {
                let since = seen.used.or(seen.first);
                idle && since.is_none_or(|since| now.duration_since(since) > age)
            }
        }
    };
    let mut all: Vec<(&String, &Seen)> = images.iter().filter(|(_, seen)| may_go(seen)).collect();
    all.sort_by_key(|(_, seen)| (seen.used, seen.first));
    all.into_iter().map(|(id, _)| id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, tag: &str, size: u64) -> v1::Image {
        v1::Image { id: id.into(), repo_tags: vec![tag.into()], size, ..v1::Image::default() }
    }

    #[test]
    fn what_is_used_stays_and_the_longest_unused_goes_first() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let images =
            [image("a", "a:1", 1), image("b", "b:1", 2), image("p", "pause:1", 3), image("c", "c:1", 4)];
        let container = v1::Container { image_ref: "a".into(), ..v1::Container::default() };
        let in_use = used(&images, std::slice::from_ref(&container), Some("pause:1"));
        assert_eq!(in_use, HashSet::from(["a".to_owned(), "p".to_owned()]));
        let mut records = Records::default();
        note(&mut records, &images[..3], &HashSet::from(["b".to_owned()]), at(0));
        note(&mut records, &images, &in_use, at(100));
        let minimum = Duration::from_secs(120);
        let all = Target::Bytes(u64::MAX);
        assert_eq!(order(&records.images, all, at(100), minimum), ["b"], "c came just now");
        assert_eq!(order(&records.images, all, at(300), minimum), ["c", "b", "a", "p"], "by their last use");
        let old = Target::OlderThan(Duration::from_secs(150));
        assert_eq!(order(&records.images, old, at(200), minimum), ["b"]);
        records.images.get_mut("b").unwrap().pinned = true;
        assert!(order(&records.images, old, at(200), minimum).is_empty());
        note(&mut records, &images[..1], &in_use, at(400));
        assert_eq!(records.images.len(), 1, "what is gone is forgotten");
    }

    #[test]
    fn only_above_the_high_mark_and_down_to_the_low_one() {
        let disk = |available| Filesystem { available, capacity: 1000, ..Filesystem::default() };
        assert_eq!(amount_to_free(&disk(160), 85, 80), None);
        assert_eq!(amount_to_free(&disk(150), 85, 80), Some(50));
        assert_eq!(amount_to_free(&disk(0), 85, 80), Some(200));
        assert_eq!(shown(1536 * 1024), "1.5 MiB");
    }
}
