//! A line of a CRI log file: `TIME STREAM TAGS CONTENT`.

/// The content of a line; `None` when it is no log line.
pub(crate) fn content(line: &str) -> Option<&str> {
    let mut parts = line.splitn(4, ' ');
    let (_, stream, _) = (parts.next()?, parts.next()?, parts.next()?);
    matches!(stream, "stdout" | "stderr").then(|| parts.next()).flatten()
}
