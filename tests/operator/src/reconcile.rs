//! The controller. Woken by changes of gadgets and of their ConfigMaps; reads the gadget as it is now; writes its ConfigMap, its line in the
//! ledger and its status, each by server-side apply; promises that the line is gone before the gadget is.

use crate::gadget::{self, Gadget};
use crate::{FINALIZER, MANAGER};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{self, Event, finalizer};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// What can go wrong with a gadget; each is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What goes with it cannot be written.
    #[error("write what goes with the gadget")]
    Write(#[source] kube::Error),
    /// Its line is still there.
    #[error("take the gadget's line from the ledger")]
    Forget(#[source] kube::Error),
    /// Its finalizer, or what was done under it.
    #[error("finish the gadget")]
    Finish(#[source] Box<finalizer::Error<Error>>),
}

/// Looks after every gadget of the cluster until the program is told to end.
pub async fn run(client: Client) {
    let gadgets: Api<Gadget> = Api::all_with(client.clone(), &gadget::newest());
    let maps: Api<ConfigMap> = Api::all(client.clone());
    let told = Controller::new_with(gadgets, watcher::Config::default(), gadget::newest())
        .owns(maps, watcher::Config::default())
        .shutdown_on_signal()
        .run(reconcile, again, Arc::new(client));
    told.for_each(|outcome| async move {
        match outcome {
            Ok((gadget, _)) => println!("reconciled {gadget}"),
            Err(error) => eprintln!("{:#}", anyhow::Error::from(error)),
        }
    })
    .await;
}

fn again(_: Arc<Gadget>, _: &Error, _: Arc<Client>) -> Action {
    Action::requeue(Duration::from_secs(1))
}

async fn reconcile(gadget: Arc<Gadget>, client: Arc<Client>) -> Result<Action, Error> {
    let namespace = gadget.namespace().unwrap_or_default();
    let gadgets: Api<Gadget> = Api::namespaced_with((*client).clone(), &namespace, &gadget::newest());
    let maps: Api<ConfigMap> = Api::namespaced((*client).clone(), &namespace);
    let (written, beside) = (&gadgets, &maps);
    let done = finalizer(&gadgets, FINALIZER, gadget, |event| async move {
        match event {
            Event::Apply(gadget) => keep(written, beside, &gadget).await,
            Event::Cleanup(gadget) => forget(beside, &gadget).await,
        }
    });
    done.await.map_err(|error| Error::Finish(Box::new(error)))
}

async fn keep(gadgets: &Api<Gadget>, maps: &Api<ConfigMap>, gadget: &Gadget) -> Result<Action, Error> {
    let name = gadget.name_any();
    let applied = PatchParams::apply(MANAGER).force();
    let line = gadget::line(&name);
    let of_ledger = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": line}, "data": {"uid": gadget.metadata.uid}});
    maps.patch(&line, &applied, &Patch::Apply(of_ledger)).await.map_err(Error::Write)?;
    maps.patch(&name, &applied, &Patch::Apply(gadget::config_map(gadget))).await.map_err(Error::Write)?;
    gadgets
        .patch_status(&name, &applied, &Patch::Apply(gadget::status(gadget)))
        .await
        .map_err(Error::Write)?;
    Ok(Action::await_change())
}

async fn forget(maps: &Api<ConfigMap>, gadget: &Gadget) -> Result<Action, Error> {
    match maps.delete(&gadget::line(&gadget.name_any()), &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => return Err(Error::Forget(error)),
        Ok(_) => {}
    }
    Ok(Action::await_change())
}
