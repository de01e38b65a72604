//! A log file of bounded size, and the ones before it: named, kept, compressed and removed as `lumberjack` does it, which upstream writes
//! its log with.
//!
//! Each write is one line and begins on a line of its own, whatever a process that was killed, or a full disk, left there.

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown,
};
use std::path::{Path, PathBuf};

const COMPRESSED: &str = ".gz";
/// When a file was set aside, in UTC, in its name.
const TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";
const DAY_LENGTH: usize = "2006-01-02T".len();
const TIME_LENGTH: usize = "2006-01-02T15-04-05.000".len();

/// When a file is set aside, and what becomes of those that were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes of a file; never set aside without.
    pub size: Option<u64>,
    /// Days after which one that was set aside is removed; never without.
    pub days: Option<u32>,
    /// How many are kept; all without.
    pub backups: Option<usize>,
    /// Whether they are compressed.
    pub compress: bool,
}

/// The file that is written to.
pub(super) struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    open: Option<(File, u64)>,
    /// The last write may have left half a line.
    torn: bool,
}

/// The parts of a log's name around the time.
struct Naming {
    dir: PathBuf,
    prefix: String,
    extension: String,
}

impl Naming {
    fn of(path: &Path) -> Self {
        let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
        // As Go's `filepath.Ext`: from the last dot on, if only that.
        let (stem, extension) = name.split_at(name.rfind('.').unwrap_or(name.len()));
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self { dir: dir.to_owned(), prefix: format!("{stem}-"), extension: extension.to_owned() }
    }

    fn aside(&self, at: Timestamp) -> PathBuf {
        self.dir.join(format!("{}{}{}", self.prefix, at.strftime(TIME), self.extension))
    }

    /// When the file of that name was set aside, if it was.
    fn time(&self, name: &str) -> Option<Timestamp> {
        let name = name.strip_suffix(COMPRESSED).filter(|_| self.extension != COMPRESSED).unwrap_or(name);
        let time = name.strip_prefix(&self.prefix)?.strip_suffix(&self.extension)?;
        let (day, hours) = time.split_at_checked(DAY_LENGTH)?;
        let time = format!("{day}{}", hours.replace('-', ":"));
        let is_whole = time.len() == TIME_LENGTH && hours.contains('.');
        let time: DateTime = time.parse().ok().filter(|_| is_whole)?;
        time.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp())
    }
}

impl LogFile {
    /// Makes the file, and its directory, where they are not there.
    pub(super) fn create(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let dir = Naming::of(path).dir;
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path)?;
        Ok(Self { path: path.to_owned(), rotation, open: None, torn: false })
    }

    /// Writes a line; true if others were set aside, or might have been, so that [`tidy`] has work.
    pub(super) fn write(&mut self, line: &[u8], now: Timestamp) -> io::Result<bool> {
        let length = line.len() as u64;
        let longest = self.rotation.size.unwrap_or(u64::MAX);
        if length > longest {
            let why = format!("write length {length} exceeds maximum file size {longest}");
            return Err(io::Error::other(why));
        }
        let mut changed = false;
        if self.open.is_none() {
            self.reopen()?;
            changed = true;
        }
        if self.open.as_ref().is_some_and(|(_, held)| held.saturating_add(length) > longest) {
            self.rotate(now)?;
            changed = true;
        }
        let Some((file, held)) = &mut self.open else { return Err(io::ErrorKind::NotFound.into()) };
        let written = match self.torn {
            true => file.write_all(&[b"\n", line].concat()),
            false => file.write_all(line),
        };
        self.torn = written.is_err();
        match written {
            Ok(()) => *held += length,
            // What was not written fills no file: a full disk must not have the files before it set aside and removed.
            Err(_) => *held = file.metadata().map_or(*held, |now| now.len()),
        }
        written.map(|()| changed)
    }

    fn reopen(&mut self) -> io::Result<()> {
        let mut file =
            OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(&self.path)?;
        let held = file.metadata()?.len();
        self.torn = held > 0 && {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            last != *b"\n"
        };
        self.open = Some((file, held));
        Ok(())
    }

    /// Sets the file aside and begins another, of the same mode and owner.
    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        self.open = None;
        let before = match fs::metadata(&self.path) {
            Ok(before) => before,
            // Somebody took it away: there is nothing to set aside.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return self.reopen(),
            Err(e) => return Err(e),
        };
        let naming = Naming::of(&self.path);
        let mut at = now;
        // Two within a millisecond must not be one.
        while naming.aside(at).exists() {
            at = at.saturating_add(SignedDuration::from_millis(1)).unwrap_or(Timestamp::MAX);
        }
        fs::rename(&self.path, naming.aside(at))?;
        self.reopen()?;
        fs::set_permissions(&self.path, Permissions::from_mode(before.mode()))?;
        give(&self.path, &before);
        Ok(())
    }
}

/// Removes and compresses what was set aside: the first error, after everything was tried.
pub(super) fn tidy(path: &Path, rotation: Rotation, now: Timestamp) -> io::Result<()> {
    if rotation.backups.is_none() && rotation.days.is_none() && !rotation.compress {
        return Ok(());
    }
    let naming = Naming::of(path);
    let mut aside = Vec::new();
    for entry in fs::read_dir(&naming.dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(at) = naming.time(&name).filter(|_| !entry.path().is_dir()) {
            aside.push((at, name));
        }
    }
    let plan = Plan::of(aside, rotation, now);
    let mut done = Ok(());
    for name in plan.remove {
        done = done.and(fs::remove_file(naming.dir.join(name)));
    }
    for name in plan.compress {
        done = done.and(compress(&naming.dir.join(name)));
    }
    done
}

/// What is to be done about files that were set aside.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    remove: Vec<String>,
    compress: Vec<String>,
}

impl Plan {
    fn of(mut aside: Vec<(Timestamp, String)>, rotation: Rotation, now: Timestamp) -> Self {
        aside.sort_by(|a, b| b.cmp(a));
        let age = SignedDuration::from_hours(i64::from(rotation.days.unwrap_or_default()) * 24);
        let oldest = rotation.days.map(|_| now.saturating_sub(age).unwrap_or(Timestamp::MIN));
        // A file and its compressed form are one.
        let (mut kept, mut plan) = (BTreeSet::new(), Plan::default());
        for (at, name) in aside {
            kept.insert(name.strip_suffix(COMPRESSED).unwrap_or(&name).to_owned());
            let too_many = rotation.backups.is_some_and(|backups| kept.len() > backups);
            if too_many || oldest.is_some_and(|oldest| at < oldest) {
                plan.remove.push(name);
            } else if rotation.compress && !name.ends_with(COMPRESSED) {
                plan.compress.push(name);
            }
        }
        plan
    }
}

/// Puts a compressed file in a file's place.
fn compress(path: &Path) -> io::Result<()> {
    let mut target = path.as_os_str().to_owned();
    target.push(COMPRESSED);
    let target = PathBuf::from(target);
    match write_compressed(path, &target) {
        Ok(()) => fs::remove_file(path),
        Err(e) => {
            // What is half done is of no use.
            let _ = fs::remove_file(&target);
            Err(e)
        }
    }
}

fn write_compressed(path: &Path, target: &Path) -> io::Result<()> {
    let mut from = File::open(path)?;
    let held = from.metadata()?;
    let to = OpenOptions::new().create(true).write(true).truncate(true).mode(held.mode()).open(target)?;
    give(target, &held);
    let mut encoder = GzEncoder::new(to, Compression::default());
    io::copy(&mut from, &mut encoder)?;
    encoder.finish().map(drop)
}

/// Gives a file to who had another. Only root may; whose it is otherwise is ours already.
fn give(path: &Path, like: &fs::Metadata) {
    if let Err(error) = chown(path, Some(like.uid()), Some(like.gid())) {
        tracing::debug!(%error, path = %path.display(), "the owner of a log file");
    }
}

#[cfg(test)]
mod tests;
