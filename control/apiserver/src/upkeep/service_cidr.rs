//! The ServiceCIDR named `kubernetes`: the ranges this server was started with.
//!
//! Woken every ten seconds. Reads and writes it. Promises that it is there, and that it is ready where nobody has said otherwise; one of
//! other ranges stays as it is, but for a second range that a cluster got. Upstream: `pkg/controlplane/controller/defaultservicecidr`.

use super::reconcile::say;
use crate::registry::kind::Kind;
use crate::registry::metadata::deleting;
use crate::write::Writer;
use ipnet::IpNet;
use machinery::access::{Get as _, set_at};
use machinery::object;
use machinery::status::Status;
use serde_json::{Value, json};
use std::time::Duration;

const NAME: &str = "kubernetes";
const COMPONENT: &str = "kubernetes-service-cidr-controller";
const EVERY: Duration = Duration::from_secs(10);

/// The object of a cluster with these ranges.
pub(super) fn object(ranges: &[IpNet]) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": NAME},
        "spec": {"cidrs": texts(ranges)},
    })
}

fn texts(ranges: &[IpNet]) -> Vec<String> {
    ranges.iter().map(|n| n.trunc().to_string()).collect()
}

/// What is to be done about a stored one.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// It gets the second range.
    Widen,
    Ready,
    /// It has other ranges than this server.
    Differs,
}

fn step(stored: &Value, own: &[String]) -> Step {
    let cidrs: Vec<&str> = stored.items("spec.cidrs").iter().filter_map(Value::as_str).collect();
    if let ([first, _], [one]) = (own, cidrs.as_slice())
        && first == one
    {
        return Step::Widen;
    }
    if deleting(stored) {
        return Step::Nothing;
    }
    if cidrs != own {
        return Step::Differs;
    }
    let mut conditions = stored.items("status.conditions").iter();
    match conditions.find(|c| c.text("type") == "Ready").map(|c| c.text("status")) {
        None | Some("Unknown") => Step::Ready,
        Some(_) => Step::Nothing,
    }
}

/// Goes on until it is dropped.
pub(super) async fn keep(writer: &Writer) {
    let mut told = false;
    loop {
        if let Err(error) = look(writer, &mut told).await {
            tracing::warn!(%error, "keep the default service range");
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn look(writer: &Writer, told: &mut bool) -> Result<(), Status> {
    let Some(kind) = Kind::of("networking.k8s.io", "servicecidrs") else { return Ok(()) };
    let ranges = &writer.registry.config.service_cidrs;
    let own = texts(ranges);
    let Some(stored) = writer.registry.lookup(&kind, "", NAME).await? else {
        return writer.ensure(&kind, object(ranges)).await;
    };
    match step(&stored, &own) {
        Step::Nothing => Ok(()),
        Step::Widen => {
            let change = |old: &Value| {
                let mut new = old.clone();
                object::set_resource_version(&mut new, "");
                set_at(&mut new, "spec.cidrs", json!(own));
                Ok(new)
            };
            writer.amend(&kind, "", NAME, "", &change).await.map(drop)
        }
        Step::Ready => {
            let ready = json!({"type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready"});
            say(writer, &kind, &stored, &ready).await
        }
        Step::Differs => {
            if !std::mem::replace(told, true) {
                let theirs: Vec<&str> = stored.items("spec.cidrs").iter().filter_map(Value::as_str).collect();
                let note = format!(
                    "The default ServiceCIDR [{}] does not match the controller flag configurations [{}]",
                    theirs.join(" "),
                    own.join(" ")
                );
                writer.warn_of(COMPONENT, &stored, "KubernetesDefaultServiceCIDRInconsistent", "", note);
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_has_said_is_said() {
        let own = ["10.96.0.0/12".to_owned(), "fd00::/112".to_owned()];
        let with = |cidrs: &[&str], ready: Option<&str>| {
            let conditions: Vec<Value> =
                ready.iter().map(|s| json!({"type": "Ready", "status": s})).collect();
            json!({"spec": {"cidrs": cidrs}, "status": {"conditions": conditions}})
        };
        let both = ["10.96.0.0/12", "fd00::/112"];
        assert_eq!(step(&with(&both, None), &own), Step::Ready);
        assert_eq!(step(&with(&both, Some("Unknown")), &own), Step::Ready);
        assert_eq!(step(&with(&both, Some("False")), &own), Step::Nothing);
        assert_eq!(step(&with(&both[..1], Some("True")), &own), Step::Widen);
        assert_eq!(step(&with(&both[1..], None), &own), Step::Differs);
        assert_eq!(step(&with(&both, None), &own[..1]), Step::Differs);
    }
}
