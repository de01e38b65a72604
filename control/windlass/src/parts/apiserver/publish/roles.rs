//! The roles and bindings by which machines join, and those of a node's own parts: what each may, and no more.
//!
//! kubeadm's names are kubeadm's (upstream: `cmd/kubeadm/app/phases`), so that its users and tools find what they know. A node's proxy, DNS
//! and network speak as themselves ([`NodePart`]): nodes may ask for these certificates, and get nothing of what they allow.

use super::super::roles;
use super::{RBAC, ensure};
use anyhow::Context as _;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Api;
use kube::api::DeleteParams;
use pki::bootstrap::NODE_GROUP;
use pki::part::NodePart;
use serde_json::{Value, json};

const SYSTEM: &str = "kube-system";
const NODES: &str = "system:nodes";
/// The name in the certificate that kubeadm gives an API server for kubelets.
const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";
const CSR: &str = "system:certificates.k8s.io:certificatesigningrequests";
/// Nodes that may ask for their parts' certificates; whoever signs them.
const PART_CLIENT: &str = "windlass:node-part-client";
const PART_APPROVER: &str = "windlass:node-part-approver";
/// Bindings and a role by which earlier versions gave nodes themselves what their parts need.
const RETIRED_BINDINGS: [&str; 2] = ["windlass:node-proxier", "windlass:node-dns"];
const RETIRED_ROLE: &str = "windlass:node-dns";

pub(super) async fn write(client: &kube::Client) -> anyhow::Result<()> {
    let account = json!({"metadata": {"name": "kube-proxy"}});
    ensure::<ServiceAccount>(&Api::namespaced(client.clone(), SYSTEM), account).await?;
    roles::reconcile(client, &wanted()).await?;
    retire(client).await
}

/// The roles and bindings, whole.
fn wanted() -> Vec<Value> {
    let mut all: Vec<Value> = cluster_roles().into_iter().map(|role| whole("ClusterRole", role)).collect();
    all.extend(cluster_bindings().into_iter().map(|binding| whole("ClusterRoleBinding", binding)));
    let readers = readable_maps()
        .map(|(name, map, subjects)| (name, vec![rule("", "configmaps", &["get"], Some(map))], subjects));
    // what the cluster's Corefile says, as CoreDNS' pods see it in a volume
    let dns = NodePart::Dns.user();
    let followed = dns::CONFIG_MAPS.map(|map| rule("", "configmaps", &["list", "watch"], Some(map)));
    // how pods of nodes reach each other
    let network = NodePart::Network.user();
    let settings = vec![rule("", "configmaps", &["list", "watch"], Some(network::CONFIG_MAP))];
    let parts = [(dns, followed.into(), vec![user(dns)]), (network, settings, vec![user(network)])];
    for (name, rules, subjects) in readers.into_iter().chain(parts) {
        let role = json!({"metadata": {"name": name, "namespace": SYSTEM}, "rules": rules});
        let mut binding = binding("Role", name, name, subjects);
        binding["metadata"]["namespace"] = SYSTEM.into();
        all.extend([whole("Role", role), whole("RoleBinding", binding)]);
    }
    all
}

fn whole(kind: &str, mut object: Value) -> Value {
    object["apiVersion"] = format!("{RBAC}/v1").into();
    object["kind"] = kind.into();
    object["metadata"]["annotations"] = json!({"rbac.authorization.kubernetes.io/autoupdate": "true"});
    object
}

fn rule(group: &str, resources: &str, verbs: &[&str], name: Option<&str>) -> Value {
    let resources: Vec<&str> = resources.split(',').collect();
    let mut rule = json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    if let Some(name) = name {
        rule["resourceNames"] = json!([name]);
    }
    rule
}

fn group(name: &str) -> Value {
    json!({"apiGroup": RBAC, "kind": "Group", "name": name})
}

fn user(name: &str) -> Value {
    json!({"apiGroup": RBAC, "kind": "User", "name": name})
}

fn account(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "namespace": SYSTEM, "name": name})
}

fn binding(kind: &str, name: &str, role: &str, subjects: Vec<Value>) -> Value {
    json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role},
        "subjects": subjects,
    })
}

fn cluster_roles() -> Vec<Value> {
    const CERTIFICATES: &str = "certificates.k8s.io";
    let follow = ["list", "watch"];
    let parts = [
        (
            NodePart::Dns,
            vec![
                rule("", "namespaces,services", &follow, None),
                rule("discovery.k8s.io", "endpointslices", &follow, None),
            ],
        ),
        (
            NodePart::Network,
            vec![
                rule("", "namespaces,nodes,pods", &follow, None),
                rule("networking.k8s.io", "networkpolicies", &follow, None),
                rule("events.k8s.io", "events", &["create", "patch", "update"], None),
                rule("", "events", &["create", "patch", "update"], None),
            ],
        ),
    ];
    let mut roles = vec![
        ("kubeadm:get-nodes", vec![rule("", "nodes", &["get"], None)]),
        (
            PART_CLIENT,
            vec![rule(CERTIFICATES, "certificatesigningrequests/nodepartclient", &["create"], None)],
        ),
        (
            PART_APPROVER,
            // upstream's role for this account knows the kubelets' client certificates only
            ["kubernetes.io/kube-apiserver-client", "kubernetes.io/kubelet-serving"]
                .map(|signer| rule(CERTIFICATES, "signers", &["approve"], Some(signer)))
                .into(),
        ),
    ];
    roles.extend(parts.map(|(part, rules)| (part.user(), rules)));
    roles.into_iter().map(|(name, rules)| json!({"metadata": {"name": name}, "rules": rules})).collect()
}

fn cluster_bindings() -> Vec<Value> {
    let bind = |name: &str, role: &str, subject: Value| binding("ClusterRole", name, role, vec![subject]);
    vec![
        // administrators by kubeadm's kubeconfigs
        bind("kubeadm:cluster-admins", "cluster-admin", group("kubeadm:cluster-admins")),
        // API servers of kubeadm 1.36 and later at kubelets; until then theirs were among the administrators
        bind("kubeadm:apiserver-kubelet-client", "system:kubelet-api-admin", user(KUBELET_CLIENT)),
        bind("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", group(NODE_GROUP)),
        bind("kubeadm:node-autoapprove-bootstrap", &format!("{CSR}:nodeclient"), group(NODE_GROUP)),
        bind("kubeadm:node-autoapprove-certificate-rotation", &format!("{CSR}:selfnodeclient"), group(NODES)),
        bind("kubeadm:get-nodes", "kubeadm:get-nodes", group(NODE_GROUP)),
        bind("kubeadm:node-proxier", "system:node-proxier", account("kube-proxy")),
        bind(PART_CLIENT, PART_CLIENT, group(NODES)),
        bind(PART_APPROVER, PART_APPROVER, account("certificate-controller")),
        bind(NodePart::Dns.user(), NodePart::Dns.user(), user(NodePart::Dns.user())),
        bind(NodePart::Network.user(), NodePart::Network.user(), user(NodePart::Network.user())),
    ]
}

/// Role, the ConfigMap it lets one read, and who that is.
fn readable_maps() -> [(&'static str, &'static str, Vec<Value>); 3] {
    let (joining, joined) = (group(NODE_GROUP), group(NODES));
    [
        ("kubeadm:nodes-kubeadm-config", "kubeadm-config", vec![joining.clone(), joined.clone()]),
        ("kubeadm:kubelet-config", "kubelet-config", vec![joined, joining.clone()]),
        ("kube-proxy", "kube-proxy", vec![joining]),
    ]
}

async fn retire(client: &kube::Client) -> anyhow::Result<()> {
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    let roles: Api<ClusterRole> = Api::all(client.clone());
    for name in RETIRED_BINDINGS {
        gone(bindings.delete(name, &DeleteParams::default()).await.map(drop))
            .with_context(|| format!("delete cluster role binding {name}"))?;
    }
    gone(roles.delete(RETIRED_ROLE, &DeleteParams::default()).await.map(drop))
        .with_context(|| format!("delete cluster role {RETIRED_ROLE}"))
}

fn gone(deleted: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match deleted {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        deleted => deleted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_must_not_be_given_what_its_parts_may() {
        let nodes = |binding: &Value| {
            binding["subjects"].as_array().unwrap().iter().any(|subject| *subject == group(NODES))
        };
        let given: Vec<Value> = cluster_bindings().into_iter().filter(nodes).collect();
        let roles: Vec<&str> = given.iter().map(|b| b["roleRef"]["name"].as_str().unwrap()).collect();
        assert_eq!(roles, [format!("{CSR}:selfnodeclient").as_str(), PART_CLIENT]);
        let role = cluster_roles().into_iter().find(|role| role["metadata"]["name"] == PART_CLIENT).unwrap();
        // a resource that is only ever asked about
        let only =
            rule("certificates.k8s.io", "certificatesigningrequests/nodepartclient", &["create"], None);
        assert_eq!(role["rules"], json!([only]));
    }

    #[test]
    fn an_approver_with_an_account_of_its_own_must_not_be_refused() {
        use pki::signer::Signer;
        let mut rules = Vec::new();
        for object in apiserver::bootstrap::objects().iter().cloned().chain(wanted()) {
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            if object["kind"] == "ClusterRole"
                && [PART_APPROVER, "system:controller:certificate-controller"].contains(&name.as_str())
            {
                rules.extend(object["rules"].as_array().cloned().unwrap());
            }
        }
        for signer in [Signer::ApiServerClient, Signer::ApiServerClientKubelet, Signer::KubeletServing] {
            let approves = |rule: &Value| {
                rule["verbs"].as_array().unwrap().contains(&json!("approve"))
                    && rule["resourceNames"].as_array().unwrap().contains(&json!(signer.name()))
            };
            assert!(rules.iter().any(approves), "{}", signer.name());
        }
    }

    #[test]
    fn dns_must_not_read_other_maps_than_its_corefiles() {
        let all = wanted();
        let own = |kind: &str| {
            all.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == "windlass:dns").unwrap().clone()
        };
        assert_eq!(own("Role")["metadata"]["namespace"], "kube-system");
        for (rule, map) in own("Role")["rules"].as_array().unwrap().iter().zip(["coredns", "coredns-custom"])
        {
            assert_eq!((&rule["resources"], &rule["resourceNames"]), (&json!(["configmaps"]), &json!([map])));
        }
        assert_eq!(own("RoleBinding")["subjects"], json!([user("windlass:dns")]));
        let cluster_wide = own("ClusterRole").to_string();
        assert!(!cluster_wide.contains("configmaps"), "{cluster_wide}");
    }

    #[test]
    fn the_pod_network_must_see_what_policies_speak_of_and_change_none_of_it() {
        let role = cluster_roles()
            .into_iter()
            .find(|role| role["metadata"]["name"] == NodePart::Network.user())
            .unwrap();
        let mut seen = Vec::new();
        for rule in role["rules"].as_array().unwrap() {
            let resources = rule["resources"].as_array().unwrap();
            if rule["verbs"] == json!(["list", "watch"]) {
                seen.extend(resources.iter().filter_map(Value::as_str));
            } else {
                assert_eq!(*resources, [json!("events")], "{rule}");
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, ["namespaces", "networkpolicies", "nodes", "pods"]);
    }

    #[test]
    fn each_part_has_a_role_by_its_name() {
        for part in [NodePart::Dns, NodePart::Network] {
            let bound =
                cluster_bindings().into_iter().find(|b| b["metadata"]["name"] == part.user()).unwrap();
            assert_eq!(bound["subjects"], json!([user(part.user())]));
            let role = cluster_roles().into_iter().find(|r| r["metadata"]["name"] == part.user()).unwrap();
            let verbs = role["rules"].as_array().unwrap().iter().flat_map(|r| r["verbs"].as_array().unwrap());
            assert!(verbs.into_iter().all(|verb| verb != "get" && verb != "delete"));
        }
        let proxy = apiserver::bootstrap::objects()
            .iter()
            .find(|o| o["kind"] == "ClusterRoleBinding" && o["metadata"]["name"] == "system:node-proxier");
        assert_eq!(proxy.unwrap()["subjects"], json!([user(NodePart::Proxy.user())]));
    }
}
