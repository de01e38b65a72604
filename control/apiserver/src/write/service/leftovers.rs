//! Addresses whose request ended before its Service was written: a task gives them back. What finds no place here, the repair finds.

use super::addresses::Claim;
use crate::write::Writer;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

/// Requests whose leftovers wait.
const WAITING: usize = 1024;

pub(crate) struct Leftovers {
    queue: mpsc::Sender<Vec<Claim>>,
    waiting: Mutex<mpsc::Receiver<Vec<Claim>>>,
}

impl Default for Leftovers {
    fn default() -> Self {
        let (queue, waiting) = mpsc::channel(WAITING);
        Self { queue, waiting: Mutex::new(waiting) }
    }
}

impl Leftovers {
    pub(super) fn add(&self, claims: Vec<Claim>) {
        if !claims.is_empty() {
            let _ = self.queue.try_send(claims);
        }
    }
}

impl Writer {
    /// Gives leftovers back until `stop`. To be run by one task.
    pub(crate) async fn clear_leftovers(&self, stop: &CancellationToken) {
        let mut waiting = self.leftovers.waiting.lock().await;
        loop {
            let received = match stop.run_until_cancelled(waiting.recv()).await {
                Some(received) => received,
                None => {
                    waiting.close();
                    waiting.recv().await
                }
            };
            let Some(claims) = received else { return };
            for claim in &claims {
                self.give_address(claim).await;
            }
        }
    }
}
