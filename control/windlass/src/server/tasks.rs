//! What runs on the API server of `windlass server`: scheduler, controllers, and the renewal of certificates.
//!
//! The renewal is woken by a certificate that is due and by a change in the directory of keys and certificates (`windlass certs`); what it
//! finds there is used without a restart: by the port, by those who sign and publish authorities, and by what machines are told.

use super::{Plan, identity, published};
use crate::member::{Stacked, followed};
use crate::parts::apiserver::{Api, Certificates};
use crate::parts::leading::{self, OnLoss};
use crate::parts::{controllers, scheduler};
use crate::snapshot::keeper::{Keeper, Source};
use crate::watched::Directories;
use client::leader::{self, Elector};
use client::recorder::Recorder;
use jiff::Timestamp;
use pki::{Authority, Pki};
use std::sync::Arc;
use std::time::Duration;
use supervise::{Task, TaskError};
use tokio::sync::watch;

/// The longest sleep before the clock is read again: a suspended machine's timers stand still. Far below the agent's, which asks for the serving certificate that
/// only the server gives to its own node, and waits for people to approve it, where this one is late.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Authorities as they are at the time, for those who sign and publish.
#[derive(Clone)]
struct Trust {
    signing: watch::Sender<Arc<Authority>>,
    bundle: watch::Sender<String>,
}

/// Scheduler, controllers, and the renewal of certificates.
pub(super) fn of(
    plan: &Arc<Plan>,
    pki: &Pki,
    api: &Arc<Api>,
    stacked: Option<&Arc<Stacked>>,
) -> anyhow::Result<Vec<Task>> {
    let leadership = Leadership::new(plan, api)?;
    let supervisor = api.supervisor();
    let scheduler = {
        let elector = leadership.elector(scheduler::LEASE, scheduler::COMPONENT);
        let client = api.client(SCHEDULER_USER, &[]);
        scheduler::task(client, Default::default(), supervisor, Some(elector), OnLoss::Contend)
    };
    let trust = Trust {
        signing: watch::Sender::new(pki.ca.clone()),
        bundle: watch::Sender::new(pki.trusted.clone()),
    };
    let controllers = {
        let client = api.client(CONTROLLERS_USER, &["system:masters"]);
        let (ranges, key) = (plan.node.cluster_cidrs.clone(), pki.service_account.clone());
        let config = ::controllers::Config {
            authorities: ::controllers::Authorities::all(&trust.signing.subscribe()),
            root_ca: Some(trust.bundle.subscribe()),
            api_servers: plan.names.all(),
            options: ::controllers::Options {
                load_balancing: plan.balancing.clone(),
                ..::controllers::Options::default()
            },
            node_ranges: ::controllers::Ranges {
                cluster: ranges.clone(),
                taken: plan.node.service_cidrs.clone(),
                prefixes: plan.flags.node_prefixes(),
            },
            ..::controllers::Config::new(&client, ranges, pki.ca.clone(), key)
        };
        let elector = leadership.elector(controllers::NAME, controllers::NAME);
        controllers::task(client, config, supervisor, Some(elector), OnLoss::Contend)
    };
    let bundle = trust.bundle.subscribe();
    let certificates = {
        let (plan, api, pki) = (plan.clone(), api.clone(), pki.clone());
        Task::new("certificates", move |token| {
            let (plan, api, pki, trust) = (plan.clone(), api.clone(), pki.clone(), trust.clone());
            async move {
                let renewing = Box::pin(renew(&plan, &api, pki, &trust));
                token.run_until_cancelled(renewing).await.unwrap_or(Ok(()))
            }
        })
    };
    let mut tasks = vec![api.logging(), api.trust(), scheduler, controllers, leadership.events, certificates];
    // What it waits for is there already; its own node is none of its readiness.
    tasks.extend(crate::notify::task(supervisor, &crate::notify::Done));
    tasks.extend(api.follows());
    let embedded = api.embedded_store().cloned().map(Source::Embedded);
    if let Some(source) = embedded.or_else(|| api.etcd().cloned().map(Source::Etcd)) {
        let node = plan.node.node_name.clone();
        let snapshots = Keeper::new(plan.snapshots.clone(), source, plan.dir.clone(), node);
        tasks.extend(snapshots.tasks(supervisor));
    }
    if let Some(etcd) = api.shared_etcd() {
        let client = api.client("system:apiserver", &["system:masters"]);
        tasks.push(published::endpoint(plan.clone(), client, etcd.clone(), bundle));
    }
    if let Some((stacked, etcd)) = stacked.zip(api.etcd()) {
        let client = api.client("system:apiserver", &["system:masters"]);
        tasks.push(followed::task(stacked.clone(), etcd.clone(), client));
    }
    Ok(tasks)
}

/// Certificates of the API server, and the authorities it trusts.
pub(super) fn certificates(pki: &Pki) -> Certificates {
    let pair = |issued: &pki::authority::Issued| (issued.cert_pem.clone(), issued.key_pem.clone());
    Certificates {
        serving: pair(&pki.apiserver),
        client_authorities: Some(pki.trusted.clone()),
        front_authorities: Some(pki.front_proxy_trusted.clone()),
        replaced: pki.replaced.clone(),
        kubelet_client: pair(&pki.apiserver_kubelet_client),
        kubelet_authorities: Some(pki.trusted.clone()),
        proxy_client: pair(&pki.front_proxy_client),
    }
}

/// How long the parts of a server lead after each renewal, and how long they try to renew that: less than the parts of upstream do, so that with the
/// period between two looks another one leads within 15 seconds. Whoever contends goes by what the lease says.
const LEASE: Duration = Duration::from_secs(12);
const RENEW: Duration = Duration::from_secs(8);
/// Between two renewals on a store that is this server's own: nobody but an administrator's own scheduler or controllers contends there, and each
/// renewal is a write that an idle machine does not need. Upstream's lease lasts three of them.
const ALONE: Duration = Duration::from_secs(5);
/// Users of the parts in this process.
const SCHEDULER_USER: &str = "system:kube-scheduler";
const CONTROLLERS_USER: &str = "system:kube-controller-manager";

/// What the parts of this server, of which one leads in the cluster, contend with.
struct Leadership {
    identity: String,
    client: kube::Client,
    recorder: Recorder,
    api: Arc<Api>,
    /// Writes events about leadership.
    events: Task,
}

impl Leadership {
    fn new(plan: &Plan, api: &Arc<Api>) -> anyhow::Result<Self> {
        // With every right from the first moment on: the roles of the parts are known to authorisation a moment later.
        let client = api.client(CONTROLLERS_USER, &["system:masters"]);
        let (recorder, writer) = Recorder::new(Some(client.clone()), None);
        let (identity, events) = (leading::kept_identity(&plan.dir)?, writer.task("leadership-events"));
        Ok(Self { identity, client, recorder, api: api.clone(), events })
    }

    fn elector(&self, lease: &str, component: &'static str) -> Elector {
        let upstreams = leader::Settings::new(lease);
        let settings = match self.api.shared_etcd() {
            Some(_) => leader::Settings { lease: LEASE, renew_deadline: RENEW, ..upstreams },
            None => leader::Settings { retry: ALONE, ..upstreams },
        };
        let elector =
            Elector::new(settings, self.client.clone(), &self.identity, component, self.recorder.clone());
        let watched = elector.clone();
        self.api.health().add(&format!("leaderElection/{lease}"), true, move || watched.check());
        elector
    }
}

/// Renews what is due, at two thirds of each certificate's life, and uses what others renewed; the node's are its agent's.
async fn renew(plan: &Plan, api: &Api, mut pki: Pki, trust: &Trust) -> Result<(), TaskError> {
    let dir = plan.dir.join("pki");
    let mut changes = Directories::of([dir.as_path()]);
    loop {
        let fresh = Pki::load_or_create(&dir, &plan.names, Timestamp::now())?;
        if certificates(&fresh) != certificates(&pki) {
            api.replace(&certificates(&fresh))?;
            tracing::info!("the server's certificates are new");
        }
        if fresh.trusted != pki.trusted || fresh.front_proxy_trusted != pki.front_proxy_trusted {
            trust.signing.send_replace(fresh.ca.clone());
            trust.bundle.send_replace(fresh.trusted.clone());
            super::publish_authorities(plan, api, &fresh).await?;
            tracing::info!("the cluster's authorities are new");
        }
        pki = fresh;
        identity::write_admin(plan, &pki)?;
        if !plan.flags.no_agent {
            identity::write_serving(plan, &pki)?;
        }
        let left = pki.next_renewal()?.duration_since(Timestamp::now());
        let left = Duration::try_from(left).unwrap_or_default().clamp(Duration::from_secs(1), LONGEST_SLEEP);
        changes.changed(left).await;
    }
}
