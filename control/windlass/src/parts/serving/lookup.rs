//! Whom to believe where the flags do not say: what the cluster's API servers have written into `kube-system/extension-apiserver-authentication`.
//!
//! Woken by that ConfigMap. Promises: what was believed goes on being believed while the API server does not answer; what cannot be used is
//! told and changes nothing. Upstream: `apiserver/pkg/server/options/authentication.go`.

use crate::flags::Flags;
use crate::parts::apiserver::trust::{CLIENT_CA, FRONT_CA, Front, NAME, NAMESPACE};
use anyhow::Context as _;
use apiserver::{Authorities, FrontProxies, Peer};
use client::{Event, Source, mirror};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kubelet::server::User;
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use supervise::Task;
use tokio::sync::watch;

/// What is to be looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wanted {
    clients: bool,
    front: bool,
}

impl Wanted {
    /// What the flags leave open; nothing where they forbid it, or name nobody who could be asked.
    fn of(flags: &Flags) -> Self {
        let asks = flags.text("authentication-kubeconfig").is_some() || flags.text("kubeconfig").is_none();
        if flags.bool("authentication-skip-lookup") == Some(true) || !asks {
            return Self::default();
        }
        let open = |name: &str| flags.text(name).is_none();
        Self { clients: open("client-ca-file"), front: open("requestheader-client-ca-file") }
    }
}

/// Whom to believe.
#[derive(Clone, Default)]
pub(super) struct Believed {
    clients: Option<Authorities>,
    pub(super) front: Option<FrontProxies>,
}

impl Believed {
    /// What the ConfigMap says of what is wanted.
    fn read(map: &ConfigMap, wanted: Wanted) -> anyhow::Result<Self> {
        let text =
            |name: &str| map.data.as_ref().and_then(|data| data.get(name)).filter(|text| !text.is_empty());
        let authorities = |name: &str| text(name).map(|pem| Authorities::from_pem(pem)).transpose();
        let front = match authorities(FRONT_CA).context(FRONT_CA)?.filter(|_| wanted.front) {
            Some(authorities) => Some(Front::of_map(map)?.proxies(authorities)),
            None => None,
        };
        Ok(Self { clients: authorities(CLIENT_CA).context(CLIENT_CA)?.filter(|_| wanted.clients), front })
    }

    /// Who a certificate says the caller is; nobody where its authority is not believed.
    pub(super) fn user(&self, chain: &[CertificateDer<'static>]) -> Option<User> {
        let said = Peer::new(None, chain.to_vec()).user(self.clients.as_ref()?, Timestamp::now());
        let apiserver::User { name, uid, groups, extra } = said.ok().flatten()?;
        Some(User { name, uid, groups, extra }.authenticated())
    }
}

/// Keeps up with what the cluster says.
pub(super) struct Lookup {
    wanted: Wanted,
    client: kube::Client,
    believed: watch::Sender<Arc<Believed>>,
}

impl Lookup {
    /// Looks once. `tolerant` is what counts without `--authentication-tolerate-lookup-failure`.
    ///
    /// # Errors
    /// The API server does not answer, and that is not tolerated.
    pub(super) async fn new(flags: &Flags, client: kube::Client, tolerant: bool) -> anyhow::Result<Self> {
        let wanted = Wanted::of(flags);
        let lookup = Self { wanted, client, believed: watch::Sender::default() };
        if wanted == Wanted::default() {
            return Ok(lookup);
        }
        match lookup.look().await {
            Ok(()) => {}
            Err(error) if flags.bool("authentication-tolerate-lookup-failure").unwrap_or(tolerant) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "Error looking up in-cluster authentication configuration"
                );
                tracing::warn!(
                    "Continuing without authentication configuration. This may treat all requests as anonymous."
                );
            }
            Err(error) => {
                return Err(error).context("unable to load configmap based request-header-client-ca-file");
            }
        }
        Ok(lookup)
    }

    /// Whom to believe now.
    pub(super) fn believed(&self) -> Arc<Believed> {
        self.believed.borrow().clone()
    }

    async fn look(&self) -> anyhow::Result<()> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), NAMESPACE);
        if let Some(map) = api.get_opt(NAME).await? {
            self.take(&map)?;
        }
        Ok(())
    }

    fn take(&self, map: &ConfigMap) -> anyhow::Result<()> {
        let believed = Believed::read(map, self.wanted).with_context(|| format!("use configmap {NAME}"))?;
        self.believed.send_replace(Arc::new(believed));
        Ok(())
    }

    /// The task that follows the ConfigMap; none where nothing is looked up.
    pub(super) fn task(self: &Arc<Self>) -> Option<Task> {
        let this = self.clone();
        (self.wanted != Wanted::default()).then(|| {
            Task::endless("authentication-lookup", move || {
                let this = this.clone();
                async move { this.follow().await }
            })
        })
    }

    async fn follow(&self) {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), NAMESPACE);
        let mut events = mirror::<ConfigMap>(Source::of(api).named(NAME));
        while let Some(event) = events.next().await {
            if let Event::Set(_, map) = event
                && let Err(error) = self.take(&map)
            {
                tracing::warn!(error = format!("{error:#}"), "others are not believed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;
    use http::{Request, Response};
    use kube::client::Body;
    use pki::{Authority, Leaf};
    use serde_json::{Value, json};

    fn flags(line: &str) -> Flags {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let flags = Component::named("kube-scheduler").unwrap().table().parse(&arguments).unwrap();
        assert!(flags.unused().is_empty(), "{line}");
        flags
    }

    #[test]
    fn what_the_flags_say_is_not_looked_up() {
        let both = Wanted { clients: true, front: true };
        for (line, wanted) in [
            ("--kubeconfig=/k --authentication-kubeconfig=/a", both),
            ("", both),
            ("--kubeconfig=/k", Wanted::default()),
            (
                "--kubeconfig=/k --authentication-kubeconfig=/a --authentication-skip-lookup",
                Wanted::default(),
            ),
            ("--authentication-kubeconfig=/a --client-ca-file=/c", Wanted { clients: false, front: true }),
            (
                "--authentication-kubeconfig=/a --requestheader-client-ca-file=/c",
                Wanted { clients: true, front: false },
            ),
        ] {
            assert_eq!(Wanted::of(&flags(line)), wanted, "{line}");
        }
    }

    /// An API server that answers with this.
    fn server(code: u16, answer: Value) -> kube::Client {
        let service = tower::service_fn(move |_: Request<Body>| {
            let body = Body::from(answer.to_string().into_bytes());
            let response = Response::builder().status(code).body(body);
            async move { response }
        });
        kube::Client::new(service, "default")
    }

    fn failure(code: u16) -> kube::Client {
        server(
            code,
            json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no",
                "reason": if code == 404 { "NotFound" } else { "ServiceUnavailable" } }),
        )
    }

    #[tokio::test]
    async fn a_lookup_that_fails_ends_the_program_only_where_it_is_to() {
        let line = "--authentication-kubeconfig=/a";
        let refusing = "--authentication-kubeconfig=/a --authentication-tolerate-lookup-failure=false";
        let tolerant = "--authentication-kubeconfig=/a --authentication-tolerate-lookup-failure";
        for (line, usual, ends) in
            [(line, true, false), (line, false, true), (refusing, true, true), (tolerant, false, false)]
        {
            let made = Lookup::new(&flags(line), failure(503), usual).await;
            assert_eq!(made.is_err(), ends, "{line} {usual}");
        }
        let absent = Lookup::new(&flags(refusing), failure(404), false).await;
        assert!(absent.is_ok(), "nobody has written it yet");
        let skipped = "--authentication-kubeconfig=/a --authentication-skip-lookup";
        assert!(Lookup::new(&flags(skipped), failure(503), false).await.is_ok());
    }

    #[tokio::test]
    async fn clients_are_known_by_the_authorities_that_the_cluster_names() {
        let now = Timestamp::now();
        let (authority, other) =
            (Authority::generate("a", now).unwrap(), Authority::generate("o", now).unwrap());
        let data = json!({ CLIENT_CA: authority.cert_pem(), FRONT_CA: other.cert_pem(),
            "requestheader-username-headers": "[\"X-Remote-User\"]", "requestheader-allowed-names": "[\"front\"]" });
        let map = json!({ "metadata": { "name": NAME, "namespace": NAMESPACE }, "data": data });
        let chain = |by: &Authority| {
            let issued = by.issue(&Leaf::client("admin", &["g"]), now).unwrap();
            pki::pem::certificates(issued.cert_pem.as_bytes()).unwrap()
        };
        let believed = async |line: &str| {
            Lookup::new(&flags(line), server(200, map.clone()), false).await.unwrap().believed()
        };
        let usual = believed("--authentication-kubeconfig=/a").await;
        let user = usual.user(&chain(&authority)).unwrap();
        assert_eq!(user.name, "admin");
        assert!(
            user.groups.contains(&"g".to_owned()) && user.groups.contains(&"system:authenticated".to_owned())
        );
        assert_eq!(usual.user(&chain(&other)), None);
        let front = usual.front.as_ref().unwrap();
        assert_eq!(
            (front.allowed.as_slice(), front.users.as_slice()),
            (&["front".to_owned()][..], &["X-Remote-User".to_owned()][..])
        );
        let none = believed("--authentication-kubeconfig=/a --authentication-skip-lookup").await;
        assert!(none.user(&chain(&authority)).is_none() && none.front.is_none());
        let only = believed("--authentication-kubeconfig=/a --client-ca-file=/c").await;
        assert!(only.user(&chain(&authority)).is_none() && only.front.is_some());
    }
}
