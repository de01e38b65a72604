//! The servers as a client has them, and what all clients have seen.

use super::verdict::Facts;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A server that says nothing for so long is given up.
pub(super) const SILENCE: Duration = Duration::from_secs(5);
/// Between two requests of one client.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
/// How long what is under way at the end may take.
pub(super) const SETTLE: Duration = Duration::from_secs(60);
pub(super) const NAMESPACE: &str = "default";

/// What the clients have seen so far.
#[derive(Default)]
pub(super) struct Seen {
    facts: Mutex<Facts>,
    leader: Mutex<Option<u32>>,
}

impl Seen {
    pub(super) fn note(&self, note: impl FnOnce(&mut Facts)) {
        note(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Which server leads, from 1.
    pub(super) fn leader(&self) -> Option<u32> {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_leader(&self, leader: Option<u32>) {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = leader;
    }

    /// Whether each of `watchers` has seen all that was acknowledged.
    pub(super) fn is_settled(&self, watchers: usize) -> bool {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).is_settled(watchers)
    }

    /// All of it.
    pub(super) fn taken(&self) -> Facts {
        std::mem::take(&mut *self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Servers, in the order of one client.
pub(super) struct Servers {
    all: Vec<Client>,
    at: usize,
}

impl Servers {
    pub(super) fn new(all: Vec<Client>, at: usize) -> Self {
        Self { all, at }
    }

    /// Of the server whose turn it is.
    pub(super) fn client(&self) -> Client {
        self.all[self.at % self.all.len()].clone()
    }

    pub(super) fn maps(&self) -> Api<ConfigMap> {
        self.api()
    }

    /// Objects of the clients' namespace, at the server whose turn it is.
    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client(), NAMESPACE)
    }

    pub(super) fn next(&mut self) {
        self.at += 1;
    }

    /// Asks one server after another until one answers; `None` after a minute without an answer, or when the answer is a refusal, which is noted.
    pub(super) async fn insist<T, F>(
        &mut self,
        seen: &Seen,
        what: &str,
        ask: impl Fn(&Self) -> F,
    ) -> Option<T>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let until = Instant::now() + SETTLE;
        loop {
            match tokio::time::timeout(2 * SILENCE, ask(self)).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(kube::Error::Api(status))) if status.code < 500 && status.code != 429 => {
                    seen.note(|facts| facts.refused.push(format!("{what}: {status:?}")));
                    return None;
                }
                _ if Instant::now() > until => {
                    seen.note(|facts| facts.refused.push(format!("{what}: no server answered for a minute")));
                    return None;
                }
                _ => self.next(),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
