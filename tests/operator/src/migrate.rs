//! Moves what is stored to another version: the definition first, then every gadget by writing it as it is, then what the definition says is
//! stored. It can be ended at any point and started again.

use crate::gadget::resource;
use crate::{DEFINITION, VERSIONS};
use anyhow::Context as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

/// Objects that are read at once.
const PAGE: u32 = 50;

/// Stores gadgets in the version `to` from now on, and everything that is there as well; gives how many were written.
///
/// # Errors
/// There is no such version, or the API server refuses a step.
pub async fn to(client: Client, to: &str) -> anyhow::Result<usize> {
    anyhow::ensure!(VERSIONS.contains(&to), "{to:?} is no version of gadgets");
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut definition = definitions.get(DEFINITION).await.context("read the definition")?;
    for version in &mut definition.spec.versions {
        version.storage = version.name == to;
    }
    let versions = json!({"metadata": {"resourceVersion": definition.metadata.resource_version}, "spec": {"versions": definition.spec.versions}});
    definitions
        .patch(DEFINITION, &PatchParams::default(), &Patch::Merge(versions))
        .await
        .context("change the version that is stored")?;

    let gadgets: Api<DynamicObject> = Api::all_with(client.clone(), &resource(to));
    let mut params = ListParams::default().limit(PAGE);
    let mut written = 0;
    loop {
        let page = gadgets.list(&params).await.context("list the gadgets")?;
        for gadget in page.items {
            written += usize::from(rewrite(&client, to, gadget).await?);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    let stored = json!({"status": {"storedVersions": [to]}});
    definitions
        .patch_status(DEFINITION, &PatchParams::default(), &Patch::Merge(stored))
        .await
        .context("say what is stored")?;
    Ok(written)
}

/// Writes a gadget as it is; one that is gone, or that another wrote meanwhile, is stored as it is to be already.
async fn rewrite(client: &Client, version: &str, mut gadget: DynamicObject) -> anyhow::Result<bool> {
    let name = gadget.name_any();
    let namespace = gadget.namespace().unwrap_or_default();
    let there: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource(version));
    // an item of a list may come without its type
    gadget.types.get_or_insert_with(|| kube::core::TypeMeta {
        api_version: resource(version).api_version,
        kind: "Gadget".to_owned(),
    });
    match there.replace(&name, &PostParams::default(), &gadget).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(false),
        Err(error) => Err(error).with_context(|| format!("write {namespace}/{name}")),
    }
}
