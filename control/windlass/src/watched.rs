//! Files that others change while we run: seen at once by inotify, and by a period where that says nothing.

use futures::StreamExt as _;
use futures::stream::{BoxStream, pending};
use inotify::{Inotify, WatchMask};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::future::ready;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// How often files are looked at again for whose changes nobody answers.
pub(crate) const REREAD: Duration = Duration::from_secs(60);
/// Changes this close together are looked at once: their writer is not done yet.
const SETTLE: Duration = Duration::from_millis(200);
/// And at the latest this long after the first: a writer that never ends is not waited for.
const LONGEST_SETTLE: Duration = Duration::from_secs(2);
/// What a kubelet replaces in the directory of a mounted volume: its files are links through that.
const DATA: &str = "..data";

/// Directories in which files may be replaced.
pub(crate) struct Directories(BoxStream<'static, ()>);

/// The names that matter in a directory; all of them without.
type Names = Option<BTreeSet<OsString>>;

impl Directories {
    /// The directories of these files, where a file may also come to be by a rename; what happens to others there is not seen.
    pub(crate) fn of_files<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Self {
        let mut all: BTreeMap<&Path, Names> = BTreeMap::new();
        for path in paths {
            let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { continue };
            let names = all.entry(here(directory)).or_insert_with(|| Some(BTreeSet::new()));
            names.get_or_insert_default().extend([name.to_owned(), DATA.into()]);
        }
        Self::watching(&all)
    }

    /// Without inotify, changes are seen late.
    pub(crate) fn of<'p>(directories: impl IntoIterator<Item = &'p Path>) -> Self {
        Self::watching(&directories.into_iter().map(|directory| (here(directory), None)).collect())
    }

    fn watching(all: &BTreeMap<&Path, Names>) -> Self {
        Self(watch(all).unwrap_or_else(|error| {
            tracing::warn!(%error, "changes of files are seen late");
            pending().boxed()
        }))
    }

    /// Returns when something was changed, after `longest` in any case.
    pub(crate) async fn changed(&mut self, longest: Duration) {
        tokio::select! {
            () = tokio::time::sleep(longest) => {}
            Some(()) = self.0.next() => {
                let end = Instant::now() + longest.min(LONGEST_SETTLE);
                while Instant::now() < end {
                    let quiet = end.min(Instant::now() + SETTLE);
                    if !tokio::time::timeout_at(quiet, self.0.next()).await.is_ok_and(|event| event.is_some()) {
                        return;
                    }
                }
            }
        }
    }
}

fn here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

fn watch(all: &BTreeMap<&Path, Names>) -> std::io::Result<BoxStream<'static, ()>> {
    let inotify = Inotify::init()?;
    let mask = WatchMask::MOVED_TO | WatchMask::MOVED_FROM | WatchMask::DELETE | WatchMask::CLOSE_WRITE;
    let mut wanted = HashMap::new();
    for (directory, names) in all {
        wanted.insert(inotify.watches().add(directory, mask)?, names.clone());
    }
    let events = inotify.into_event_stream([0; 4096])?;
    // After an error nothing more is to be expected of it.
    let events = events.take_while(|event| ready(event.is_ok())).filter_map(move |event| {
        let matters = event.is_ok_and(|event| match (wanted.get(&event.wd), &event.name) {
            (Some(Some(names)), Some(name)) => names.contains(name),
            // Of a lost event, nobody knows what it was about.
            _ => true,
        });
        ready(matters.then_some(()))
    });
    Ok(events.chain(pending()).boxed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replaced_file_must_not_be_seen_only_after_the_period() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut directories = Directories::of_files([path.as_path()]);
        std::fs::write(dir.path().join("b"), "x").unwrap();
        std::fs::rename(dir.path().join("b"), &path).unwrap();
        let seen = directories.changed(Duration::from_secs(3600));
        tokio::time::timeout(Duration::from_secs(60), seen).await.unwrap();
        let mut nowhere = Directories::of([Path::new("/nowhere/at/all")]);
        nowhere.changed(Duration::from_millis(1)).await;
    }

    #[tokio::test]
    async fn a_writer_that_never_ends_must_not_be_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut directories = Directories::of_files([path.as_path()]);
        let writing = async {
            for _ in 0..1000 {
                std::fs::write(&path, "x").unwrap();
                tokio::time::sleep(SETTLE / 4).await;
            }
        };
        tokio::select! {
            () = writing => panic!("it is waited for"),
            seen = tokio::time::timeout(Duration::from_secs(30), directories.changed(Duration::from_secs(3600))) => {
                seen.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn another_file_of_the_directory_must_not_be_taken_for_ours() {
        let dir = tempfile::tempdir().unwrap();
        let mut directories = Directories::of_files([dir.path().join("a").as_path()]);
        std::fs::write(dir.path().join("b"), "x").unwrap();
        let seen = tokio::time::timeout(2 * SETTLE, directories.0.next()).await;
        assert!(seen.is_err(), "{seen:?}");
        std::fs::write(dir.path().join("a"), "x").unwrap();
        let seen = tokio::time::timeout(Duration::from_secs(60), directories.0.next()).await;
        assert_eq!(seen.unwrap(), Some(()));
    }
}
