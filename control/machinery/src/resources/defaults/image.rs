//! An image reference's tag decides how often it is pulled.

/// Whether a reference means the tag `latest`: it names that tag, or neither a tag nor a digest.
pub(crate) fn has_latest_tag(image: &str) -> bool {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    // A colon before the last slash is a registry's port.
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    match name.get(start..).and_then(|last| last.split_once(':')) {
        Some((_, tag)) => tag == "latest",
        None => digest.is_none() && !name.is_empty(),
    }
}

/// The pull policy of an image whose user chose none.
pub(super) fn pull_policy(image: &str) -> &'static str {
    if has_latest_tag(image) { "Always" } else { "IfNotPresent" }
}
