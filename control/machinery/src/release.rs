//! Which release of Kubernetes the whole program behaves as, stated here only.

macro_rules! release {
    () => {
        "1.36.0"
    };
}

/// The release, `1.36.0`.
pub const RELEASE: &str = release!();
/// The major part of [`RELEASE`].
pub const MAJOR: &str = "1";
/// The minor part of [`RELEASE`].
pub const MINOR: &str = "36";
/// The oldest minor release whose features can be emulated.
pub const OLDEST_MINOR: &str = "35";
/// Major and minor, as user agents and emulation versions have them: `1.36`.
pub const MAJOR_MINOR: &str = "1.36";
/// `v1.36.0`
pub const KUBERNETES: &str = concat!("v", release!());
/// What versions of components say: the release, with our own as semver metadata, which clients parse and ignore.
pub const GIT_VERSION: &str = concat!("v", release!(), "+windlass.", env!("CARGO_PKG_VERSION"));
/// For `--version`: our own version, and the release.
pub const LONG: &str = concat!(env!("CARGO_PKG_VERSION"), " (Kubernetes v", release!(), ")");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_must_not_differ_from_the_release() {
        assert_eq!(format!("{MAJOR}.{MINOR}"), MAJOR_MINOR);
        assert_eq!(RELEASE.rsplit_once('.').map(|(front, _)| front), Some(MAJOR_MINOR));
        assert_eq!(OLDEST_MINOR.parse::<u32>().unwrap() + 1, MINOR.parse::<u32>().unwrap());
    }
}
