//! Which containers changed, told as soon as the runtime knows.
//!
//! Sources, best first: CRI `GetContainerEvents` (containerd from 1.7 on), containerd's own event stream on the same
//! socket (1.6), and nothing at all, where the reader is told to list every second. The reader must treat an event as
//! a hint to look: streams break, and what happened meanwhile is covered by [`Event::Resync`].

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use prost::Message;
use tonic::{Code, Status, Streaming};

use crate::client::Runtime;
use crate::containerd::events_client::EventsClient;
use crate::containerd::{Envelope, Subject, SubscribeRequest, TaskExit};
use crate::v1::runtime_service_client::RuntimeServiceClient;
use crate::v1::{ContainerEventResponse, ContainerEventType, GetEventsRequest};

/// The containerd namespace of everything made through CRI.
const CRI_NAMESPACE: &str = "k8s.io";
/// Topics that change what CRI shows; execs (probes!) are left out at the source.
const TOPICS: [&str; 5] =
    ["/tasks/start", "/tasks/exit", "/tasks/oom", "/tasks/paused", "/containers/delete"];
/// A Go server sends no headers before its first message: a subscription this long unanswered is a subscription.
const SUBSCRIBED_AFTER: Duration = Duration::from_millis(200);
const RELIST: Duration = Duration::from_secs(1);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// A hint to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This container (or sandbox) changed.
    Container {
        /// Container id.
        id: String,
        /// Created, started, stopped or deleted.
        kind: Kind,
    },
    /// Anything may have changed: a subscription began, or there is no event source.
    Resync,
}

/// What happened to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The container was created.
    Created,
    /// Its process started.
    Started,
    /// Its process ended (or was killed for memory).
    Stopped,
    /// The container was deleted.
    Deleted,
}

type Opening<T> = Pin<Box<dyn Future<Output = Result<Streaming<T>, Status>> + Send>>;

enum Stream<T> {
    Opening { call: Opening<T>, announced: bool },
    Open(Box<Streaming<T>>),
}

impl<T> Stream<T> {
    /// `Ok(None)`: newly subscribed. Cancel-safe.
    async fn next(&mut self) -> Result<Option<T>, Status> {
        loop {
            match self {
                Self::Opening { call, announced: false } => {
                    match tokio::time::timeout(SUBSCRIBED_AFTER, call.as_mut()).await {
                        Ok(stream) => *self = Self::Open(Box::new(stream?)),
                        Err(_) => {
                            if let Self::Opening { announced, .. } = self {
                                *announced = true;
                            }
                        }
                    }
                    return Ok(None);
                }
                Self::Opening { call, announced: true } => *self = Self::Open(Box::new(call.as_mut().await?)),
                Self::Open(stream) => {
                    return match stream.message().await? {
                        Some(message) => Ok(Some(message)),
                        None => Err(Status::unavailable("the event stream ended")),
                    };
                }
            }
        }
    }
}

enum Source {
    Choose,
    Cri(Stream<ContainerEventResponse>),
    Containerd(Stream<Envelope>),
    Relist,
}

/// An endless reader of events; one a process, since containerd 1.7 hands each CRI event to one subscriber only.
pub struct Events {
    runtime: Runtime,
    source: Source,
    retry: Duration,
}

impl Events {
    /// Events of `runtime`; nothing is subscribed before the first [`Events::next`].
    pub fn new(runtime: Runtime) -> Self {
        Self { runtime, source: Source::Choose, retry: RETRY_FIRST }
    }

    /// The next hint. Never fails: a broken source is replaced or retried with growing pauses. Cancel-safe.
    pub async fn next(&mut self) -> Event {
        loop {
            let (failure, fallback) = match &mut self.source {
                Source::Choose => {
                    self.source = Source::Cri(self.open_cri());
                    continue;
                }
                Source::Cri(stream) => match stream.next().await {
                    Ok(None) => return Event::Resync,
                    Ok(Some(message)) => {
                        self.retry = RETRY_FIRST;
                        return from_cri(message);
                    }
                    Err(status) => (status, Some(())),
                },
                Source::Containerd(stream) => match stream.next().await {
                    Ok(None) => return Event::Resync,
                    Ok(Some(envelope)) => {
                        self.retry = RETRY_FIRST;
                        match from_containerd(&envelope) {
                            Some(event) => return event,
                            None => continue,
                        }
                    }
                    Err(status) => (status, None),
                },
                Source::Relist => {
                    tokio::time::sleep(RELIST).await;
                    return Event::Resync;
                }
            };
            if failure.code() == Code::Unimplemented {
                self.source = match fallback {
                    Some(()) => Source::Containerd(self.open_containerd()),
                    None => {
                        tracing::info!("the runtime has no event stream: listing every second");
                        Source::Relist
                    }
                };
                continue;
            }
            tracing::debug!(error = %failure, "runtime event stream broke");
            // A cancelled wait only retries sooner: the source is already reset.
            self.source = Source::Choose;
            let pause = self.retry;
            self.retry = (self.retry * 2).min(RETRY_LAST);
            tokio::time::sleep(pause).await;
        }
    }

    fn open_cri(&self) -> Stream<ContainerEventResponse> {
        let mut client = RuntimeServiceClient::new(self.runtime.channel())
            .max_decoding_message_size(crate::client::MAX_MESSAGE_BYTES);
        let call = async move { Ok(client.get_container_events(GetEventsRequest {}).await?.into_inner()) };
        Stream::Opening { call: Box::pin(call), announced: false }
    }

    fn open_containerd(&self) -> Stream<Envelope> {
        let mut client = EventsClient::new(self.runtime.channel());
        let filters =
            TOPICS.iter().map(|topic| format!("namespace=={CRI_NAMESPACE},topic==\"{topic}\"")).collect();
        let call = async move { Ok(client.subscribe(SubscribeRequest { filters }).await?.into_inner()) };
        Stream::Opening { call: Box::pin(call), announced: false }
    }
}

fn from_cri(message: ContainerEventResponse) -> Event {
    let kind = match message.container_event_type() {
        ContainerEventType::ContainerCreatedEvent => Kind::Created,
        ContainerEventType::ContainerStartedEvent => Kind::Started,
        ContainerEventType::ContainerStoppedEvent => Kind::Stopped,
        ContainerEventType::ContainerDeletedEvent => Kind::Deleted,
    };
    Event::Container { id: message.container_id, kind }
}

fn from_containerd(envelope: &Envelope) -> Option<Event> {
    let payload = envelope.event.as_ref()?;
    let kind = match envelope.topic.as_str() {
        "/tasks/start" | "/tasks/paused" => Kind::Started,
        "/tasks/exit" => {
            let exit = TaskExit::decode(payload.value.as_slice()).ok()?;
            if exit.id != exit.container_id {
                return None;
            }
            return Some(Event::Container { id: exit.container_id, kind: Kind::Stopped });
        }
        "/tasks/oom" => Kind::Stopped,
        "/containers/delete" => Kind::Deleted,
        _ => return None,
    };
    let subject = Subject::decode(payload.value.as_slice()).ok()?;
    Some(Event::Container { id: subject.container_id, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(topic: &str, value: Vec<u8>) -> Envelope {
        let event = prost_types::Any { type_url: "t".to_owned(), value };
        Envelope { namespace: CRI_NAMESPACE.to_owned(), topic: topic.to_owned(), event: Some(event) }
    }

    #[test]
    fn an_exec_that_ends_is_no_event_of_the_container() {
        let exec = TaskExit { container_id: "c".into(), id: "probe".into() }.encode_to_vec();
        assert_eq!(from_containerd(&envelope("/tasks/exit", exec)), None);
        let init = TaskExit { container_id: "c".into(), id: "c".into() }.encode_to_vec();
        let stopped = Event::Container { id: "c".into(), kind: Kind::Stopped };
        assert_eq!(from_containerd(&envelope("/tasks/exit", init)), Some(stopped));
    }

    #[test]
    fn other_fields_of_a_task_event_are_skipped() {
        // TaskStart: container_id = 1, pid = 2 (a number where TaskExit has a string).
        let mut start = Subject { container_id: "c".into() }.encode_to_vec();
        start.extend([0x10, 0x2a]);
        let started = Event::Container { id: "c".into(), kind: Kind::Started };
        assert_eq!(from_containerd(&envelope("/tasks/start", start)), Some(started));
        assert_eq!(from_containerd(&envelope("/tasks/start", vec![0xff])), None, "garbage is no event");
    }

    #[tokio::test]
    async fn a_runtime_that_is_away_is_retried_without_an_event() {
        let runtime = Runtime::connect("unix:///nonexistent/cri.sock", Default::default()).unwrap();
        let mut events = Events::new(runtime);
        let wait = tokio::time::timeout(Duration::from_millis(400), events.next());
        assert!(wait.await.is_err());
    }
}
