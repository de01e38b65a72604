//! A container's network namespace.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, RawFd},
        unix::fs::MetadataExt,
    },
};

use nix::{
    sched::{CloneFlags, setns},
    sys::statfs::{FsType, fstatfs},
};

use crate::{Error, error::IoContext};

const NSFS_MAGIC: FsType = FsType(0x6e73_6673);
// A namespace kept alive by a bind mount shows procfs's magic on kernels before 3.19, which are not supported.

/// An open network namespace.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: String,
}

impl Netns {
    /// Opens the namespace at `path`.
    ///
    /// # Errors
    /// Code 3 if there is none, 8 if it is something else.
    pub fn open(path: &str) -> Result<Self, Error> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::UnknownContainer(path.to_owned()));
            }
            Err(source) => return Err(Error::Io { operation: format!("open netns {path:?}"), source }),
        };
        let magic = fstatfs(&file).map_err(io::Error::from).during(|| format!("stat netns {path:?}"))?;
        if magic.filesystem_type() != NSFS_MAGIC {
            return Err(Error::InvalidNetns(format!("{path:?} is not a network namespace")));
        }
        Ok(Self { file, path: path.to_owned() })
    }

    /// Opens the namespace of a container that may be gone.
    ///
    /// # Errors
    /// As `open`, save that a missing or replaced namespace is `None`: DEL must succeed without.
    pub fn open_if_there(path: &str) -> Result<Option<Self>, Error> {
        match Self::open(path) {
            Ok(netns) => Ok(Some(netns)),
            Err(Error::UnknownContainer(_) | Error::InvalidNetns(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Refuses the namespace the plugin itself is in.
    ///
    /// # Errors
    /// Code 8.
    pub fn refuse_own(&self) -> Result<(), Error> {
        let own = std::fs::metadata("/proc/self/ns/net").during(|| "stat /proc/self/ns/net".to_owned())?;
        let theirs = self.file.metadata().during(|| format!("stat netns {:?}", self.path))?;
        if (own.dev(), own.ino()) == (theirs.dev(), theirs.ino()) {
            return Err(Error::InvalidNetns(
                "plugin's netns and netns from CNI_NETNS should not be the same".to_owned(),
            ));
        }
        Ok(())
    }

    /// The descriptor, for netlink attributes.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Runs `work` inside the namespace, on a thread of its own so that no error path can leave us there.
    ///
    /// # Errors
    /// What `work` returns, or code 5 if the namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, || {
                setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
                    .map_err(io::Error::from)
                    .during(|| format!("enter netns {:?}", self.path))?;
                work()
            });
            match thread.during(|| "start a thread".to_owned())?.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}
