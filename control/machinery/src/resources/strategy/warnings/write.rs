//! What a write is to those who warn of it.

use serde_json::Value;

use super::pod;
use crate::{access::Get, field::Path, names};

/// A write, as warnings see it.
pub(super) struct Write<'a> {
    pub(super) object: &'a Value,
    pub(super) old: Option<&'a Value>,
}

impl Write<'_> {
    /// Whether it changes what its kind counts changes of.
    pub(super) fn counts(&self) -> bool {
        let generation = |object: &Value| object.int("metadata.generation");
        self.old.is_none_or(|old| generation(old) != generation(self.object))
    }

    /// Warns of a new object's name that makes no good host name.
    pub(super) fn label_name(&self, used_in: &str, found: &mut Vec<String>) {
        let errors = names::dns1123_label(self.object.text("metadata.name"));
        if self.old.is_none() && !errors.is_empty() {
            found.push(format!(
                "metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is \
                 recommended: [{}]",
                errors.join(" ")
            ));
        }
    }

    /// Warns of the template of pods at `path`, where it may have changed.
    pub(super) fn template(&self, path: &str, found: &mut Vec<String>) {
        if self.counts() {
            pod::warnings(&Path::from(path), self.object.at(path), found);
        }
    }
}
