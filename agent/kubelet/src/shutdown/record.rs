//! When the last graceful shutdown began and ended, on disk: the next kubelet's metrics tell of it. Upstream: `storage.go` of
//! `pkg/kubelet/nodeshutdown`.

use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

const FILE: &str = "graceful_node_shutdown_state";
/// How Go spells a time that is not set.
const UNSET: &str = "0001-01-01T00:00:00Z";

/// The last shutdown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) start: Option<Timestamp>,
    pub(super) end: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    start_time: String,
    end_time: String,
}

impl Record {
    /// The record in a directory; an absent one is empty.
    pub(super) fn read(directory: &Path) -> io::Result<Self> {
        let text = match std::fs::read(directory.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other?,
        };
        let text: Text = serde_json::from_slice(&text)?;
        let time = |text: &str| text.parse::<Timestamp>().ok().filter(|at| *at > Timestamp::UNIX_EPOCH);
        Ok(Self { start: time(&text.start_time), end: time(&text.end_time) })
    }

    /// Replaces the record in a directory.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let time = |at: Option<Timestamp>| at.map_or_else(|| UNSET.to_owned(), |at| at.to_string());
        let text = serde_json::to_vec(&Text { start_time: time(self.start), end_time: time(self.end) })?;
        let next = directory.join(format!(".tmp-{FILE}"));
        let mut file = std::fs::File::create(&next)?;
        io::Write::write_all(&mut file, &text)?;
        file.sync_all()?;
        std::fs::rename(next, directory.join(FILE))
    }
}

/// Seconds since 1970 for a metric; zero for a time that is not set.
pub(super) fn seconds(at: Option<Timestamp>) -> f64 {
    at.map_or(0.0, |at| at.as_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shutdown_that_did_not_end_must_not_read_as_one_that_did() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), Record::default());
        let begun = Record { start: Timestamp::from_second(100).ok(), end: None };
        begun.write(dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert_eq!(text, r#"{"startTime":"1970-01-01T00:01:40Z","endTime":"0001-01-01T00:00:00Z"}"#);
        let read = Record::read(dir.path()).unwrap();
        assert_eq!((seconds(read.start), seconds(read.end)), (100.0, 0.0));
        std::fs::write(dir.path().join(FILE), "nonsense").unwrap();
        assert!(Record::read(dir.path()).is_err());
    }
}
