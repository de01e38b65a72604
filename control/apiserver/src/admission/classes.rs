//! Which class of a kind is the default one.

use crate::registry::Registry;
use crate::registry::kind::Kind;
use machinery::object;
use machinery::status::Status;
use serde_json::Value;

/// The name of the class one of `annotations` marks: the newest, and of equally old ones the first by name.
pub(super) async fn by_default(
    registry: &Registry,
    (group, plural): (&str, &str),
    annotations: &[&str],
) -> Result<Option<String>, Status> {
    let Some(kind) = Kind::of(group, plural) else { return Ok(None) };
    Ok(choose(&registry.current(&kind, "").await?, annotations))
}

fn choose(classes: &[Value], annotations: &[&str]) -> Option<String> {
    let is_default =
        |class: &&Value| annotations.iter().any(|a| object::annotation(class, a) == Some("true"));
    let best = classes.iter().filter(is_default).min_by(|x, y| {
        object::creation_timestamp(y)
            .cmp(object::creation_timestamp(x))
            .then_with(|| object::name(x).cmp(object::name(y)))
    });
    best.map(|class| object::name(class).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_older_default_class_must_not_win_over_a_newer_one() {
        let class = |name: &str, made: &str, default: &str| json!({"metadata": {"name": name, "creationTimestamp": made, "annotations": {"default": default}}});
        let classes = [
            class("old", "2026-01-01T00:00:00Z", "true"),
            class("new-b", "2026-02-01T00:00:00Z", "true"),
            class("new-a", "2026-02-01T00:00:00Z", "true"),
            class("newest", "2026-03-01T00:00:00Z", "false"),
        ];
        assert_eq!(choose(&classes, &["other", "default"]).as_deref(), Some("new-a"));
        assert_eq!(choose(&classes, &["other"]), None);
    }
}
