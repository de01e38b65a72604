//! Whether an owner may take in what it selects: asked of the API server itself, once before the first adoption (upstream's
//! `RecheckDeletionTimestamp`). What the informer shows of an owner may be older than its end.

use crate::informer::Kind;
use crate::queue::Key;
use crate::reconcile::{Doing, Error};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};

/// An owner in a namespace, as it can be asked for.
pub(crate) trait Adopter: Kind + Resource<Scope = NamespaceResourceScope, DynamicType = ()> {}
impl<K: Kind + Resource<Scope = NamespaceResourceScope, DynamicType = ()>> Adopter for K {}

/// The question of one reconciliation.
#[derive(Default)]
pub(crate) struct Adoption {
    asked: bool,
}

impl Adoption {
    /// Asks, unless it has been asked before.
    ///
    /// # Errors
    /// The owner is gone, is another one by now, or is being deleted: nothing is adopted. Or it cannot be read.
    pub(crate) async fn allowed<K: Adopter>(
        &mut self,
        client: &Client,
        owner: &K,
        key: &Key,
    ) -> Result<(), Error> {
        if self.asked {
            return Ok(());
        }
        let api: Api<K> = Api::namespaced(client.clone(), &key.namespace);
        let kind = K::kind(&());
        let fresh = api
            .get_metadata_opt(&key.name)
            .await
            .doing(|| format!("read {kind} {key} before an adoption"))?;
        let wanted = owner.meta().uid.as_deref();
        let Some(fresh) = fresh.filter(|fresh| fresh.metadata.uid.as_deref() == wanted) else {
            return Err(Error::Unusable(format!("{kind} {key} adopts nothing: it is gone")));
        };
        if fresh.metadata.deletion_timestamp.is_some() {
            return Err(Error::Unusable(format!("{kind} {key} adopts nothing: it is being deleted")));
        }
        self.asked = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use serde_json::json;

    const PATH: &str = "/apis/apps/v1/namespaces/n/replicasets/r";

    async fn allowed(there: Option<serde_json::Value>) -> bool {
        let fake = Fake::default();
        if let Some(metadata) = there {
            fake.put(PATH, json!({ "metadata": metadata }));
        }
        let owner: ReplicaSet =
            serde_json::from_value(json!({ "metadata": { "name": "r", "namespace": "n", "uid": "1" } }))
                .unwrap();
        Adoption::default().allowed(&fake.client(), &owner, &Key::new("n", "r")).await.is_ok()
    }

    #[tokio::test]
    async fn an_owner_that_is_gone_or_going_must_not_adopt() {
        let named = |uid: &str| json!({ "name": "r", "namespace": "n", "uid": uid });
        assert!(allowed(Some(named("1"))).await);
        assert!(!allowed(None).await, "gone");
        assert!(!allowed(Some(named("2"))).await, "made anew under the same name");
        let mut going = named("1");
        going["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(!allowed(Some(going)).await, "being deleted");
    }
}
