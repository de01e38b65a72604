//! What runs on the API server of `windlass server`: scheduler, controllers, and the renewal of certificates.

use super::{Plan, identity};
use crate::member::{Stacked, followed};
use crate::parts::apiserver::{Api, Certificates};
use crate::parts::leading::{self, OnLoss};
use crate::parts::{controllers, scheduler};
use crate::snapshot::keeper::{Keeper, Source};
use client::leader::{self, Elector};
use client::recorder::Recorder;
use jiff::Timestamp;
use pki::Pki;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Task, TaskError};

/// The longest sleep before the clock is read again: a suspended machine's timers stand still.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

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
    let controllers = {
        let client = api.client(CONTROLLERS_USER, &["system:masters"]);
        let (ranges, key) = (plan.node.cluster_cidrs.clone(), pki.service_account.clone());
        let config = ::controllers::Config::new(&client, ranges, pki.ca.clone(), key);
        let elector = leadership.elector(controllers::NAME, controllers::NAME);
        controllers::task(client, config, supervisor, Some(elector), OnLoss::Contend)
    };
    let certificates = {
        let (plan, api, pki) = (plan.clone(), api.clone(), pki.clone());
        Task::new("certificates", move |token| {
            let (plan, api, pki) = (plan.clone(), api.clone(), pki.clone());
            async move { token.run_until_cancelled(renew(&plan, &api, pki)).await.unwrap_or(Ok(())) }
        })
    };
    let mut tasks = vec![api.logging(), scheduler, controllers, leadership.events, certificates];
    let embedded = api.embedded_store().cloned().map(Source::Embedded);
    if let Some(source) = embedded.or_else(|| api.etcd().cloned().map(Source::Etcd)) {
        let node = plan.node.node_name.clone();
        let snapshots = Keeper::new(plan.snapshots.clone(), source, plan.dir.clone(), node);
        tasks.extend(snapshots.tasks(supervisor));
    }
    if let Some((stacked, etcd)) = stacked.zip(api.etcd()) {
        let client = api.client("system:apiserver", &["system:masters"]);
        tasks.push(followed::task(stacked.clone(), etcd.clone(), client));
    }
    Ok(tasks)
}

/// What the API server shows, and whom it believes.
pub(super) fn certificates(pki: &Pki) -> Certificates {
    let pair = |issued: &pki::authority::Issued| (issued.cert_pem.clone(), issued.key_pem.clone());
    Certificates {
        serving: pair(&pki.apiserver),
        client_authorities: Some(pki.ca.cert_pem()),
        kubelet_client: pair(&pki.apiserver_kubelet_client),
        kubelet_authorities: pki.ca.cert_pem(),
        proxy_client: pair(&pki.front_proxy_client),
    }
}

/// Users of the parts in this process.
const SCHEDULER_USER: &str = "system:kube-scheduler";
const CONTROLLERS_USER: &str = "system:kube-controller-manager";

/// What the parts of this server, of which one leads in the cluster, contend with.
struct Leadership {
    identity: String,
    client: kube::Client,
    recorder: Recorder,
    api: Arc<Api>,
    /// Writes what is told of leadership.
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
        let settings = leader::Settings::new(lease);
        let elector =
            Elector::new(settings, self.client.clone(), &self.identity, component, self.recorder.clone());
        let watched = elector.clone();
        self.api.health().add(&format!("leaderElection/{lease}"), true, move || watched.check());
        elector
    }
}

/// Renews what is due, at two thirds of each certificate's life; the node's are its agent's.
async fn renew(plan: &Plan, api: &Api, mut pki: Pki) -> Result<(), TaskError> {
    loop {
        let left = pki.next_renewal()?.duration_since(Timestamp::now());
        let left = Duration::try_from(left).unwrap_or_default();
        if left.is_zero() {
            pki = Pki::load_or_create(&plan.dir.join("pki"), &plan.names, Timestamp::now())?;
            api.replace(&certificates(&pki))?;
            tracing::info!("renewed the server's certificates");
        }
        identity::write_admin(plan, &pki)?;
        tokio::time::sleep(left.clamp(Duration::from_secs(1), LONGEST_SLEEP)).await;
    }
}
