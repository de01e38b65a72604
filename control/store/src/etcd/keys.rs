//! Keys as the engine's users name them, and as they lie in etcd.

use bytes::Bytes;

/// What every key begins with for those above the store.
const ROOT: &str = "/registry";

/// A prefix of keys with one slash in front and none behind, as upstream's `path.Join` makes it; nothing where it is only slashes.
#[must_use]
pub fn rooted(prefix: &str) -> String {
    match prefix.trim_matches('/') {
        "" => String::new(),
        prefix => format!("/{prefix}"),
    }
}

/// A key as etcd has it under `prefix`.
#[must_use]
pub fn stored(prefix: &str, key: &str) -> Bytes {
    Keys::new(prefix).stored(key)
}

/// Between the two.
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: rooted(prefix) }
    }

    /// A key, or the start of keys, as etcd has it.
    pub(super) fn stored(&self, key: &str) -> Bytes {
        match key.strip_prefix(ROOT) {
            Some(rest) => Bytes::from([self.prefix.as_str(), rest].concat()),
            None => Bytes::copy_from_slice(key.as_bytes()),
        }
    }

    /// A key of etcd's as its user names it; `None` for keys of others.
    pub(super) fn named(&self, stored: &[u8]) -> Option<String> {
        let rest = stored.strip_prefix(self.prefix.as_bytes())?;
        let rest = std::str::from_utf8(rest).ok().filter(|rest| rest.starts_with('/'))?;
        Some([ROOT, rest].concat())
    }
}

/// The first key behind all that start with `prefix`.
pub(super) fn end_of(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    everything()
}

/// A range that begins or ends here has no bound.
pub(super) fn everything() -> Bytes {
    Bytes::from_static(&[0])
}

/// The first key behind `key`.
pub(super) fn after(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lie_under_the_prefix_and_come_back() {
        for (prefix, stored) in [
            ("/registry", "/registry/pods/d/a"),
            ("registry/", "/registry/pods/d/a"),
            ("/kubernetes.io/x", "/kubernetes.io/x/pods/d/a"),
            ("/", "/pods/d/a"),
            ("", "/pods/d/a"),
        ] {
            let keys = Keys::new(prefix);
            assert_eq!(keys.stored("/registry/pods/d/a"), stored);
            assert_eq!(keys.named(stored.as_bytes()).as_deref(), Some("/registry/pods/d/a"));
        }
        assert_eq!(Keys::new("/registry").named(b"/registry2/pods/d/a"), None);
        assert_eq!(Keys::new("/registry").named(b"compact_rev_key"), None);
    }

    #[test]
    fn a_prefix_ends_before_its_neighbour() {
        assert_eq!(end_of(b"/registry/pods/"), Bytes::from("/registry/pods0"));
        assert_eq!(end_of(b"a\xff"), Bytes::from("b"));
        assert_eq!(end_of(b"\xff\xff"), everything());
        assert!(after(b"/a") > b"/a".as_slice() && after(b"/a") < b"/a\x01".as_slice());
    }
}
