//! NamespaceLifecycle: nothing is made in a namespace that does not exist or is going, and some namespaces never go.

use super::{Attributes, Operation, Verdict};
use crate::registry::Registry;
use crate::registry::kind::Kind;
use crate::registry::metadata::deleting;
use machinery::access::Get as _;
use machinery::status::Status;

/// Namespaces that may not be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) fn check<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if a.kind.is("", "namespaces") {
            if a.operation == Operation::Delete && IMMORTAL.contains(&a.name.as_str()) {
                return Err(a.forbidden("this namespace may not be deleted"));
            }
            return Ok(());
        }
        if !a.kind.resource.namespaced
            || a.operation == Operation::Delete
            || a.kind.is("authorization.k8s.io", "localsubjectaccessreviews")
        {
            return Ok(());
        }
        let Some(namespaces) = Kind::of("", "namespaces") else { return Ok(()) };
        // The watch cache first; where it does not know the namespace (yet), or it lives, the store has the last word on
        // creation: a namespace that has just begun to terminate must take nothing new.
        let namespace = match a.operation {
            Operation::Create => registry.read(&namespaces, "", &a.namespace).await?,
            _ => registry.lookup(&namespaces, "", &a.namespace).await?,
        };
        let Some(namespace) = namespace else {
            return Err(Status::not_found(&namespaces.gr(), &a.namespace));
        };
        let going = deleting(&namespace) || namespace.text("status.phase") == "Terminating";
        if a.operation == Operation::Create && going {
            let why = format!(
                "unable to create new content in namespace {} because it is being terminated",
                a.namespace
            );
            return Err(a.forbidden(why).with_cause(
                "NamespaceTerminating",
                format!("namespace {} is being terminated", a.namespace),
                "metadata.namespace",
            ));
        }
        Ok(())
    })
}
