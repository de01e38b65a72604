//! Files that others change while we run: seen at once by inotify, and by a period where that says nothing.

use futures::StreamExt as _;
use futures::stream::{BoxStream, pending};
use inotify::{Inotify, WatchMask};
use std::collections::BTreeSet;
use std::future::ready;
use std::path::Path;
use std::time::Duration;

/// Changes this close together are looked at once: their writer is not done yet.
const SETTLE: Duration = Duration::from_millis(200);

/// Directories in which files may be replaced.
pub(crate) struct Directories(BoxStream<'static, ()>);

impl Directories {
    /// The directories of these files, where a file may also come to be by a rename.
    pub(crate) fn of_files<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Self {
        Self::of(paths.into_iter().filter_map(Path::parent))
    }

    /// Without inotify, changes are seen late.
    pub(crate) fn of<'p>(directories: impl IntoIterator<Item = &'p Path>) -> Self {
        let here = |path: &'p Path| if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Self(watch(&directories.into_iter().map(here).collect()).unwrap_or_else(|error| {
            tracing::warn!(%error, "changes of files are seen late");
            pending().boxed()
        }))
    }

    /// Returns when something was changed, after `longest` in any case.
    pub(crate) async fn changed(&mut self, longest: Duration) {
        tokio::select! {
            () = tokio::time::sleep(longest) => {}
            Some(()) = self.0.next() => {
                while tokio::time::timeout(SETTLE, self.0.next()).await.is_ok_and(|event| event.is_some()) {}
            }
        }
    }
}

fn watch(directories: &BTreeSet<&Path>) -> std::io::Result<BoxStream<'static, ()>> {
    let inotify = Inotify::init()?;
    let mask = WatchMask::MOVED_TO | WatchMask::MOVED_FROM | WatchMask::DELETE | WatchMask::CLOSE_WRITE;
    for directory in directories {
        inotify.watches().add(directory, mask)?;
    }
    let events = inotify.into_event_stream([0; 4096])?;
    // After an error nothing more is to be expected of it.
    Ok(events.take_while(|event| ready(event.is_ok())).map(drop).chain(pending()).boxed())
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
}
