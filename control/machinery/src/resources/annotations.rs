//! AppArmor profiles as annotations, which older clients still send (upstream: `pkg/api/pod`, `ApparmorFieldForAnnotation`).

use serde_json::{Value, json};

/// What annotations of a container's AppArmor profile begin with; its name follows.
pub(crate) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Whether it is written as one; upstream takes nothing, too.
pub(crate) fn is_app_armor(annotation: &str) -> bool {
    matches!(annotation, "" | "runtime/default" | "unconfined") || annotation.starts_with("localhost/")
}

/// The field that says what such an annotation says; none where it says nothing a profile is.
pub(crate) fn app_armor_profile(annotation: &str) -> Option<Value> {
    match annotation {
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        "unconfined" => Some(json!({"type": "Unconfined"})),
        _ => {
            let local = annotation.strip_prefix("localhost/").filter(|name| !name.is_empty())?;
            Some(json!({"type": "Localhost", "localhostProfile": local}))
        }
    }
}

/// Whether a profile made of an annotation is one a field may hold.
pub(crate) fn is_valid_profile(profile: &Value) -> bool {
    /// One byte less than the longest path.
    const MAX: usize = 4095;
    let local = profile.get("localhostProfile").and_then(Value::as_str);
    local.is_none_or(|name| !name.is_empty() && name.trim() == name && name.len() <= MAX)
}
