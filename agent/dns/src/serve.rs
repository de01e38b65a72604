//! The sockets: a datagram or a stream's message in, [`decide`], the answer out. Requests in flight are bounded.

use crate::answer::{Decision, PLAIN_PAYLOAD, decide, encode, rotate};
use crate::cache::{Cache, Key};
use crate::metrics::{By, Metrics};
use crate::plan::Plan;
use crate::rename::Renamed;
use crate::resolvers::{Resolvers, Way};
use crate::upstream;
use crate::zone::Zone;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::Name;
use parking_lot::RwLock;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use supervise::{Backoff, Supervisor, Work, accept};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Forwarded datagrams waiting for an answer; more are refused.
const FORWARDS: usize = 1024;
/// Streams open at a time.
const STREAMS: usize = 256;
/// First and longest pause after the kernel refused to give us a question.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// Bytes of a datagram whoever sends it.
const USUAL_ROOM: usize = 4096;
/// How long a stream may be silent.
const STREAM_IDLE: Duration = Duration::from_secs(10);

/// What every socket answers from.
pub struct Answerer {
    zone: RwLock<Zone>,
    domain: Name,
    resolvers: Resolvers,
    cache: Cache,
    forwards: Arc<Semaphore>,
    forwarding: Work,
    streams: Work,
    complete: AtomicBool,
    answered: AtomicUsize,
    metrics: Metrics,
}

impl Answerer {
    /// Answers for `domain`, asks `upstream` for the rest.
    #[must_use]
    pub fn new(domain: Name, upstream: Vec<SocketAddr>, supervisor: &Supervisor) -> Self {
        Self {
            zone: RwLock::default(),
            domain,
            resolvers: Resolvers::new(upstream),
            cache: Cache::default(),
            forwards: Arc::new(Semaphore::new(FORWARDS)),
            forwarding: Work::new(supervisor, "dns/forward"),
            streams: Work::new(supervisor, "dns/stream"),
            complete: AtomicBool::new(false),
            answered: AtomicUsize::new(0),
            metrics: Metrics::default(),
        }
    }

    /// What is counted, as text.
    pub(crate) fn metrics(&self) -> String {
        self.metrics.render()
    }

    /// Whether the zone is complete.
    pub(crate) fn knows_everything(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Applies a change to the zone; answers see it at once.
    pub fn change(&self, change: impl FnOnce(&mut Zone)) {
        change(&mut self.zone.write());
    }

    /// Asks these for the rest from now on.
    pub(crate) fn set_upstream(&self, servers: Vec<SocketAddr>) {
        if self.resolvers.set_node(servers) {
            self.cache.clear();
            tracing::info!("other resolvers are asked from now on");
        }
    }

    /// Follows this plan from now on.
    pub(crate) fn set_plan(&self, plan: Plan) {
        if self.resolvers.set_plan(plan) {
            self.cache.clear();
            tracing::info!("the cluster's Corefile is followed as it is now");
        }
    }

    /// Says that the zone is complete: from now on "no such name" is true.
    pub fn know_everything(&self) {
        self.complete.store(true, Ordering::Release);
    }

    fn decide(&self, request: &Message) -> Decision {
        let decision = match self.resolvers.way(request, &self.domain) {
            Way::Known(response) => return Decision::Respond(response),
            Way::Elsewhere => return Decision::Forward,
            Way::Cluster => decide(request, &self.zone.read(), &self.domain),
        };
        match decision {
            Decision::Respond(mut response)
                if response.metadata.response_code == ResponseCode::NXDomain && !self.knows_everything() =>
            {
                response.metadata.response_code = ResponseCode::ServFail;
                response.authorities.clear();
                Decision::Respond(response)
            }
            Decision::Respond(mut response) => {
                rotate(&mut response, self.answered.fetch_add(1, Ordering::Relaxed));
                Decision::Respond(response)
            }
            decision => decision,
        }
    }

    /// Answers datagrams forever.
    pub async fn datagrams(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; 4096];
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            let (length, from) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                // a client that went away answers with "port unreachable"; it is no fault of the socket
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot receive a question");
                    backoff.pause().await;
                    continue;
                }
            };
            backoff.reset();
            let bytes = &buffer[..length];
            let Ok(mut request) = Message::from_vec(bytes) else {
                if let Some(answer) = malformed(bytes) {
                    let _ = socket.send_to(&answer, from).await;
                }
                continue;
            };
            let began = Instant::now();
            let renamed = self.resolvers.rename(&mut request);
            let decision = self.decide(&request);
            let decision = match decision {
                Decision::Respond(mut response) => {
                    self.count(&request, (true, from.ip()), response.metadata.response_code, began);
                    back(renamed.as_ref(), &mut response);
                    if let Ok(answer) = encode(&response, &request, true) {
                        let _ = socket.send_to(&answer, from).await;
                    }
                    continue;
                }
                decision => decision,
            };
            // what is kept costs nobody's time, even while those who are asked are silent
            if renamed.is_none()
                && matches!(decision, Decision::Forward)
                && let Some(answer) = self.kept(&request, bytes, true)
            {
                self.count_elsewhere(&request, (true, from.ip()), &answer, began);
                let _ = socket.send_to(&answer, from).await;
                continue;
            }
            let Ok(permit) = self.forwards.clone().try_acquire_owned() else {
                let mut failed = failure(&request, ResponseCode::ServFail);
                back(renamed.as_ref(), &mut failed);
                let _ = socket.send_to(&failed.to_vec().unwrap_or_default(), from).await;
                continue;
            };
            let (this, socket, bytes) = (self.clone(), socket.clone(), bytes.to_vec());
            self.forwarding.spawn(async move {
                let answer = this.elsewhere((&request, renamed.as_ref()), &bytes, decision, true).await;
                this.count_elsewhere(&request, (true, from.ip()), &answer, began);
                let _ = socket.send_to(&answer, from).await;
                drop(permit);
            });
        }
    }

    /// Answers streams until `stop`.
    pub async fn listen(self: Arc<Self>, listener: Arc<TcpListener>, stop: CancellationToken) {
        let serve = |stream, from: SocketAddr| {
            let this = self.clone();
            // What ends a stream is its client's affair.
            async move { drop(this.stream(stream, from.ip()).await) }
        };
        accept(&*listener, STREAMS, &self.streams, &stop, serve).await;
    }

    async fn stream(&self, mut stream: TcpStream, from: IpAddr) -> std::io::Result<()> {
        loop {
            let length = timeout(STREAM_IDLE, stream.read_u16()).await??;
            let mut bytes = vec![0; usize::from(length)];
            timeout(STREAM_IDLE, stream.read_exact(&mut bytes)).await??;
            let Ok(mut request) = Message::from_vec(&bytes) else { return Ok(()) };
            let began = Instant::now();
            let renamed = self.resolvers.rename(&mut request);
            let decision = self.decide(&request);
            let answer = match decision {
                Decision::Respond(mut response) => {
                    self.count(&request, (false, from), response.metadata.response_code, began);
                    back(renamed.as_ref(), &mut response);
                    encode(&response, &request, false).map_err(std::io::Error::other)?
                }
                other => {
                    let answer = self.elsewhere((&request, renamed.as_ref()), &bytes, other, false).await;
                    self.count_elsewhere(&request, (false, from), &answer, began);
                    answer
                }
            };
            let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
            stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat()).await?;
        }
    }

    fn count(&self, request: &Message, from: (bool, IpAddr), code: ResponseCode, began: Instant) {
        self.metrics.answered(request, &self.domain, from, (By::Zone, code), began);
    }

    /// The code of an answer that others gave is in the last bits of its fourth byte.
    fn count_elsewhere(&self, request: &Message, from: (bool, IpAddr), answer: &[u8], began: Instant) {
        let code = answer.get(3).map_or(ResponseCode::ServFail, |byte| ResponseCode::from(0, byte & 0xf));
        self.metrics.answered(request, &self.domain, from, (By::Upstream, code), began);
    }

    /// The answer of others to a request, which is `bytes` unless it was renamed.
    async fn elsewhere(
        &self,
        (request, renamed): (&Message, Option<&Renamed>),
        bytes: &[u8],
        decision: Decision,
        udp: bool,
    ) -> Vec<u8> {
        let instead = renamed.map(|_| request.to_vec().unwrap_or_default());
        let bytes = instead.as_deref().unwrap_or(bytes);
        let asked = match decision {
            Decision::Chase(response, next) => self.chase(*response, next, request, udp).await,
            _ => self.ask(request, bytes, udp, room(request)).await,
        };
        let answer = asked.unwrap_or_else(|error| {
            tracing::debug!(error = &error as &dyn std::error::Error, "no answer from upstream");
            failure(request, ResponseCode::ServFail).to_vec().unwrap_or_default()
        });
        let Some(renamed) = renamed else { return answer };
        let Ok(mut response) = Message::from_vec(&answer) else { return answer };
        renamed.back(&mut response);
        encode(&response, request, udp).unwrap_or_default()
    }

    /// What they said a moment ago.
    fn kept(&self, request: &Message, bytes: &[u8], udp: bool) -> Option<Vec<u8>> {
        let fits = if udp { payload(request) } else { usize::from(u16::MAX) };
        self.cache.get(&Key::of(request)?, bytes, fits, Instant::now())
    }

    /// What whoever is asked about such names says, or said a moment ago.
    async fn ask(
        &self,
        request: &Message,
        bytes: &[u8],
        udp: bool,
        room: usize,
    ) -> Result<Vec<u8>, upstream::Error> {
        if let Some(answer) = self.kept(request, bytes, udp) {
            return Ok(answer);
        }
        let key = Key::of(request);
        let name = request.queries.first().map(Query::name);
        let pool = name.and_then(|name| self.resolvers.pool(name)).ok_or(upstream::Error::None)?;
        let answer = pool.ask(bytes, udp, room).await?;
        // others may be asked by now, and what was kept was forgotten with the change
        let now = name.and_then(|name| self.resolvers.pool(name));
        let same = now.is_some_and(|now| Arc::ptr_eq(&now, &pool));
        if let Some(key) = key.filter(|_| same) {
            self.cache.put(key, bytes, &answer, Instant::now());
        }
        Ok(answer)
    }

    /// The alias with whatever upstream says of its target.
    async fn chase(
        &self,
        mut response: Message,
        next: Query,
        request: &Message,
        udp: bool,
    ) -> Result<Vec<u8>, upstream::Error> {
        let mut question = Message::new(request.metadata.id, MessageType::Query, OpCode::Query);
        question.metadata.recursion_desired = true;
        question.add_query(next);
        let bytes = question.to_vec().unwrap_or_default();
        let asked = match self.resolvers.way(&question, &self.domain) {
            // a name that the Corefile itself knows
            Way::Known(known) => Ok(known.to_vec().unwrap_or_default()),
            Way::Elsewhere | Way::Cluster => self.ask(&question, &bytes, udp, USUAL_ROOM).await,
        };
        match asked {
            Ok(answer) => {
                if let Ok(answer) = Message::from_vec(&answer) {
                    response.metadata.truncation |= answer.metadata.truncation;
                    response.answers.extend(answer.answers);
                }
            }
            // nobody knows more: the alias itself is known all the same
            Err(upstream::Error::None) => {}
            Err(error) => return Err(error),
        }
        let encoded = encode(&response, request, udp);
        Ok(encoded.or_else(|_| failure(request, ResponseCode::ServFail).to_vec()).unwrap_or_default())
    }
}

/// Bytes a datagram may have that answers a request as it came: what its client takes, and the resolver is told.
fn room(request: &Message) -> usize {
    let offered = request.edns.as_ref().map_or(0, |edns| usize::from(edns.max_payload()));
    offered.max(USUAL_ROOM)
}

/// Bytes of a datagram that its client takes.
fn payload(request: &Message) -> usize {
    request.edns.as_ref().map_or(PLAIN_PAYLOAD, |edns| edns.max_payload().max(PLAIN_PAYLOAD)).into()
}

/// Gives a response the name that was asked for.
fn back(renamed: Option<&Renamed>, response: &mut Message) {
    if let Some(renamed) = renamed {
        renamed.back(response);
    }
}

fn failure(request: &Message, code: ResponseCode) -> Message {
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.response_code = code;
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.add_queries(request.queries.clone());
    response
}

/// "Format error", where at least the request's id can be read and it is no response.
fn malformed(bytes: &[u8]) -> Option<Vec<u8>> {
    let header = bytes.get(..12)?;
    let is_response = header[2] & 0x80 != 0;
    let id = u16::from_be_bytes([header[0], header[1]]);
    (!is_response)
        .then(|| Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().unwrap_or_default())
}
