//! Services outside that have a say in scheduling, asked over HTTP. Upstream: `pkg/scheduler/extender.go`; what is sent and
//! answered: `k8s.io/kube-scheduler/extender/v1`, whose names Go reads in any case, and we do.

pub use crate::extenders::{Config, TIMEOUT, Tls};

use crate::fit::{FitError, Plugin, Refusal};
use crate::model::{NodeInfo, Pod};
use crate::preempt::Plan;
use kube::client::Body;
use kube::config::AuthInfo;
use parking_lot::RwLock;
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// What of an extender's scores is worth a plugin's: those go to 100, these to 10.
const SCALE: i64 = 10;

/// An extender that cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("extender {url}: {reason}")]
pub struct Unusable {
    url: String,
    reason: String,
}

/// Pods and nodes as the API has them, which is how extenders want them. They are written while extenders are asked, who see each as it
/// is at that moment: what would be one state for all of an attempt would be a copy of everything for each.
#[derive(Debug, Default)]
pub(crate) struct Raw {
    /// By uid.
    pods: RwLock<HashMap<String, Arc<Value>>>,
    /// By name.
    nodes: RwLock<HashMap<String, Arc<Value>>>,
}

impl Raw {
    pub(crate) fn set_pod(&self, uid: &str, pod: Arc<Value>) {
        self.pods.write().insert(uid.to_owned(), pod);
    }

    pub(crate) fn remove_pod(&self, uid: &str) {
        self.pods.write().remove(uid);
    }

    pub(crate) fn set_node(&self, name: &str, node: Arc<Value>) {
        self.nodes.write().insert(name.to_owned(), node);
    }

    pub(crate) fn remove_node(&self, name: &str) {
        self.nodes.write().remove(name);
    }

    fn pod(&self, uid: &str) -> Arc<Value> {
        self.pods.read().get(uid).cloned().unwrap_or_default()
    }

    fn node(&self, name: &str) -> Option<Arc<Value>> {
        self.nodes.read().get(name).cloned()
    }
}

/// An extender that may be asked.
pub(crate) struct Extender {
    config: Config,
    client: kube::Client,
    /// The URL's path.
    base: String,
}

impl Extender {
    pub(crate) fn new(config: Config) -> Result<Self, Unusable> {
        let failed = |reason: String| Unusable { url: config.url.clone(), reason };
        let url: http::Uri = config.url.parse().map_err(|e: http::uri::InvalidUri| failed(e.to_string()))?;
        let base = url.path().trim_end_matches('/').to_owned();
        let mut parts = url.into_parts();
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
        let root = http::Uri::from_parts(parts).map_err(|e| failed(e.to_string()))?;
        let mut settings = kube::Config::new(root);
        let Tls { insecure, server_name, authorities, identity } = config.tls.clone();
        settings.accept_invalid_certs = insecure;
        settings.tls_server_name = server_name;
        settings.root_cert = Some(authorities).filter(|all| !all.is_empty());
        if let Some((certificate, key)) = identity {
            let shown = json!({"client-certificate-data": certificate, "client-key-data": key});
            settings.auth_info =
                serde_json::from_value::<AuthInfo>(shown).map_err(|e| failed(e.to_string()))?;
        }
        let client = kube::Client::try_from(settings).map_err(|e| failed(e.to_string()))?;
        Ok(Self { config, client, base })
    }

    #[cfg(test)]
    pub(crate) fn for_test(config: Config, client: kube::Client) -> Self {
        let base = "/x".to_owned();
        Self { config, client, base }
    }

    pub(crate) fn is_ignorable(&self) -> bool {
        self.config.ignorable
    }

    pub(crate) fn binds(&self) -> bool {
        !self.config.bind.is_empty()
    }

    pub(crate) fn preempts(&self) -> bool {
        !self.config.preempt.is_empty()
    }

    /// Whether it has a say about this pod.
    pub(crate) fn is_interested(&self, raw: &Raw, uid: &str) -> bool {
        self.config.managed.is_empty() || asks_for(&raw.pod(uid), &self.config.managed)
    }

    /// The nodes that it leaves; of the others it says why.
    pub(crate) async fn filter(
        &self,
        raw: &Raw,
        uid: &str,
        nodes: Vec<Arc<NodeInfo>>,
        error: &mut FitError,
    ) -> Result<Vec<Arc<NodeInfo>>, String> {
        if self.config.filter.is_empty() {
            return Ok(nodes);
        }
        let answer = self.send(&self.config.filter, &self.question(raw, uid, &nodes)).await?;
        let said = field(&answer, "Error").as_str().unwrap_or_default();
        if !said.is_empty() {
            return Err(said.to_owned());
        }
        let names = match (field(&answer, "NodeNames"), field(&answer, "Nodes")) {
            (Value::Array(names), _) if self.config.cached => {
                names.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            (_, list) => node_names(list),
        };
        let left = names.into_iter().map(|name| {
            let found = nodes.iter().find(|node| node.name == name).cloned();
            found.ok_or_else(|| {
                let url = &self.config.url;
                format!("extender {url:?} claims a filtered node {name:?} which is not found in the input node list")
            })
        });
        let left = left.collect::<Result<Vec<_>, String>>()?;
        for (list, preemptable) in [("FailedNodes", true), ("FailedAndUnresolvableNodes", false)] {
            for (name, why) in field(&answer, list).as_object().into_iter().flatten() {
                let reasons = vec![why.as_str().unwrap_or_default().to_owned()];
                error
                    .refusals
                    .insert(name.clone(), Refusal { plugin: Plugin::Extender, reasons, preemptable });
            }
        }
        // One that is refused without a word is refused all the same.
        for node in nodes.iter().filter(|node| left.iter().all(|kept| kept.name != node.name)) {
            error.refusals.entry(node.name.clone()).or_insert_with(|| Refusal {
                plugin: Plugin::Extender,
                reasons: Vec::new(),
                preemptable: true,
            });
        }
        Ok(left)
    }

    /// What it adds to the scores of nodes, by their names.
    pub(crate) async fn prioritize(
        &self,
        raw: &Raw,
        uid: &str,
        nodes: &[Arc<NodeInfo>],
    ) -> Result<HashMap<String, i64>, String> {
        if self.config.prioritize.is_empty() {
            return Ok(HashMap::new());
        }
        let answer = self.send(&self.config.prioritize, &self.question(raw, uid, nodes)).await?;
        let score = |item: &Value| {
            let score = field(item, "Score").as_i64()?;
            let worth = score.saturating_mul(self.config.weight).saturating_mul(SCALE);
            Some((field(item, "Host").as_str()?.to_owned(), worth))
        };
        Ok(answer.as_array().into_iter().flatten().filter_map(score).collect())
    }

    /// Has it bind a pod.
    pub(crate) async fn bind(&self, pod: &Pod, node: &str) -> Result<(), String> {
        let question =
            json!({"PodName": pod.name, "PodNamespace": pod.namespace, "PodUID": pod.uid, "Node": node});
        let answer = self.send(&self.config.bind, &question).await?;
        match field(&answer, "Error").as_str().unwrap_or_default() {
            "" => Ok(()),
            said => Err(said.to_owned()),
        }
    }

    /// Which of the plans it agrees with, with which victims.
    pub(crate) async fn preempt(
        &self,
        raw: &Raw,
        uid: &str,
        plans: Vec<Plan>,
        nodes: &[Arc<NodeInfo>],
    ) -> Result<Vec<Plan>, String> {
        let mut victims = Map::new();
        for plan in &plans {
            let one = |pod: &Arc<Pod>| match self.config.cached {
                true => json!({"UID": pod.uid}),
                false => (*raw.pod(&pod.uid)).clone(),
            };
            let pods: Vec<Value> = plan.victims.iter().map(one).collect();
            victims.insert(plan.node.clone(), json!({"Pods": pods, "NumPDBViolations": plan.violations}));
        }
        let (whole, meta) = match self.config.cached {
            true => (Value::Null, Value::Object(victims)),
            false => (Value::Object(victims), Value::Null),
        };
        let question =
            json!({"Pod": *raw.pod(uid), "NodeNameToVictims": whole, "NodeNameToMetaVictims": meta});
        let answer = self.send(&self.config.preempt, &question).await?;
        let mut agreed = Vec::new();
        for (name, said) in field(&answer, "NodeNameToMetaVictims").as_object().into_iter().flatten() {
            let Some(node) = nodes.iter().find(|node| node.name == *name) else {
                return Err(format!("nodeinfo not found for node name {name:?}"));
            };
            let mut victims = Vec::new();
            for pod in field(said, "Pods").as_array().into_iter().flatten() {
                let uid = field(pod, "UID").as_str().unwrap_or_default();
                let found = node.pods.iter().find(|pod| pod.uid == uid).cloned();
                victims.push(found.ok_or_else(|| {
                    let url = &self.config.url;
                    format!("extender: {url} claims to preempt pod (UID: {uid}) on node: {name}, but the pod is not found on that node")
                })?);
            }
            if victims.is_empty() {
                if self.config.ignorable {
                    continue;
                }
                return Err(format!("expected at least one victim pod on node {name:?}"));
            }
            let violations = field(said, "NumPDBViolations").as_u64().unwrap_or(0);
            let violations = usize::try_from(violations).unwrap_or(usize::MAX);
            agreed.push(Plan { node: name.clone(), victims, violations });
        }
        Ok(agreed)
    }

    /// The pod and the nodes, as both verbs about nodes have them.
    fn question(&self, raw: &Raw, uid: &str, nodes: &[Arc<NodeInfo>]) -> Value {
        let names = || nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
        let items = || nodes.iter().filter_map(|node| raw.node(&node.name)).map(|node| (*node).clone());
        let (nodes, names) = match self.config.cached {
            true => (Value::Null, json!(names())),
            false => (json!({"metadata": {}, "items": items().collect::<Vec<_>>()}), Value::Null),
        };
        json!({"Pod": *raw.pod(uid), "Nodes": nodes, "NodeNames": names})
    }

    async fn send(&self, verb: &str, question: &Value) -> Result<Value, String> {
        let request = http::Request::post(format!("{}/{verb}", self.base))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Body::from(question.to_string().into_bytes()))
            .map_err(|e| e.to_string())?;
        let url = format!("{}/{verb}", self.config.url.trim_end_matches('/'));
        let exchange = async {
            let response = self.client.send(request).await.map_err(|e| format!("Post {url:?}: {e}"))?;
            let code = response.status().as_u16();
            if code != 200 {
                return Err(format!("failed {verb} with extender at URL {url}, code {code}"));
            }
            let body =
                response.into_body().collect_bytes().await.map_err(|e| format!("Post {url:?}: {e}"))?;
            serde_json::from_slice(&body).map_err(|e| format!("Post {url:?}: {e}"))
        };
        let late = || Err(format!("Post {url:?}: context deadline exceeded"));
        tokio::time::timeout(self.config.timeout, exchange).await.unwrap_or_else(|_| late())
    }
}

/// A field of an answer, whatever the case of its name.
fn field<'v>(value: &'v Value, name: &str) -> &'v Value {
    let Some(fields) = value.as_object() else { return &Value::Null };
    let loose = || fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    fields.get(name).or_else(loose).unwrap_or(&Value::Null)
}

fn node_names(list: &Value) -> Vec<String> {
    let name = |node: &Value| node["metadata"]["name"].as_str().map(str::to_owned);
    field(list, "items").as_array().into_iter().flatten().filter_map(name).collect()
}

/// Whether a container of the pod asks for one of these.
fn asks_for(pod: &Value, managed: &BTreeSet<String>) -> bool {
    ["containers", "initContainers"].iter().any(|list| {
        pod["spec"][list].as_array().into_iter().flatten().any(|container| {
            ["requests", "limits"].iter().any(|kind| {
                let amounts = container["resources"][kind].as_object();
                amounts.into_iter().flatten().any(|(name, _)| managed.contains(name))
            })
        })
    })
}

#[cfg(test)]
mod tests;
