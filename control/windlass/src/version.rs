//! `windlass version`.

use crate::output::{self, Output};
use serde_json::json;

pub(crate) use machinery::release::{KUBERNETES, LONG};

/// The commit a release is built from, and that commit's time (RFC 3339): what `make dist` says, so that one commit makes one program.
pub(crate) const COMMIT: Option<&str> = option_env!("WINDLASS_COMMIT");
pub(crate) const COMMITTED: Option<&str> = option_env!("WINDLASS_COMMITTED");

pub(crate) fn run(form: Output) -> anyhow::Result<()> {
    let data = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "kubernetesVersion": KUBERNETES,
        "commit": COMMIT,
        "committed": COMMITTED,
        "architecture": std::env::consts::ARCH,
    });
    output::print(form, &text(COMMIT, COMMITTED), &data)
}

fn text(commit: Option<&str>, committed: Option<&str>) -> String {
    let built = match (commit, committed) {
        (Some(commit), Some(at)) => format!("commit {commit} of {at}"),
        (Some(commit), None) => format!("commit {commit}"),
        (None, _) => "no release: built by hand".to_owned(),
    };
    format!("windlass {LONG}\n{built}, {}\n", std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_by_hand_must_not_look_like_a_release() {
        assert!(text(None, None).contains("no release"));
        assert!(
            text(Some("abc"), Some("2026-01-01T00:00:00Z")).contains("commit abc of 2026-01-01T00:00:00Z")
        );
    }
}
