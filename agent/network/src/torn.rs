//! What a power cut leaves of libcni's results.
//!
//! The container runtime's libcni keeps the result of each attachment in a file that it does not sync. A power cut may leave it empty, and then each
//! StopPodSandbox fails before a plugin is asked: for ever, because nothing writes the file again. Where there is none, the plugins are asked without a result,
//! and release by their own records.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::Value;

/// Where libcni keeps them.
pub const RESULTS: &str = "/var/lib/cni/results";
/// A file is written in one go, by then.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);

/// Removes the results that cannot be read and that nobody is writing; returns them.
///
/// # Errors
/// The directory cannot be read, or one of them not be removed.
pub fn remove_torn(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let now = SystemTime::now();
    let mut removed = Vec::new();
    for entry in entries {
        let path = entry?.path();
        match is_torn(&path, now)
            .and_then(|torn| if torn { fs::remove_file(&path).map(|()| true) } else { Ok(false) })
        {
            Ok(true) => removed.push(path),
            Ok(false) => {}
            // released meanwhile
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

fn is_torn(path: &Path, now: SystemTime) -> io::Result<bool> {
    let about = fs::metadata(path)?;
    // one of the future is of a clock that was wrong
    let settled = now.duration_since(about.modified()?).map_or(true, |age| age > WRITTEN_WITHIN);
    Ok(about.is_file() && settled && serde_json::from_slice::<Value>(&fs::read(path)?).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(directory: &Path, name: &str, text: &str, age: Duration) -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        path
    }

    #[test]
    fn a_result_that_a_power_cut_tore_must_not_keep_its_sandbox_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let minute = Duration::from_secs(60);
        let empty = result(directory.path(), "windlass-1-eth0", "", minute);
        let half = result(directory.path(), "windlass-2-eth0", r#"{"kind":"cniCa"#, minute);
        let whole = result(directory.path(), "windlass-3-eth0", "{}", minute);
        let written = result(directory.path(), "windlass-4-eth0", "", Duration::ZERO);
        let mut removed = remove_torn(directory.path()).unwrap();
        removed.sort();
        assert_eq!(removed, [empty, half]);
        assert!(whole.exists() && written.exists());
    }

    #[test]
    fn a_machine_without_results_must_not_be_an_error() {
        assert!(remove_torn(Path::new("/nowhere/results")).unwrap().is_empty());
    }

    #[test]
    fn a_torn_result_of_the_future_must_not_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("windlass-1-eth0");
        fs::write(&path, "").unwrap();
        let later = SystemTime::now() + Duration::from_secs(3600);
        fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(remove_torn(directory.path()).unwrap(), [path]);
    }
}
