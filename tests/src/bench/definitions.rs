//! Custom resource definitions by the hundred, each as large as a big operator's: how soon they are served, what they cost while they lie
//! there, and what a server's start and their end cost. Lists of custom objects are held against the same lists of ConfigMaps.

use super::cluster::Cluster;
use super::figure::{Promise, Report};
use super::process;
use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams, WatchEvent,
    WatchParams,
};
use kube::{Api, Client, ResourceExt};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::pin::pin;
use std::time::{Duration, Instant};

/// Definitions, and how many of a group there are.
const DEFINITIONS: usize = 700;
const PER_GROUP: usize = 20;
/// Requests at once, as `kubectl apply` of one user and a controller or two would have them.
const AT_ONCE: usize = 4;
/// Custom objects that are listed, each about a kilobyte.
const OBJECTS: usize = 1000;
const LISTS: usize = 15;
/// From the answer to the creation until the definition is served.
const ESTABLISHED: Promise = Promise::AtMost(100.0);
/// From the process's start until it says that it is ready.
const READY: Promise = Promise::AtMost(2000.0);
/// KiB of memory a definition.
const RESIDENT: Promise = Promise::AtMost(200.0);
/// OpenAPI v3 of one group version that nobody asked for before.
const DESCRIBED: Promise = Promise::AtMost(10.0);
/// Anything here that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(600);

/// All of it, with the definitions gone at the end.
///
/// # Errors
/// A request failed, or a definition is not served.
pub async fn measure(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let client = &cluster.client;
    let definitions: Api<DynamicObject> = Api::all_with(client.clone(), &definition_resource());
    let before = process::resident(cluster, "server")?;
    established(&definitions, report).await?;
    let with = process::settled(cluster, "server").await?;
    let each = (with - before) * 1024.0 / DEFINITIONS as f64;
    report.plain("memory a definition", "KiB", &[each], Some(RESIDENT))?;
    described(client, report).await?;
    objects(client, report).await?;
    let restarted = super::cluster::restart_until_ready(cluster).await?;
    report.plain(
        format!("restart with {DEFINITIONS} definitions until ready"),
        "ms",
        &[restarted],
        Some(READY),
    )?;
    let again = process::settled(cluster, "server").await?;
    deleted(&definitions, report).await?;
    let after = process::settled(cluster, "server").await?;
    for (name, size) in
        [("before", before), ("with", with), ("restarted with", again), ("without, after", after)]
    {
        report.plain(format!("server {name} {DEFINITIONS} definitions RSS"), "MiB", &[size], None)?;
    }
    Ok(())
}

fn definition_resource() -> ApiResource {
    let gvk = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    ApiResource::from_gvk(&gvk)
}

fn names(index: usize) -> (String, String, String) {
    (format!("group{}.bench.example", index / PER_GROUP), format!("things{index}"), format!("Thing{index}"))
}

/// A definition of some sixty kilobytes: objects in objects, lists, patterns and rules.
fn definition(index: usize) -> Value {
    let (group, plural, kind) = names(index);
    let text =
        "What this field is for, in as many words as authors of definitions take to say so. ".repeat(2);
    let leaf = |n: usize| match n % 4 {
        0 => {
            json!({"type": "string", "description": text, "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"})
        }
        1 => json!({"type": "integer", "description": text, "minimum": 0, "maximum": 65535, "default": n}),
        2 => json!({"type": "array", "description": text, "maxItems": 16, "x-kubernetes-list-type": "set",
            "items": {"type": "string", "maxLength": 64}}),
        _ => {
            json!({"description": text, "x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]})
        }
    };
    let mut parts = Map::new();
    for part in 0..20 {
        let fields: Map<String, Value> = (0..10).map(|n| (format!("field{n}"), leaf(n))).collect();
        let rules = json!([
            {"rule": "!has(self.field1) || self.field1 >= 0", "message": "must not be negative"},
            {"rule": "!has(self.field2) || self.field2.all(x, x.size() > 0)", "message": "no item may be empty"},
        ]);
        let schema = json!({"type": "object", "description": text, "properties": fields, "x-kubernetes-validations": rules});
        parts.insert(format!("part{part}"), schema);
    }
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": parts},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "One", "type": "integer", "jsonPath": ".spec.part0.field1"}],
                "schema": {"openAPIV3Schema": schema}}]},
    })
}

fn is_established(object: &DynamicObject) -> bool {
    let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == "Established" && c["status"] == "True")
}

/// Makes them all, and sees each established.
async fn established(api: &Api<DynamicObject>, report: &mut Report) -> Result<()> {
    let since = api.list_metadata(&ListParams::default().limit(1)).await?.metadata.resource_version;
    let mut events = pin!(api.watch(&WatchParams::default().timeout(290), &since.unwrap_or_default()).await?);
    let mut seen: HashMap<String, Instant> = HashMap::new();
    let follow = async {
        while seen.len() < DEFINITIONS {
            match events.try_next().await?.context("the watch of definitions ended")? {
                WatchEvent::Added(of) | WatchEvent::Modified(of) if is_established(&of) => {
                    seen.entry(of.name_any()).or_insert_with(Instant::now);
                }
                WatchEvent::Error(status) => bail!("watch: {}", status.message),
                _ => {}
            }
        }
        anyhow::Ok(())
    };
    let create = async {
        let began = Instant::now();
        let one = |index: usize| async move {
            let object: DynamicObject = serde_json::from_value(definition(index))?;
            let began = Instant::now();
            api.create(&PostParams::default(), &object).await.context("create a definition")?;
            anyhow::Ok((object.name_any(), began.elapsed().as_secs_f64() * 1e3, Instant::now()))
        };
        let made: Vec<_> =
            futures::stream::iter(0..DEFINITIONS).map(one).buffer_unordered(AT_ONCE).try_collect().await?;
        anyhow::Ok((made, began.elapsed().as_secs_f64() * 1e3))
    };
    let both = async { tokio::try_join!(create, follow) };
    let ((made, total), ()) =
        tokio::time::timeout(PATIENCE, both).await.context("definitions are not established")??;
    let created: Vec<f64> = made.iter().map(|(_, took, _)| *took).collect();
    let late = |(name, _, answered): &(String, f64, Instant)| {
        let at = seen.get(name)?;
        Some(at.saturating_duration_since(*answered).as_secs_f64() * 1e3)
    };
    let waited: Vec<f64> = made.iter().filter_map(late).collect();
    report.plain(format!("{DEFINITIONS} definitions made, {AT_ONCE} at once"), "ms", &[total], None)?;
    report.plain("create a definition", "ms", &created, None)?;
    report.plain("created to Established", "ms", &waited, Some(ESTABLISHED))?;
    let longest = waited.into_iter().fold(0.0, f64::max);
    report.plain("created to Established, the longest", "ms", &[longest], None)
}

/// OpenAPI v3: the index, a group version asked for the first time, and again.
async fn described(client: &Client, report: &mut Report) -> Result<()> {
    let ask = |path: String| async move {
        let request = hyper::Request::get(path).body(Vec::new())?;
        let began = Instant::now();
        client.request_text(request).await.context("ask for OpenAPI")?;
        anyhow::Ok(began.elapsed().as_secs_f64() * 1e3)
    };
    let index = ask("/openapi/v3".to_owned()).await?;
    report.plain("OpenAPI v3 index", "ms", &[index], None)?;
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for group in 0..LISTS {
        let path = format!("/openapi/v3/apis/group{group}.bench.example/v1");
        first.push(ask(path.clone()).await?);
        again.push(ask(path).await?);
    }
    report.plain(format!("OpenAPI v3 of {PER_GROUP} kinds, first"), "ms", &first, None)?;
    report.plain(format!("OpenAPI v3 of {PER_GROUP} kinds, again"), "ms", &again, Some(DESCRIBED))
}

/// Lists and reads of custom objects beside those of ConfigMaps of the same size.
async fn objects(client: &Client, report: &mut Report) -> Result<()> {
    let (group, plural, kind) = names(0);
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(&group, "v1", &kind), &plural);
    let things: Api<DynamicObject> = Api::namespaced_with(client.clone(), "kube-public", &resource);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-public");
    let padding = "x".repeat(800);
    let (make, mark) = (&PostParams::default(), "bench=definitions");
    let both = |index: usize| {
        let (things, maps, padding) = (things.clone(), maps.clone(), padding.clone());
        let (api_version, kind) = (format!("{group}/v1"), kind.clone());
        async move {
            let metadata = json!({"name": format!("bench-{index}"), "labels": {"bench": "definitions"}, "annotations": {"a": padding}});
            let thing = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": {"part0": {"field1": 1}}});
            let map = json!({"metadata": metadata, "data": {"field1": "1"}});
            things.create(make, &serde_json::from_value(thing)?).await.context("create a custom object")?;
            maps.create(make, &serde_json::from_value(map)?).await.context("create a ConfigMap")?;
            anyhow::Ok(())
        }
    };
    futures::stream::iter(0..OBJECTS).map(both).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    let paths = [
        format!("/apis/{group}/v1/namespaces/kube-public/{plural}"),
        "/api/v1/namespaces/kube-public/configmaps".to_owned(),
    ];
    for (what, end) in [("list", "?resourceVersion=0"), ("get", "/bench-1")] {
        let mut samples = [Vec::new(), Vec::new()];
        for _ in 0..LISTS {
            for (path, samples) in paths.iter().zip(&mut samples) {
                let request = hyper::Request::get(format!("{path}{end}")).body(Vec::new())?;
                let began = Instant::now();
                client.request_text(request).await.context("read objects")?;
                samples.push(began.elapsed().as_secs_f64() * 1e3);
            }
        }
        let [custom, builtin] = samples;
        let name = if what == "list" {
            format!("list {OBJECTS} custom objects")
        } else {
            "get a custom object".to_owned()
        };
        report.against(name, "ms", &custom, ("of ConfigMaps", &builtin), None)?;
    }
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels(mark)).await?;
    Ok(())
}

/// Deletes every definition, and waits until the last one is gone.
async fn deleted(api: &Api<DynamicObject>, report: &mut Report) -> Result<()> {
    let began = Instant::now();
    let one = |index: usize| {
        let (group, plural, _) = names(index);
        async move {
            let name = format!("{plural}.{group}");
            api.delete(&name, &DeleteParams::default()).await.context("delete a definition")?;
            anyhow::Ok(())
        }
    };
    futures::stream::iter(0..DEFINITIONS).map(one).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    let gone = async {
        loop {
            let left = api.list_metadata(&ListParams::default()).await?;
            if !left.items.iter().any(|of| of.name_any().ends_with(".bench.example")) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.context("definitions are not deleted")??;
    let each = began.elapsed().as_secs_f64() * 1e3 / DEFINITIONS as f64;
    report.plain("delete a definition until it is gone", "ms", &[each], None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_as_large_as_a_big_operators() {
        let size = definition(1).to_string().len();
        assert!((50_000..80_000).contains(&size), "{size}");
        assert_eq!(names(39).0, names(20).0);
    }
}
