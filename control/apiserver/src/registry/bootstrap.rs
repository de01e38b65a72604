//! What every cluster holds from its first moment: system namespaces, system priority classes, the service ranges.

use super::Registry;
use super::create::Call;
use super::kind::Kind;
use super::run::StartError;
use super::update::Change;
use crate::context::{Context, User};
use machinery::object;
use machinery::status::Status;
use serde_json::{Value, json};

/// `kube-node-lease` holds the nodes' heartbeats.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// The context of the server's own writes.
pub(super) fn own_context() -> Context {
    let user = User {
        name: "system:apiserver".to_owned(),
        groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
        ..User::default()
    };
    Context { user, user_agent: "windlass".to_owned(), ..Context::default() }
}

fn priority_class(name: &str, value: i64, description: &str) -> Value {
    json!({
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "description": description,
        "preemptionPolicy": "PreemptLowerPriority",
    })
}

impl Registry {
    /// Makes `object` unless something of its name is there.
    pub(super) async fn ensure(&self, kind: &Kind, object: Value) -> Result<(), Status> {
        let (namespace, name) = (object::namespace(&object).to_owned(), object::name(&object).to_owned());
        if self.entry(kind, &namespace, &name).await?.is_some() {
            return Ok(());
        }
        let context = own_context();
        let call = Call {
            context: &context,
            kind: *kind,
            namespace,
            name,
            subresource: "",
            options: super::options::WriteOptions::default(),
            warnings: super::create::Warnings::default(),
            seen: crate::admission::Seen::Already,
        };
        let mut object = object;
        kind.default(&mut object);
        match self.create(&call, object).await {
            Err(e) if e.code == 409 => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Changes an object of the server's own.
    pub(super) async fn amend(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        subresource: &'static str,
        change: &Change<'_>,
    ) -> Result<Value, Status> {
        let context = own_context();
        let call = Call {
            context: &context,
            kind: *kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource,
            options: super::options::WriteOptions::default(),
            warnings: super::create::Warnings::default(),
            seen: crate::admission::Seen::Already,
        };
        self.update(&call, change, None).await.map(|u| u.object)
    }

    pub(super) async fn bootstrap(&self) -> Result<(), StartError> {
        let mut objects = Vec::new();
        for name in NAMESPACES {
            let namespace =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "spec": {}});
            objects.push((Kind::of("", "namespaces"), namespace));
        }
        let classes = Kind::of("scheduling.k8s.io", "priorityclasses");
        objects.push((
            classes,
            priority_class(
                "system-node-critical",
                2_000_001_000,
                "Used for system critical pods that must not be moved from their current node.",
            ),
        ));
        objects.push((
            classes,
            priority_class(
                "system-cluster-critical",
                2_000_000_000,
                "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
            ),
        ));
        let ranges: Vec<String> = self.config.service_cidrs.iter().map(|n| n.trunc().to_string()).collect();
        objects.push((
            Kind::of("networking.k8s.io", "servicecidrs"),
            json!({
                "apiVersion": "networking.k8s.io/v1",
                "kind": "ServiceCIDR",
                "metadata": {"name": "kubernetes"},
                "spec": {"cidrs": ranges},
            }),
        ));
        for (kind, object) in objects {
            let Some(kind) = kind else { continue };
            let what = format!("{} {}", object::kind(&object), object::name(&object));
            self.ensure(&kind, object).await.map_err(|source| StartError::Bootstrap { what, source })?;
        }
        Ok(())
    }
}
