//! How far a start has come: what whoever started the agent waits for.

use tokio::sync::watch;

/// Told by the kubelet's parts, for as long as the agent runs. What was reached once stays so: a kubelet that is started again, or a server that is
/// away for a while, is trouble of its own.
#[derive(Clone, Debug)]
pub struct Progress {
    pub(crate) listening: watch::Sender<bool>,
    pub(crate) registered: watch::Sender<Option<String>>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { listening: watch::Sender::new(false), registered: watch::Sender::new(None) }
    }
}

impl Progress {
    /// What is waited for now; nothing, once the kubelet's port takes connections and the cluster has the node.
    #[must_use]
    pub fn waits_for(&self) -> Option<&'static str> {
        match (*self.listening.borrow(), self.registered.borrow().is_some()) {
            (true, true) => None,
            (true, false) => Some("waiting for the API server to take the node"),
            (false, true) => Some("waiting for the kubelet's port"),
            (false, false) => Some("waiting to join the cluster, and for the kubelet"),
        }
    }

    /// Waits until [`Self::waits_for`] says something else than `known`.
    pub async fn changed(&self, known: Option<&'static str>) {
        // Before the look: what changes after it is told.
        let (mut port, mut node) = (self.listening.subscribe(), self.registered.subscribe());
        while self.waits_for() == known {
            tokio::select! {
                // Their senders are ours.
                _ = port.changed() => {}
                _ = node.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_whose_port_does_not_listen_must_not_be_called_started() {
        let progress = Progress::default();
        assert!(progress.waits_for().is_some());
        progress.registered.send_replace(Some("uid".to_owned()));
        assert_eq!(progress.waits_for(), Some("waiting for the kubelet's port"));
        progress.listening.send_replace(true);
        assert_eq!(progress.waits_for(), None);
    }

    #[tokio::test]
    async fn a_change_while_nobody_waited_must_not_be_missed() {
        let progress = Progress::default();
        let known = progress.waits_for();
        progress.listening.send_replace(true);
        progress.changed(known).await;
        assert_eq!(progress.waits_for(), Some("waiting for the API server to take the node"));
    }
}
