//! Which secrets a pod may name whose account says that only its own may be mounted.

use machinery::access::Get as _;
use machinery::object;
use serde_json::Value;

/// Says that pods of an account name its own secrets only.
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

/// Whether the account says so, as Go's `ParseBool` reads it.
pub(super) fn enforced(account: &Value) -> bool {
    matches!(object::annotation(account, ENFORCE), Some("1" | "t" | "T" | "TRUE" | "true" | "True"))
}

fn named<'v>(account: &'v Value, list: &str) -> Vec<&'v str> {
    account.items(list).iter().map(|reference| reference.text("name")).collect()
}

/// Why a new pod of this account is refused.
pub(super) fn refused(account: &Value, pod: &Value) -> Option<String> {
    let (own, pulled) = (named(account, "secrets"), named(account, "imagePullSecrets"));
    let name = object::name(account);
    let no_secret = format!("is not allowed because service account {name} does not reference that secret");
    let volumes = pod.items("spec.volumes").iter().filter(|volume| volume.has("secret"));
    if let Some(secret) = volumes.map(|v| v.text("secret.secretName")).find(|s| !own.contains(s)) {
        return Some(format!("volume with secret.secretName=\"{secret}\" {no_secret}"));
    }
    let lists = [("spec.initContainers", "init container"), ("spec.containers", "container")];
    let by_variable = lists.iter().find_map(|(list, what)| of_containers(account, pod.items(list), what));
    by_variable.or_else(|| {
        let mut pulls = pod.items("spec.imagePullSecrets").iter().map(|s| s.text("name")).enumerate();
        pulls.find(|(_, secret)| !pulled.contains(secret)).map(|(index, secret)| {
            format!(
                "imagePullSecrets[{index}].name=\"{secret}\" is not allowed because service account {name} does not reference that \
                 imagePullSecret"
            )
        })
    })
}

/// Why ephemeral containers of a pod of this account are refused.
pub(super) fn refused_ephemeral(account: &Value, pod: &Value) -> Option<String> {
    of_containers(account, pod.items("spec.ephemeralContainers"), "ephemeral container")
}

fn of_containers(account: &Value, containers: &[Value], what: &str) -> Option<String> {
    let own = named(account, "secrets");
    let why = |secret: &str, container: &Value, by: String| {
        format!(
            "{what} {} with {by} referencing secret.secretName=\"{secret}\" is not allowed because service account {} does not \
             reference that secret",
            container.text("name"),
            object::name(account)
        )
    };
    containers.iter().find_map(|container| {
        let variables = container.items("env").iter().filter(|v| v.has("valueFrom.secretKeyRef"));
        let mut variables =
            variables.map(|v| (v.text("valueFrom.secretKeyRef.name"), format!("envVar {}", v.text("name"))));
        let sources = container.items("envFrom").iter().filter(|source| source.has("secretRef"));
        let mut sources = sources.map(|source| (source.text("secretRef.name"), "envFrom".to_owned()));
        let odd = |(secret, _): &(&str, String)| !own.contains(secret);
        variables.find(odd).or_else(|| sources.find(odd)).map(|(secret, by)| why(secret, container, by))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_secret_its_account_does_not_name_must_not_reach_a_pod() {
        let account = json!({"metadata": {"name": "a", "annotations": {ENFORCE: "true"}}, "secrets": [{"name": "own"}],
            "imagePullSecrets": [{"name": "pull"}]});
        assert!(enforced(&account) && !enforced(&json!({"metadata": {"annotations": {ENFORCE: "yes"}}})));
        let by_volume = |secret: &str| json!({"spec": {"volumes": [{"secret": {"secretName": secret}}]}});
        assert_eq!(refused(&account, &by_volume("own")), None);
        assert_eq!(
            refused(&account, &by_volume("x")).as_deref(),
            Some(
                "volume with secret.secretName=\"x\" is not allowed because service account a does not reference that secret"
            )
        );
        let variable =
            json!({"name": "c", "env": [{"name": "V", "valueFrom": {"secretKeyRef": {"name": "x"}}}]});
        assert_eq!(
            refused(&account, &json!({"spec": {"containers": [variable]}})).as_deref(),
            Some(
                "container c with envVar V referencing secret.secretName=\"x\" is not allowed because service account a does \
                 not reference that secret"
            )
        );
        let source = json!({"name": "c", "envFrom": [{"secretRef": {"name": "x"}}]});
        assert_eq!(
            refused_ephemeral(&account, &json!({"spec": {"ephemeralContainers": [source]}})).as_deref(),
            Some(
                "ephemeral container c with envFrom referencing secret.secretName=\"x\" is not allowed because service account a \
                 does not reference that secret"
            )
        );
        assert_eq!(
            refused(&account, &json!({"spec": {"imagePullSecrets": [{"name": "pull"}, {"name": "x"}]}}))
                .as_deref(),
            Some(
                "imagePullSecrets[1].name=\"x\" is not allowed because service account a does not reference that imagePullSecret"
            )
        );
    }
}
