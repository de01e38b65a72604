//! What the cluster says: its clock, and its nodes as far as this machine may see them.

use super::PATIENCE;
use crate::check::facts::{Member, Wanted};
use crate::settings;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use node::identity::Files;

/// What the server's clock says, by the date of an answer; whose it is matters to nobody here.
pub(super) async fn clock(wanted: &Wanted) -> Option<Timestamp> {
    let mut config = kube::Config::new(wanted.server.as_ref()?.parse().ok()?);
    config.accept_invalid_certs = true;
    let client = kube::Client::try_from(config).ok()?;
    let request = http::Request::get("/version").body(kube::client::Body::empty()).ok()?;
    let answer = tokio::time::timeout(PATIENCE, client.send(request)).await.ok()?.ok()?;
    let date = answer.headers().get(http::header::DATE)?.to_str().ok()?;
    jiff::fmt::rfc2822::parse(date).ok().map(|at| at.timestamp())
}

/// The cluster's nodes: a server sees all, a node itself.
pub(super) async fn members(wanted: &Wanted, host_name: &str) -> Vec<Member> {
    let seen = async {
        let admin = settings::admin_kubeconfig(&wanted.data_dir);
        if admin.exists() {
            let nodes: Api<Node> = Api::all(crate::parts::kubeconfig::client(&admin, None).await.ok()?);
            return nodes.list(&ListParams::default()).await.ok().map(|list| list.items);
        }
        let own = Files::new(&wanted.data_dir.join("agent")).kubeconfig();
        let nodes: Api<Node> = Api::all(crate::parts::kubeconfig::client(&own, None).await.ok()?);
        let name = wanted.node_name.as_deref().unwrap_or(host_name);
        nodes.get_opt(name).await.ok()?.map(|node| vec![node])
    };
    let seen = tokio::time::timeout(PATIENCE, seen).await.ok().flatten().unwrap_or_default();
    seen.into_iter().filter_map(member).collect()
}

fn member(node: Node) -> Option<Member> {
    let status = node.status?;
    let conditions = status.conditions.unwrap_or_default();
    Some(Member {
        name: node.metadata.name?,
        machine_id: status.node_info?.machine_id,
        is_ready: conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"),
    })
}
