//! Node ports: taken from the allocation that every API server of the cluster shares, ours and upstream's.
//!
//! One task of a server changes the allocation, by compare-and-swap, and answers everybody who wants or returns ports. What comes while it
//! writes waits and shares the next write, so that many Services at once cost few. It is at work until the last request has been answered. A
//! claim nobody waits for any more is given back with the next write; what is lost with a server is found by the repair (`upkeep::repair`). Upstream: `core/service/allocator/storage`.

use super::GRACE;
use super::allocation::{Allocation, PortRange};
use super::denied::{Denied, Refused};
use crate::registry::Registry;
use crate::registry::kind::Kind;
use crate::registry::storage;
use machinery::status::Status;
use store::{Entry, Error, Expect};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Where the allocation lies.
pub(crate) const KEY: &str = "/registry/ranges/servicenodeports";
/// Claims and returns that wait.
const WAITING: usize = 1024;
/// How many of them share a write.
const AT_ONCE: usize = 256;
/// Lost races after which those who wait are told. Somebody else wins each of them.
const TRIES: usize = 100;

enum Order {
    /// All of these, `None` for any port, or nothing.
    Take { wishes: Vec<Option<u16>>, answer: oneshot::Sender<Result<Vec<u16>, Refused>> },
    /// Nobody has these any more.
    Give { ports: Vec<u16>, since: Instant, answer: Option<oneshot::Sender<()>> },
}

/// The node ports of a server.
pub(crate) struct NodePorts {
    pub(crate) range: PortRange,
    orders: mpsc::Sender<Order>,
    keeper: Mutex<Keeper>,
}

struct Keeper {
    orders: mpsc::Receiver<Order>,
    /// The allocation as it was seen last.
    seen: Option<Entry>,
}

fn stopping() -> Status {
    Status::service_unavailable("the server is shutting down")
}

/// A failure of the store, as clients see it.
pub(crate) fn failed(operation: &str, error: &Error) -> Status {
    match Kind::of("", "services") {
        Some(kind) => storage::failed(&kind, "servicenodeports", operation, error),
        None => Status::internal_error(error),
    }
}

impl NodePorts {
    pub(crate) fn new(range: PortRange) -> Self {
        let (orders, received) = mpsc::channel(WAITING);
        Self { range, orders, keeper: Mutex::new(Keeper { orders: received, seen: None }) }
    }

    /// Takes a port for each wish, or nothing.
    pub(super) async fn take(&self, wishes: Vec<Option<u16>>) -> Result<Vec<u16>, Refused> {
        if wishes.is_empty() {
            return Ok(Vec::new());
        }
        let (answer, answered) = oneshot::channel();
        self.orders.send(Order::Take { wishes, answer }).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }

    /// Gives ports back that nobody has had since `since`, and waits until they are free, or are left to the repair.
    pub(super) async fn give(&self, ports: Vec<u16>, since: Instant) {
        if ports.is_empty() {
            return;
        }
        let (answer, answered) = oneshot::channel();
        if self.orders.send(Order::Give { ports, since, answer: Some(answer) }).await.is_ok() {
            let _ = answered.await;
        }
    }

    /// Gives ports back some time.
    pub(super) fn give_later(&self, ports: Vec<u16>) {
        if !ports.is_empty() {
            let _ = self.orders.try_send(Order::Give { ports, since: Instant::now(), answer: None });
        }
    }

    /// The allocation as it is now.
    pub(crate) async fn look(&self, registry: &Registry) -> Result<Option<(Allocation, Entry)>, Status> {
        match registry.backend.get(KEY).await.map_err(|e| failed("get", &e))? {
            Some(entry) => Ok(Some((Allocation::read(&entry.value).map_err(Status::internal_error)?, entry))),
            None => Ok(None),
        }
    }

    /// Answers orders until `stop`; from then on whoever comes is refused at once. To be run by one task.
    pub(crate) async fn keep(&self, registry: &Registry, stop: &CancellationToken) {
        let mut keeper = self.keeper.lock().await;
        let Keeper { orders, seen } = &mut *keeper;
        let mut batch = Vec::new();
        loop {
            let received = stop.run_until_cancelled(orders.recv_many(&mut batch, AT_ONCE)).await;
            let received = match received {
                Some(received) => received,
                None => {
                    // Who came before is answered.
                    orders.close();
                    orders.recv_many(&mut batch, AT_ONCE).await
                }
            };
            if received == 0 {
                return;
            }
            // Too long under way: somebody may have them by now.
            batch.retain(|order| !matches!(order, Order::Give { since, .. } if since.elapsed() > GRACE));
            let answers = self.write(registry, seen, &batch).await;
            let mut unwanted = Vec::new();
            for (order, taken) in batch.drain(..).zip(answers) {
                match (order, taken) {
                    (Order::Take { answer, .. }, taken) => {
                        if let Err(Ok(ports)) = answer.send(taken) {
                            unwanted.extend(ports);
                        }
                    }
                    (Order::Give { answer: Some(answer), .. }, _) => drop(answer.send(())),
                    (Order::Give { .. }, Err(Refused::Failed(error))) => {
                        tracing::warn!(%error, "node ports are not given back; the repair will find them");
                    }
                    (Order::Give { .. }, _) => {}
                }
            }
            self.give_later(unwanted);
        }
    }

    /// Carries all orders out in one write; an answer for each.
    async fn write(
        &self,
        registry: &Registry,
        seen: &mut Option<Entry>,
        orders: &[Order],
    ) -> Vec<Result<Vec<u16>, Refused>> {
        let to_all = |status: Status| orders.iter().map(|_| Err(status.clone().into())).collect();
        for _ in 0..TRIES {
            let entry = match seen.take() {
                Some(entry) => entry,
                None => match registry.backend.get(KEY).await {
                    Ok(Some(entry)) => entry,
                    Ok(None) => {
                        return orders
                            .iter()
                            .map(|_| Err(Refused::Denied { at: 0, why: Denied::NotReady }))
                            .collect();
                    }
                    Err(error) => return to_all(failed("get", &error)),
                },
            };
            let mut allocation = match Allocation::read(&entry.value) {
                Ok(allocation) => allocation,
                Err(error) => return to_all(Status::internal_error(error)),
            };
            let before = allocation.taken.clone();
            let answers: Vec<_> = orders
                .iter()
                .map(|order| match order {
                    Order::Take { wishes, .. } => allocation
                        .take(self.range, wishes, || registry.random())
                        .map_err(|(at, why)| Refused::Denied { at, why }),
                    Order::Give { ports, .. } => {
                        allocation.give(self.range, ports);
                        Ok(Vec::new())
                    }
                })
                .collect();
            if allocation.taken == before {
                // Nothing is to be done by an old look: what is refused may be free by now, what is given back may be taken.
                if !self.is_newest(registry, &entry).await {
                    continue;
                }
                *seen = Some(entry);
                return answers;
            }
            let bytes = match allocation.bytes() {
                Ok(bytes) => bytes,
                Err(error) => return to_all(Status::internal_error(error)),
            };
            match registry.backend.put(KEY, bytes, Expect::At(entry.mod_revision), None).await {
                Ok(written) => {
                    *seen = Some(written);
                    return answers;
                }
                Err(Error::Conflict { current, .. }) => *seen = current.map(|entry| *entry),
                // Where it is not known whether they are taken, the repair will know.
                Err(error) => return to_all(failed("write", &error)),
            }
        }
        to_all(Status::too_many_requests("too many servers allocate node ports at once", 1))
    }

    async fn is_newest(&self, registry: &Registry, entry: &Entry) -> bool {
        let now = registry.backend.get(KEY).await;
        matches!(now, Ok(Some(now)) if now.mod_revision == entry.mod_revision)
    }
}
