//! The CNI plugins: links named after each plugin, all to our one CNI program, which acts by the name it is called.
//!
//! A plugin that is there and is not a link was installed by somebody else; it stays, and speaks the same protocol.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The names our program answers to.
pub const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];
/// Our program, beside our own executable.
pub const PROGRAM: &str = "windlass-cni";

/// Why the plugins are not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Our own place is unknown.
    #[error("find our own executable")]
    Executable(#[source] io::Error),
    /// The program is not where it should be.
    #[error("find the CNI plugins' program {}", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A link or the directory could not be made.
    #[error("install {}", path.display())]
    Install {
        /// The link or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Installs the links into `bin_dir`.
pub fn install(bin_dir: &Path) -> Result<(), Error> {
    let own = std::env::current_exe().map_err(Error::Executable)?;
    link(&own.with_file_name(PROGRAM), bin_dir)
}

fn link(program: &Path, bin_dir: &Path) -> Result<(), Error> {
    if !program.is_file() {
        return Err(Error::Missing { path: program.to_owned() });
    }
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Install { path, source }
    };
    std::fs::create_dir_all(bin_dir).map_err(fail(bin_dir))?;
    for name in PLUGINS {
        let path = bin_dir.join(name);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if !found.is_symlink() => {
                tracing::info!(path = %path.display(), "a CNI plugin of somebody else is kept");
                continue;
            }
            Ok(_) if std::fs::read_link(&path).is_ok_and(|to| to == program) => continue,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(&path)(error)),
        }
        // The runtime may call the plugin at any moment: the link is replaced whole.
        let temporary = bin_dir.join(format!(".{name}.new"));
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(&temporary)(error)),
            _ => {}
        }
        symlink(program, &temporary).map_err(fail(&temporary))?;
        std::fs::rename(&temporary, &path).map_err(fail(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn links_follow_the_program_and_others_plugins_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new, bin) = (dir.path().join("old"), dir.path().join("new"), dir.path().join("bin"));
        assert!(matches!(link(&old, &bin), Err(Error::Missing { .. })));
        fs::write(&old, "1").unwrap();
        fs::write(&new, "2").unwrap();
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("portmap"), "somebody's").unwrap();
        link(&old, &bin).unwrap();
        link(&new, &bin).unwrap();
        link(&new, &bin).unwrap();
        for name in ["bridge", "host-local", "loopback"] {
            assert_eq!(fs::read_link(bin.join(name)).unwrap(), new, "{name}");
        }
        assert_eq!(fs::read_to_string(bin.join("portmap")).unwrap(), "somebody's");
        assert_eq!(fs::read_dir(&bin).unwrap().count(), 4);
    }
}
