//! Warnings beside the response (upstream: `WarningsOnCreate` and `WarningsOnUpdate` of each strategy).
//!
//! - `pod`, `ports`, `paths`: pods and templates; `address`: spellings of addresses; `nodes`: labels of nodes;
//!   `formats`: schemas of custom resources
//! - `kinds`: everything else; `amounts`, `write`: what they share

mod address;
mod amounts;
mod formats;
mod kinds;
mod nodes;
mod paths;
mod pod;
mod ports;
mod write;

use serde_json::Value;

use self::write::Write;
use crate::{access::Get, field::Path, resources::Resource};

/// The warnings of a written status: addresses in a spelling of their own.
pub fn status_warnings(resource: &Resource, object: &Value) -> Vec<String> {
    let lists: &[(&str, &str)] = match (resource.group, resource.kind) {
        ("", "Pod") => &[("status.podIPs", "ip"), ("status.hostIPs", "ip")],
        // Upstream names the item, not its field.
        ("", "Service") | ("networking.k8s.io", "Ingress") => &[("status.loadBalancer.ingress", "")],
        _ => &[],
    };
    let mut found = Vec::new();
    for (list, field) in lists {
        for (index, item) in object.items(list).iter().enumerate() {
            let path = Path::from(*list).index(index);
            let path = if field.is_empty() { path } else { path.child(field) };
            address::ip(&path, item.text("ip"), &mut found);
        }
    }
    found
}

/// The warnings of a written object, in the order of its fields; `old` is what a change changes.
pub fn warnings(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut found = Vec::new();
    let write = Write { object, old };
    match (resource.group, resource.kind) {
        // People do not change pods by hand, and programs do it often.
        ("", "Pod") => {
            if old.is_none() {
                write.label_name("the Pod's hostname", &mut found);
                pod::warnings(&Path::root(), object, &mut found);
            }
        }
        ("", "ReplicationController") | ("apps", "Deployment" | "ReplicaSet") => {
            write.label_name("Pod names and hostnames", &mut found);
            write.template("spec.template", &mut found);
        }
        ("apps", "DaemonSet") => {
            let changed = old.is_none_or(|old| old.at("spec.template") != object.at("spec.template"));
            if changed {
                pod::warnings(&Path::from("spec.template"), object.at("spec.template"), &mut found);
            }
        }
        ("apps", "StatefulSet") => {
            write.template("spec.template", &mut found);
            kinds::stateful_set(&write, &mut found);
        }
        ("", "PodTemplate") => write.template("template", &mut found),
        ("batch", "Job") => {
            write.label_name("Pod names and hostnames", &mut found);
            kinds::job(&write, "spec", &mut found);
        }
        ("batch", "CronJob") => {
            write.label_name("Pod names and hostnames", &mut found);
            kinds::job(&write, "spec.jobTemplate.spec", &mut found);
            kinds::schedule(&write, &mut found);
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => formats::unknown(&write, &mut found),
        (group, kind) => kinds::warnings(group, kind, &write, &mut found),
    }
    found
}
