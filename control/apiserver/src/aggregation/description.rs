//! How other servers describe what they serve.
//!
//! Woken by changes of APIServices, and every minute. Reads the OpenAPI 2 and 3 of every server that is available; keeps, in memory, what each
//! says of the group version that is its own. Promises that a server which describes nothing or does not answer costs no other its
//! description, and that what it once said stays until it says otherwise or its APIService goes.
//! Upstream: `kube-aggregator/pkg/controllers/{openapi,openapiv3}`.

use super::remote::Remote;
use super::{Aggregator, proxy};
use crate::discovery::Described;
use crate::openapi::{merge, upgrade};
use crate::upkeep::reconcile;
use bytes::Bytes;
use futures::future::join_all;
use machinery::access::Get as _;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often servers are asked whether they describe anything else.
const EVERY: Duration = Duration::from_secs(60);
/// Longest time of one question.
const LONGEST: Duration = Duration::from_secs(60);
/// Bytes of a document: the whole of the built-in API has a quarter of that.
const LARGEST: usize = 16 * 1024 * 1024;

/// What a server says of its group version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Description {
    /// Namespace, name and port of the Service that was asked.
    from: (String, String, u16),
    /// What the server calls the state of its OpenAPI 2 that was read.
    etag: String,
    /// That, but for other paths than the group version's.
    v2: Option<Bytes>,
    /// Where the group version's OpenAPI 3 was read; as a rule, that changes with it.
    place: String,
    v3: Option<Bytes>,
    /// What could not be read last, and why: that is told once.
    failing: BTreeMap<&'static str, String>,
}

impl Description {
    /// As the catalog has it.
    pub(super) fn said(&self) -> Described {
        Described { v2: self.v2.clone(), v3: self.v3.clone() }
    }
}

/// Keeps what is known current until `stop`.
pub(super) fn keep(aggregator: &Arc<Aggregator>, stop: &CancellationToken) {
    let reads = reconcile::all("apiregistration.k8s.io", "apiservices").into_iter().collect();
    let registry = &aggregator.writer.registry;
    let asking = aggregator.clone();
    let round = move || -> reconcile::Round {
        let aggregator = asking.clone();
        Box::pin(async move {
            read_all(&aggregator).await;
            Ok(())
        })
    };
    let _ = reconcile::keep_up(registry, "aggregated-descriptions", reads, EVERY, round, stop);
}

/// Asks every available server.
async fn read_all(aggregator: &Aggregator) {
    let remotes = aggregator.remotes();
    join_all(remotes.iter().filter(|remote| remote.available).map(|remote| read(aggregator, remote))).await;
}

async fn read(aggregator: &Aggregator, remote: &Remote) {
    let from = (remote.namespace.clone(), remote.service.clone(), remote.port);
    let before = aggregator.description(remote).filter(|known| known.from == from);
    let mut now = before.unwrap_or(Description { from, ..Description::default() });
    let v2 = read_v2(aggregator, remote, &mut now).await;
    let v3 = read_v3(aggregator, remote, &mut now).await;
    for (what, outcome) in [("OpenAPI 2", v2), ("OpenAPI 3", v3)] {
        match outcome {
            Ok(()) => drop(now.failing.remove(what)),
            Err(why) if now.failing.get(what) == Some(&why) => {}
            Err(why) => {
                tracing::warn!(service = remote.name, why, "read the {what} of an aggregated server");
                now.failing.insert(what, why);
            }
        }
    }
    aggregator.describe(remote, now);
}

async fn ask(
    aggregator: &Aggregator,
    remote: &Remote,
    path: &str,
    known: &str,
) -> Result<proxy::Answered, String> {
    let user = ("system:aggregator", None);
    let question = proxy::Question { path, user, known, longest: LARGEST };
    let asked = tokio::time::timeout(LONGEST, proxy::get(aggregator, remote, &question));
    asked.await.map_err(|_| "request timed out".to_owned())?
}

/// The whole of what the server serves, in OpenAPI 2: what is the group version's is kept.
async fn read_v2(aggregator: &Aggregator, remote: &Remote, into: &mut Description) -> Result<(), String> {
    let answer = ask(aggregator, remote, "/openapi/v2", &into.etag).await?;
    match answer.code {
        200 => {}
        304 if !into.etag.is_empty() => return Ok(()),
        404 => {
            into.etag.clear();
            into.v2 = None;
            return Ok(());
        }
        code => return Err(format!("failed to retrieve openAPI spec, http error: {code}")),
    }
    let document: Value = serde_json::from_slice(&answer.body).map_err(|e| e.to_string())?;
    let prefix = format!("{}/", remote.root());
    let own = merge::filter(document, |path| path.starts_with(&prefix));
    let has_paths = own.at("paths").as_object().is_some_and(|paths| !paths.is_empty());
    into.v2 = has_paths.then(|| Bytes::from(own.to_string()));
    into.etag = answer.etag;
    Ok(())
}

/// The group version in OpenAPI 3; made of OpenAPI 2 where the server speaks nothing else.
async fn read_v3(aggregator: &Aggregator, remote: &Remote, into: &mut Description) -> Result<(), String> {
    let answer = ask(aggregator, remote, "/openapi/v3", "").await?;
    match answer.code {
        200 => {}
        404 => {
            let v2 = into.v2.as_ref().and_then(|v2| serde_json::from_slice::<Value>(v2).ok());
            into.v3 = v2.map(|v2| Bytes::from(upgrade::document(&v2).to_string()));
            into.place.clear();
            return Ok(());
        }
        code => return Err(format!("could not get list of group versions: http error: {code}")),
    }
    let listed: Value = serde_json::from_slice(&answer.body).map_err(|e| e.to_string())?;
    let root = remote.root();
    let own = listed.at("paths").get(root.trim_start_matches('/'));
    let place = own.map(|own| own.text("serverRelativeURL")).unwrap_or_default();
    if !place.starts_with('/') {
        // It lists the group version nowhere on itself.
        into.place.clear();
        into.v3 = None;
        return Ok(());
    }
    if place == into.place && place.contains("hash=") && into.v3.is_some() {
        return Ok(());
    }
    let answer = ask(aggregator, remote, place, "").await?;
    if answer.code != 200 {
        return Err(format!("{place}: http error: {}", answer.code));
    }
    serde_json::from_slice::<IgnoredAny>(&answer.body).map_err(|e| e.to_string())?;
    into.v3 = Some(answer.body);
    into.place = place.to_owned();
    Ok(())
}
