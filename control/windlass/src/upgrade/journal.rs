//! An upgrade under way, on disk: what was there and what is to be there, whole, until it is over.
//!
//! A directory beside the programs. It is made under another name and gets its own by one rename, with everything in it on disk: from then on until
//! it is renamed again an upgrade is under way, and whoever finds it with nobody at work on it undoes that. Both directions do the same, a target
//! at a time: they give it the copy that is kept for it, in one step, and the copy stays. So either can be cut short anywhere and begun anew, as
//! often as need be. Nothing else is written down of how far it came: the targets themselves say it.

use anyhow::Context as _;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The directory's names: while it is filled, while it counts, and when it is over.
pub(super) const FILLED: &str = ".windlass-upgrade.new";
const CURRENT: &str = ".windlass-upgrade";
const OVER: &str = ".windlass-upgrade.over";
/// In it: the targets' paths, a line each, and below directories of these names a copy for each, named by its line's number.
const TARGETS: &str = "targets";
const OLD: &str = "old";
const NEW: &str = "new";
/// What a file is called until it is whole.
const BESIDE: &str = ".windlass-new";

/// Called before each change of a file; its error ends everything at once. Tests die there.
pub(super) type Step<'a> = &'a dyn Fn() -> anyhow::Result<()>;

/// A target, and the file that is to be there; without one it goes.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) target: PathBuf,
    pub(super) file: Option<PathBuf>,
}

#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    targets: Vec<PathBuf>,
}

impl Journal {
    /// Begins an upgrade: nothing but the journal is there afterwards. The files of `changes` are in the directory [`FILLED`] of `bin` already, on disk.
    pub(super) fn begin(bin: &Path, changes: Vec<Change>, step: Step<'_>) -> anyhow::Result<Self> {
        let filled = bin.join(FILLED);
        let (mut targets, mut lines) = (Vec::new(), String::new());
        for name in [OLD, NEW] {
            step()?;
            let dir = filled.join(name);
            fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        }
        for Change { target, file } in changes {
            if file.as_ref().map_or(!target.exists(), |file| same_content(file, &target)) {
                continue;
            }
            let number = targets.len().to_string();
            if target.exists() {
                step()?;
                link(&target, &filled.join(OLD).join(&number))?;
            }
            if let Some(file) = file {
                step()?;
                rename(&file, &filled.join(NEW).join(&number))?;
            }
            lines += &format!("{}\n", target.display());
            targets.push(target);
        }
        step()?;
        let path = filled.join(TARGETS);
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(lines.as_bytes())?;
            file.sync_all()
        });
        written.with_context(|| format!("write {}", path.display()))?;
        for dir in [filled.join(OLD), filled.join(NEW), filled.clone()] {
            sync(&dir)?;
        }
        let dir = bin.join(CURRENT);
        step()?;
        rename(&filled, &dir)?;
        sync(bin)?;
        Ok(Self { dir, targets })
    }

    /// The upgrade that is under way, or was cut short.
    pub(super) fn open(bin: &Path) -> anyhow::Result<Option<Self>> {
        let dir = bin.join(CURRENT);
        let path = dir.join(TARGETS);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("read {}", path.display()))?,
        };
        Ok(Some(Self { dir, targets: text.lines().map(PathBuf::from).collect() }))
    }

    /// Somebody else, such as an installer, has put something in place meanwhile: nothing here is to be undone.
    pub(super) fn is_overtaken(&self) -> bool {
        let is = |copy: &Path, target: &Path| {
            if copy.exists() { same_content(copy, target) } else { !target.exists() }
        };
        self.targets.iter().enumerate().any(|(number, target)| {
            !is(&self.copy(OLD, number), target) && !is(&self.copy(NEW, number), target)
        })
    }

    /// Whether anything is to change.
    pub(super) fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// The targets that are not there yet, and will be.
    pub(super) fn added(&self) -> Vec<&Path> {
        let is_new = |number| !self.copy(OLD, number).exists() && self.copy(NEW, number).exists();
        self.targets.iter().enumerate().filter(|(n, _)| is_new(*n)).map(|(_, target)| &**target).collect()
    }

    /// Puts what is new in place.
    pub(super) fn forward(&self, step: Step<'_>) -> anyhow::Result<()> {
        self.all(NEW, step)
    }

    /// Puts what was there back.
    pub(super) fn back(&self, step: Step<'_>) -> anyhow::Result<()> {
        self.all(OLD, step)
    }

    /// It is over: what is in place stays.
    pub(super) fn close(self, bin: &Path, step: Step<'_>) -> anyhow::Result<()> {
        let over = bin.join(OVER);
        step()?;
        remove(&over)?;
        step()?;
        rename(&self.dir, &over)?;
        sync(bin)?;
        step()?;
        remove(&over)
    }

    fn copy(&self, of: &str, number: usize) -> PathBuf {
        self.dir.join(of).join(number.to_string())
    }

    fn all(&self, of: &str, step: Step<'_>) -> anyhow::Result<()> {
        for (number, target) in self.targets.iter().enumerate() {
            put(&self.copy(of, number), target, step)?;
        }
        Ok(())
    }
}

/// Removes what runs leave that were cut short before they had changed anything, or after they were over.
pub(super) fn sweep(bin: &Path) -> anyhow::Result<()> {
    [FILLED, OVER].iter().try_for_each(|name| remove(&bin.join(name)))
}

/// Gives a target what is kept for it, in one step; the copy stays. Nothing is kept for what is not to be there.
fn put(copy: &Path, target: &Path, step: Step<'_>) -> anyhow::Result<()> {
    let dir = target.parent().unwrap_or(Path::new("/"));
    let mut beside = target.as_os_str().to_owned();
    beside.push(BESIDE);
    let beside = PathBuf::from(beside);
    // One that was cut short has left it.
    step()?;
    remove(&beside)?;
    if !copy.exists() {
        step()?;
        remove(target)?;
        return if dir.is_dir() { sync(dir) } else { Ok(()) };
    }
    // Two names of one file: a rename would do nothing.
    if same_file(copy, target) {
        return Ok(());
    }
    step()?;
    fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    step()?;
    link(copy, &beside)?;
    step()?;
    rename(&beside, target)?;
    sync(dir)
}

fn same_file(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).map(|data| (data.dev(), data.ino())).ok();
    id(one).is_some_and(|one| id(other) == Some(one))
}

/// Of one content and one mode.
fn same_content(one: &Path, other: &Path) -> bool {
    let look = |path: &Path| fs::metadata(path).map(|data| (data.len(), data.mode() & 0o7777)).ok();
    same_file(one, other)
        || look(one).is_some_and(|size| look(other) == Some(size))
            && matches!((fs::read(one), fs::read(other)), (Ok(one), Ok(other)) if one == other)
}

/// A second name of a file, or a copy where there can be none.
fn link(file: &Path, name: &Path) -> anyhow::Result<()> {
    if fs::hard_link(file, name).is_ok() {
        return Ok(());
    }
    let copied = fs::copy(file, name).and_then(|_| File::open(name)).and_then(|file| file.sync_all());
    copied.with_context(|| format!("copy {} to {}", file.display(), name.display()))
}

fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::rename(from, to).with_context(|| format!("rename {} to {}", from.display(), to.display()))
}

fn sync(dir: &Path) -> anyhow::Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("sync {}", dir.display()))
}

/// Removes a file or a directory, which need not be there.
pub(super) fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
