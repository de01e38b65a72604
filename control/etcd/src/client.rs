//! Several members as one: calls go to one member until it does not answer, then to the next.
//!
//! A member that is down refuses connections at once; one that is frozen or cut off shows by an attempt that outlives its patience, or by
//! pings that are not answered. Whichever call notices moves all of them on. How often a call is sent depends on [`Repeat`]: a read may be
//! sent again whatever became of it; a write only while it is certain that nobody has seen it.

use crate::failure::{Effect, Failure, Verdict, judge};
use crate::pin::{Headed, Pin};
use crate::v3::kv_client::KvClient;
use crate::v3::lease_client::LeaseClient;
use crate::v3::maintenance_client::MaintenanceClient;
use crate::v3::{self};
use crate::watch::WatchStream;
use parking_lot::RwLock;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use supervise::Backoff;
use tokio::time::Instant;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Response, Status};

/// How long a connection may take to come up.
const CONNECT: Duration = Duration::from_secs(2);
/// How long one member may take to answer before another is asked.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(3);
/// As [`ATTEMPT`], for reads of many objects.
pub(crate) const LONG_ATTEMPT: Duration = Duration::from_secs(30);
/// How long members are tried in turn: an election takes a second or two.
const PATIENCE: Duration = Duration::from_secs(12);
/// The longest pause between two members.
const PAUSE: Duration = Duration::from_millis(500);
/// A call is answered or given up within this.
pub const LONGEST_CALL: Duration = PATIENCE.saturating_add(PAUSE).saturating_add(ATTEMPT);
/// etcd takes pings more often than every five seconds for abuse (`--grpc-keepalive-min-time`).
const PING: Duration = Duration::from_secs(6);
const PING_ANSWER: Duration = Duration::from_secs(3);
/// What one stream may have unread; what all may have together is bounded by nothing that a stalled stream could use up.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 1 << 30;

/// Where the members are and how they are spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `http://HOST:PORT` or `https://HOST:PORT`, at least one.
    pub endpoints: Vec<String>,
    /// PEM of the authorities that the members' certificates are checked against.
    pub authorities: Option<Vec<u8>>,
    /// PEM of our certificate and of its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The cluster's id, where it is known: whoever is of another one is not listened to.
    pub cluster: Option<u64>,
}

/// Whether a call may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// As often as it takes: it changes nothing, or nothing more.
    Always,
    /// Only where it is certain that nobody has seen it.
    Unseen,
}

struct Member {
    url: String,
    channel: Channel,
    /// It has said that it is of the right cluster, and has not failed since.
    known: AtomicBool,
}

struct Members {
    all: Vec<Member>,
    pin: Pin,
    /// The member asked, as an index that only grows.
    turn: AtomicUsize,
}

/// A client of all members. Cheap to clone; connects when it is first used.
#[derive(Clone)]
pub struct Client {
    members: Arc<RwLock<Arc<Members>>>,
}

/// A client whose configuration is of no use.
#[derive(Debug, thiserror::Error)]
#[error("etcd endpoint {endpoint:?}")]
pub struct BadEndpoint {
    endpoint: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Client {
    /// A client of the members `config` names. Connects to none yet; must be called within a runtime.
    ///
    /// # Errors
    /// For an endpoint that is no URL, and for certificates that are none.
    pub fn new(config: &Config) -> Result<Self, BadEndpoint> {
        Ok(Self { members: Arc::new(RwLock::new(Arc::new(Members::new(config)?))) })
    }

    /// Uses the members that `config` names now, or other certificates, from the next call on. What is under way goes on as it is.
    ///
    /// # Errors
    /// As [`Client::new`]; then nothing has changed.
    pub fn replace(&self, config: &Config) -> Result<(), BadEndpoint> {
        let members = Arc::new(Members::new(config)?);
        *self.members.write() = members;
        Ok(())
    }

    /// Reads a range of keys.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub async fn range(&self, request: v3::RangeRequest) -> Result<v3::RangeResponse, Failure> {
        let attempt = if request.range_end.is_empty() || request.count_only { ATTEMPT } else { LONG_ATTEMPT };
        self.call(Repeat::Always, attempt, |channel| {
            let request = request.clone();
            async move { kv(channel).range(request).await }
        })
        .await
    }

    /// As [`Client::range`] of one key, but asks a second member beside the first where that says nothing for `patience`: whoever looks how the
    /// members are must not hang with a frozen one. The second one's answer moves all calls on to it.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub async fn range_hedged(
        &self,
        request: v3::RangeRequest,
        patience: Duration,
    ) -> Result<v3::RangeResponse, Failure> {
        let mut first = std::pin::pin!(self.range(request.clone()));
        let members = self.members();
        let turn = members.turn();
        if let Ok(answer) = tokio::time::timeout(patience, &mut first).await {
            return answer;
        }
        if members.all.len() == 1 {
            return first.await;
        }
        let send = |channel| {
            let request = request.clone();
            async move { kv(channel).range(request).await }
        };
        tokio::select! {
            answer = &mut first => answer,
            second = members.attempt(turn.wrapping_add(1), ATTEMPT, send) => match second {
                Ok(answer) => {
                    members.fail(turn, "another one was faster by far");
                    Ok(answer)
                }
                Err(_) => first.await,
            },
        }
    }

    /// Runs a transaction.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub async fn txn(&self, request: v3::TxnRequest, repeat: Repeat) -> Result<v3::TxnResponse, Failure> {
        self.call(repeat, ATTEMPT, |channel| {
            let request = request.clone();
            async move { kv(channel).txn(request).await }
        })
        .await
    }

    /// Forgets history before `revision`.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub async fn compact(&self, revision: i64) -> Result<(), Failure> {
        // Said twice, the second time is refused as compacted already.
        self.call(Repeat::Always, LONG_ATTEMPT, |channel| async move {
            kv(channel).compact(v3::CompactionRequest { revision, physical: false }).await
        })
        .await
        .map(|_| ())
    }

    /// Makes a lease of `ttl` seconds; one made twice for an answer that was lost ends by itself.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub async fn grant(&self, ttl: i64) -> Result<i64, Failure> {
        let granted = self
            .call(Repeat::Always, ATTEMPT, |channel| async move {
                LeaseClient::new(channel).lease_grant(v3::LeaseGrantRequest { ttl, id: 0 }).await
            })
            .await?;
        Ok(granted.id)
    }

    /// Opens a watch at the member whose turn it is. It ends when that member loses its leader.
    ///
    /// # Errors
    /// Why the member did not take it; the next call asks another.
    pub async fn watch(&self, create: v3::WatchCreateRequest) -> Result<WatchStream, Status> {
        let members = self.members();
        let turn = members.turn();
        let channel = members.member(turn).channel.clone();
        let opened = async {
            members.recognise(turn).await?;
            WatchStream::open(channel, create).await
        };
        let opened = tokio::time::timeout(ATTEMPT, opened).await;
        let opened = opened.unwrap_or_else(|_| Err(Status::deadline_exceeded("the watch is not taken")));
        if let Err(status) = &opened {
            members.fail(turn, status.message());
        }
        opened.map(|stream| stream.of(turn, members.pin))
    }

    /// Says that a watch failed or stands still, so that the next goes to another member.
    pub fn abandon(&self, stream: &WatchStream, why: &str) {
        self.members().fail(stream.turn, why);
    }

    fn members(&self) -> Arc<Members> {
        self.members.read().clone()
    }

    /// Has one member after the other `begin` something that is of a single member, given the cluster it has to be of, until one does.
    pub(crate) async fn with_some_member<T, F>(&self, begin: impl Fn(Channel, Pin) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let members = self.members();
        let mut left = members.all.len();
        loop {
            let turn = members.turn();
            let begun = begin(members.member(turn).channel.clone(), members.pin).await;
            left = left.saturating_sub(1);
            match begun {
                Err(status) if left > 0 => members.fail(turn, status.message()),
                begun => return begun,
            }
        }
    }

    /// Calls until a member answers, the call must not be sent again, or patience ends.
    pub(crate) async fn call<T, F>(
        &self,
        repeat: Repeat,
        attempt: Duration,
        send: impl Fn(Channel) -> F,
    ) -> Result<T, Failure>
    where
        T: Headed,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let until = Instant::now() + PATIENCE;
        let mut effect = Effect::None;
        let mut pauses = Backoff::new(Duration::from_millis(20), PAUSE);
        for tried in 1.. {
            let members = self.members();
            let turn = members.turn();
            let (status, verdict) = match members.attempt(turn, attempt, &send).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            if verdict == Verdict::Answer {
                return Err(Failure { status, effect, unreachable: false });
            }
            members.fail(turn, status.message());
            if verdict == Verdict::Lost {
                effect = Effect::Unknown;
            }
            let over = Instant::now() >= until;
            if over || (verdict == Verdict::Lost && repeat == Repeat::Unseen) {
                return Err(Failure { status, effect, unreachable: true });
            }
            if tried % members.all.len() == 0 {
                pauses.pause().await;
            }
        }
        unreachable!("the loop ends by returning only")
    }
}

impl Members {
    fn new(config: &Config) -> Result<Self, BadEndpoint> {
        let all = config.endpoints.iter().map(|url| member(config, url)).collect::<Result<Vec<_>, _>>()?;
        if all.is_empty() {
            let source = "at least one is needed".into();
            return Err(BadEndpoint { endpoint: String::new(), source });
        }
        // Clients begin with different members.
        let first = RandomState::new().hash_one(()) as usize % all.len();
        Ok(Self { all, pin: Pin(config.cluster), turn: AtomicUsize::new(first) })
    }

    fn turn(&self) -> usize {
        self.turn.load(Ordering::Relaxed)
    }

    fn member(&self, turn: usize) -> &Member {
        &self.all[turn % self.all.len()]
    }

    /// Calls the member of `turn` once; says what became of it otherwise, and what that means.
    async fn attempt<T, F>(
        &self,
        turn: usize,
        patience: Duration,
        send: impl Fn(Channel) -> F,
    ) -> Result<T, (Status, Verdict)>
    where
        T: Headed,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let recognised = within(ATTEMPT, self.recognise(turn)).await;
        recognised.map_err(|status| (status, Verdict::NotSent))?;
        let answer = within(patience, send(self.member(turn).channel.clone())).await;
        let ours = answer.and_then(|response| self.pin.check(response.get_ref()).map(|()| response));
        ours.map(Response::into_inner).map_err(|status| {
            let verdict = judge(&status);
            (status, verdict)
        })
    }

    /// Makes sure that the member of `turn` is of the cluster it has to be of, before anything is sent that it might obey.
    async fn recognise(&self, turn: usize) -> Result<(), Status> {
        let member = self.member(turn);
        if self.pin == Pin(None) || member.known.load(Ordering::Relaxed) {
            return Ok(());
        }
        let status = MaintenanceClient::new(member.channel.clone()).status(v3::StatusRequest {}).await?;
        self.pin.check(status.get_ref())?;
        member.known.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The member of `turn` failed: moves on from it, unless somebody has.
    fn fail(&self, turn: usize, why: &str) {
        self.member(turn).known.store(false, Ordering::Relaxed);
        let moved =
            self.turn.compare_exchange(turn, turn.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_ok() && self.all.len() > 1 {
            tracing::warn!(member = self.member(turn).url, why, "etcd: asking another member");
        }
    }
}

pub(crate) async fn within<T>(
    patience: Duration,
    answer: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let answer = tokio::time::timeout(patience, answer).await;
    answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("the member does not answer")))
}

pub(crate) fn kv(channel: Channel) -> KvClient<Channel> {
    // A page of a list may be large; what etcd accepts bounds what is sent.
    KvClient::new(channel).max_decoding_message_size(usize::MAX)
}

fn member(config: &Config, url: &str) -> Result<Member, BadEndpoint> {
    let bad =
        |source: tonic::transport::Error| BadEndpoint { endpoint: url.to_owned(), source: source.into() };
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(bad)?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING_ANSWER)
        // etcd takes pings without a stream for an abuse, and closes the connection.
        .keep_alive_while_idle(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    match endpoint.uri().scheme_str() {
        Some("https") => {
            let mut tls = ClientTlsConfig::new();
            if let Some(pem) = &config.authorities {
                tls = tls.ca_certificate(Certificate::from_pem(pem));
            }
            if let Some((certificate, key)) = &config.identity {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            endpoint = endpoint.tls_config(tls).map_err(bad)?;
        }
        Some("http") => {}
        _ => {
            let source = "the scheme must be http or https".into();
            return Err(BadEndpoint { endpoint: url.to_owned(), source });
        }
    }
    Ok(Member { url: url.to_owned(), channel: endpoint.connect_lazy(), known: AtomicBool::new(false) })
}
