//! Whom the servers behind this one are to believe: the ConfigMap `kube-system/extension-apiserver-authentication`, by which
//! they know clients' certificates and the proxy in front of them. Upstream:
//! `pkg/controlplane/controller/clusterauthenticationtrust`.
//!
//! What wakes it: other authorities, and a period, as upstream's. What it reads: the ConfigMap, and what this server believes now. What it
//! writes: the ConfigMap, in which what other servers have written stays, but for authorities that have expired, or that a rotation replaced.

use crate::flags::Flags;
use anyhow::Context as _;
use apiserver::Authorities;
use apiserver::FrontProxies;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use supervise::{Backoff, Task};
use tokio::sync::watch;

pub(crate) const NAMESPACE: &str = "kube-system";
pub(crate) const NAME: &str = "extension-apiserver-authentication";
/// The pause after a failure, such as another server's write in between.
const AGAIN: Duration = Duration::from_millis(200);
/// How often the ConfigMap is looked at.
const PERIOD: Duration = Duration::from_secs(60);
pub(crate) const CLIENT_CA: &str = "client-ca-file";
pub(crate) const FRONT_CA: &str = "requestheader-client-ca-file";
const UIDS: &str = "requestheader-uid-headers";

/// The proxies in front, and the headers they use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Front {
    /// This server itself believes them, too.
    pub(crate) believed: bool,
    /// Their certificates' common names; any where there is none.
    pub(crate) allowed: Vec<String>,
    pub(crate) users: Vec<String>,
    pub(crate) uids: Vec<String>,
    pub(crate) groups: Vec<String>,
    /// What headers of everything else begin with.
    pub(crate) extras: Vec<String>,
}

impl Front {
    /// This server as the proxy in front of others, by kubeadm's names.
    pub(crate) fn ourselves() -> Self {
        let word = |word: &str| vec![word.to_owned()];
        Self {
            believed: false,
            allowed: word("front-proxy-client"),
            users: word("X-Remote-User"),
            uids: word("X-Remote-Uid"),
            groups: word("X-Remote-Group"),
            extras: word("X-Remote-Extra-"),
        }
    }

    /// What `--requestheader-*` say.
    pub(crate) fn of_flags(flags: &Flags) -> Self {
        let list = |name: &str| flags.list(name).map(<[String]>::to_vec).unwrap_or_default();
        Self {
            believed: true,
            allowed: list("requestheader-allowed-names"),
            users: list("requestheader-username-headers"),
            uids: list(UIDS),
            groups: list("requestheader-group-headers"),
            extras: list("requestheader-extra-headers-prefix"),
        }
    }

    /// What the ConfigMap says.
    ///
    /// # Errors
    /// A list in it is none.
    pub(crate) fn of_map(map: &ConfigMap) -> anyhow::Result<Self> {
        let list = |name: &'static str| -> anyhow::Result<Vec<String>> {
            let text = map.data.as_ref().and_then(|data| data.get(name));
            text.map_or(Ok(Vec::new()), |text| serde_json::from_str(text).context(name))
        };
        Ok(Self {
            believed: true,
            allowed: list("requestheader-allowed-names")?,
            users: list("requestheader-username-headers")?,
            uids: list(UIDS)?,
            groups: list("requestheader-group-headers")?,
            extras: list("requestheader-extra-headers-prefix")?,
        })
    }

    /// The proxies whose certificates are of these authorities.
    pub(crate) fn proxies(&self, authorities: Authorities) -> FrontProxies {
        FrontProxies {
            authorities,
            allowed: self.allowed.clone(),
            users: self.users.clone(),
            uids: self.uids.clone(),
            groups: self.groups.clone(),
            extras: self.extras.clone(),
        }
    }
}

/// What other servers are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trust {
    /// Who signs clients' certificates, as PEM.
    pub(super) clients: Option<String>,
    /// Who signs the certificates of proxies in front, as PEM, and what they say.
    pub(super) front: Option<(String, Front)>,
    /// Authorities that others have replaced, and that are believed no more; as PEM.
    pub(super) replaced: String,
}

type Data = BTreeMap<String, String>;

impl Trust {
    /// The ConfigMap's data once this is in it.
    fn put_into(&self, stored: &Data, now: Timestamp) -> anyhow::Result<Data> {
        let mut data = Data::new();
        let gone = ders(&self.replaced)?;
        let clients =
            together(stored.get(CLIENT_CA), self.clients.as_ref(), &gone, now).context(CLIENT_CA)?;
        data.extend(clients.map(|pem| (CLIENT_CA.to_owned(), pem)));
        let own = self.front.as_ref();
        let front = own.map(|(pem, _)| pem);
        let authorities = together(stored.get(FRONT_CA), front, &gone, now).context(FRONT_CA)?;
        let Some(authorities) = authorities else { return Ok(data) };
        let front = own.map(|(_, front)| front.clone()).unwrap_or_default();
        data.insert(FRONT_CA.to_owned(), authorities);
        for (name, words) in [
            ("requestheader-username-headers", front.users),
            (UIDS, front.uids),
            ("requestheader-group-headers", front.groups),
            ("requestheader-extra-headers-prefix", front.extras),
            ("requestheader-allowed-names", front.allowed),
        ] {
            let mut all: Vec<String> = match stored.get(name) {
                Some(text) => serde_json::from_str(text).context(name)?,
                None => Vec::new(),
            };
            for word in words {
                if !all.contains(&word) {
                    all.push(word);
                }
            }
            if name != UIDS || !all.is_empty() {
                data.insert(name.to_owned(), json!(all).to_string());
            }
        }
        Ok(data)
    }
}

/// Certificates of a text that may be empty.
fn ders(text: &str) -> Result<Vec<pki::Certificate>, pki::Error> {
    if text.trim().is_empty() { Ok(Vec::new()) } else { pki::Certificate::list_from_pem(text) }
}

/// The authorities of both texts that have not expired, each once, without those of others that are `gone`; `None` where there are none.
fn together(
    stored: Option<&String>,
    own: Option<&String>,
    gone: &[pki::Certificate],
    now: Timestamp,
) -> Result<Option<String>, pki::Error> {
    let read = |text: Option<&String>| text.map_or(Ok(Vec::new()), |text| ders(text));
    let own = read(own)?;
    let is_in =
        |all: &[pki::Certificate], one: &pki::Certificate| all.iter().any(|known| known.der == one.der);
    let mut all: Vec<pki::Certificate> = Vec::new();
    let others = read(stored)?.into_iter().filter(|one| is_in(&own, one) || !is_in(gone, one));
    for certificate in others.chain(own.iter().cloned()) {
        if certificate.not_after >= now && !is_in(&all, &certificate) {
            all.push(certificate);
        }
    }
    let texts = all.iter().map(|certificate| pki::pem::encode("CERTIFICATE", &certificate.der));
    Ok(Some(texts.collect::<String>()).filter(|text| !text.is_empty()))
}

/// Brings the ConfigMap to what it is to be.
pub(super) async fn publish(client: &kube::Client, trust: &Trust) -> anyhow::Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let stored = api.get_opt(NAME).await.with_context(|| format!("read {NAME}"))?;
    let before = stored.as_ref().and_then(|map| map.data.clone()).unwrap_or_default();
    let data = trust.put_into(&before, Timestamp::now())?;
    if data == before {
        return Ok(());
    }
    let Some(stored) = stored else {
        let map = json!({"metadata": {"name": NAME}, "data": data});
        let made = api.create(&PostParams::default(), &serde_json::from_value(map)?).await;
        return made.map(drop).with_context(|| format!("create {NAME}"));
    };
    let gone = before.keys().filter(|key| !data.contains_key(*key)).map(|key| (key.clone(), None));
    let change: BTreeMap<String, Option<String>> =
        data.iter().map(|(key, text)| (key.clone(), Some(text.clone()))).chain(gone).collect();
    // What another server writes meanwhile must not be lost.
    let version = stored.metadata.resource_version;
    let patch = Patch::Merge(json!({ "metadata": { "resourceVersion": version }, "data": change }));
    let patched = api.patch(NAME, &PatchParams::default(), &patch).await;
    patched.map(drop).with_context(|| format!("update {NAME}"))
}

/// Keeps the ConfigMap at what this server believes at the time.
pub(super) fn task(client: kube::Client, trust: watch::Receiver<Trust>) -> Task {
    Task::endless("authentication-trust", move || {
        let (client, mut trust) = (client.clone(), trust.clone());
        async move {
            let mut pauses = Backoff::new(AGAIN, PERIOD);
            loop {
                let now = trust.borrow_and_update().clone();
                match publish(&client, &now).await {
                    Ok(()) => {
                        pauses.reset();
                        tokio::select! {
                            () = tokio::time::sleep(PERIOD) => {}
                            Ok(()) = trust.changed() => {}
                        }
                    }
                    Err(error) => {
                        tracing::warn!(error = format!("{error:#}"), "publish what other API servers need");
                        let pause = pauses.next_pause();
                        // What could not be written may be of no use any more, and others' access hangs on the new.
                        tokio::select! {
                            () = tokio::time::sleep(pause) => {}
                            Ok(()) = trust.changed() => pauses.reset(),
                        }
                    }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pki::Authority;

    fn authority(name: &str) -> String {
        Authority::generate(name, Timestamp::now()).unwrap().cert_pem()
    }

    fn words(data: &Data, name: &str) -> Vec<String> {
        serde_json::from_str(&data[name]).unwrap()
    }

    #[test]
    fn what_is_published_must_follow_the_flags() {
        let (clients, front) = (authority("clients"), authority("front"));
        let headers = Front {
            users: vec!["X-User".to_owned(), "X-Other".to_owned()],
            groups: vec!["X-Group".to_owned()],
            ..Front::default()
        };
        let trust = Trust {
            clients: Some(clients.clone()),
            front: Some((front.clone(), headers)),
            replaced: String::new(),
        };
        let data = trust.put_into(&Data::new(), Timestamp::now()).unwrap();
        assert_eq!((&data[CLIENT_CA], &data[FRONT_CA]), (&clients, &front));
        assert_eq!(words(&data, "requestheader-username-headers"), ["X-User", "X-Other"]);
        assert_eq!(words(&data, "requestheader-group-headers"), ["X-Group"]);
        assert_eq!(data["requestheader-allowed-names"], "[]");
        assert!(!data.contains_key(UIDS));
        let nothing = Trust { clients: Some(clients), ..Trust::default() };
        let data = nothing.put_into(&Data::new(), Timestamp::now()).unwrap();
        assert_eq!(data.keys().collect::<Vec<_>>(), [CLIENT_CA]);
    }

    #[test]
    fn what_another_server_wrote_must_stay_until_it_has_expired() {
        let now = Timestamp::now();
        let (old, new) = (authority("old"), authority("new"));
        let of = |pem: &str| Trust {
            clients: Some(pem.to_owned()),
            front: Some((pem.to_owned(), Front::ourselves())),
            ..Trust::default()
        };
        let first = of(&old).put_into(&Data::new(), now).unwrap();
        let both = of(&new).put_into(&first, now).unwrap();
        assert_eq!(both[CLIENT_CA], format!("{old}{new}"));
        assert_eq!(of(&new).put_into(&both, now).unwrap(), both, "nothing is written twice");
        assert_eq!(words(&both, "requestheader-allowed-names"), ["front-proxy-client"]);
        let later = now.checked_add(jiff::SignedDuration::from_hours(24 * 365 * 100)).unwrap();
        assert!(of(&new).put_into(&both, later).unwrap().is_empty(), "all have expired");
    }

    #[test]
    fn an_authority_that_was_replaced_must_not_be_believed_by_servers_behind_this_one() {
        let now = Timestamp::now();
        let (old, new, other) = (authority("old"), authority("new"), authority("other"));
        let both = format!("{old}{new}");
        let of = |clients: &str, replaced: &str| Trust {
            clients: Some(clients.to_owned()),
            front: Some((clients.to_owned(), Front::ourselves())),
            replaced: replaced.to_owned(),
        };
        let before =
            of(&both, "").put_into(&Data::from([(CLIENT_CA.to_owned(), other.clone())]), now).unwrap();
        assert_eq!(before[CLIENT_CA], format!("{other}{both}"));
        let after = of(&new, &old).put_into(&before, now).unwrap();
        assert_eq!((&after[CLIENT_CA], &after[FRONT_CA]), (&format!("{other}{new}"), &new));
        // Whoever trusts it still, as while a step is under way, says so.
        assert_eq!(of(&both, &old).put_into(&after, now).unwrap()[FRONT_CA], format!("{new}{old}"));
    }

    #[test]
    fn what_cannot_be_read_must_not_be_written_over() {
        for (key, text) in [(CLIENT_CA, "no PEM"), ("requestheader-group-headers", "no JSON")] {
            let stored = Data::from([(key.to_owned(), text.to_owned())]);
            let front = Some((authority("front"), Front::ourselves()));
            let trust = Trust { front, ..Trust::default() };
            assert!(trust.put_into(&stored, Timestamp::now()).is_err(), "{key}");
        }
    }
}
