//! The systemd driver: cgroups as slices, which systemd makes when asked over D-Bus.

use std::path::PathBuf;

use cgroups_rs::systemd::SystemdClient;

use super::Error;

/// `kubepods-burstable-pod1_2.slice`: a slice's name holds its parents', so dashes inside a name become underscores.
pub fn slice(names: &[String]) -> String {
    if names.is_empty() {
        return "-.slice".to_owned();
    }
    let parts: Vec<String> = names.iter().map(|name| name.replace('-', "_")).collect();
    format!("{}.slice", parts.join("-"))
}

/// Where systemd puts that slice: each ancestor slice is a directory.
pub fn path(names: &[String]) -> PathBuf {
    (1..=names.len()).map(|depth| slice(&names[..depth])).collect()
}

/// Starts a slice unless it is there.
pub fn ensure(slice: &str) -> Result<(), Error> {
    let failed = |reason: String| Error::Systemd { slice: slice.to_owned(), reason };
    let client = SystemdClient::new(slice, Vec::new()).map_err(|e| failed(e.to_string()))?;
    if client.exists() {
        return Ok(());
    }
    client.start().map_err(|e| failed(e.to_string()))
}

pub fn stop(slice: &str) -> Result<(), Error> {
    let failed = |reason: String| Error::Systemd { slice: slice.to_owned(), reason };
    let client = SystemdClient::new(slice, Vec::new()).map_err(|e| failed(e.to_string()))?;
    client.stop().map_err(|e| failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_hold_their_parents_names() {
        let names: Vec<String> = ["kubepods", "burstable", "pod1-2"].map(str::to_owned).into();
        assert_eq!(slice(&names), "kubepods-burstable-pod1_2.slice");
        assert_eq!(
            path(&names).to_string_lossy(),
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"
        );
    }
}
