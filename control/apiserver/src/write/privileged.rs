//! Whether containers may be privileged (upstream: `pkg/capabilities`, asked by the validation of every pod and of every template of pods).

use crate::registry::kind::Kind;
use machinery::access::Get as _;
use machinery::field::{FieldError, Path};
use machinery::resources::strategy::pod_spec;
use serde_json::Value;

/// Subresources through which a pod is validated as a whole.
const WHOLE: [&str; 3] = ["", "ephemeralcontainers", "resize"];

/// The refusal of each container that is privileged.
pub(super) fn refused(kind: &Kind, subresource: &str, object: &Value) -> Vec<FieldError> {
    let Some(path) = pod_spec(kind.resource).filter(|_| WHOLE.contains(&subresource)) else {
        return Vec::new();
    };
    let Some(spec) = object.present(path) else { return Vec::new() };
    let mut names = path.split('.');
    let root = Path::new(names.next().unwrap_or_default());
    let root = names.fold(root, |path, name| path.child(name));
    let mut errors = Vec::new();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in spec.items(list).iter().enumerate() {
            if container.present("securityContext.privileged") == Some(&Value::Bool(true)) {
                let at = root.child(list).index(index).child("securityContext").child("privileged");
                errors.push(FieldError::forbidden(&at, "disallowed by cluster policy"));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_container_of_any_kind_of_pod_may_be_privileged() {
        let privileged = json!({"name": "c", "securityContext": {"privileged": true}});
        let plain = json!({"name": "d", "securityContext": {"privileged": false}});
        let spec = json!({"containers": [plain, privileged], "initContainers": [privileged]});
        for (group, plural, object, first) in [
            ("", "pods", json!({"spec": spec}), "spec.initContainers[0].securityContext.privileged"),
            (
                "batch",
                "cronjobs",
                json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}}),
                "spec.jobTemplate.spec.template.spec.initContainers[0].securityContext.privileged",
            ),
        ] {
            let kind = Kind::of(group, plural).unwrap();
            let errors: Vec<String> = refused(&kind, "", &object).iter().map(ToString::to_string).collect();
            assert_eq!(errors.len(), 2, "{errors:?}");
            assert_eq!(errors[0], format!("{first}: Forbidden: disallowed by cluster policy"));
            assert!(refused(&kind, "status", &object).is_empty());
        }
        let map = Kind::of("", "configmaps").unwrap();
        assert!(refused(&map, "", &json!({"spec": spec})).is_empty());
    }
}
