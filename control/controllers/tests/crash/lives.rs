//! One life of the controllers after the other, each ended as `kill -9` would: at a write, before or after the store had it.

use crate::server::Server;
use controllers::{Config, Pool};
use futures::future::BoxFuture;
use http::{Method, Request};
use kube::client::Body;
use pki::service_account::SigningKey;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;
use supervise::Supervisor;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// When a life ends.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    /// At which write, from 1; what the server refuses does not count.
    pub write: usize,
    /// Whether the store had it; if so, nobody heard the answer.
    pub stored: bool,
}

/// How the controllers live.
pub struct Lives {
    death: Option<Death>,
}

impl Lives {
    pub fn undisturbed() -> Self {
        Self { death: None }
    }

    pub fn ending_with(death: Death) -> Self {
        Self { death: Some(death) }
    }

    /// Starts the first life on a thread of its own; each is followed by the next until [`Living::end`].
    pub fn begin(self, server: &Arc<Server>) -> Living {
        let (over, count) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let (server, token, lived) = (server.clone(), over.clone(), count.clone());
        let thread = std::thread::spawn(move || {
            while !token.is_cancelled() {
                lived.fetch_add(1, Ordering::Relaxed);
                life(&server, self.death, &token);
            }
        });
        Living { over, count, thread }
    }
}

/// Controllers that live, die and live again.
pub struct Living {
    over: CancellationToken,
    count: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Living {
    /// Ends the last life; says how many there were.
    pub async fn end(self) -> usize {
        self.over.cancel();
        tokio::task::spawn_blocking(move || self.thread.join().unwrap()).await.unwrap();
        self.count.load(Ordering::Relaxed)
    }
}

fn life(server: &Server, death: Option<Death>, over: &CancellationToken) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mortal =
        Mortal { server: server.service("system:kube-controller-manager"), death, state: Arc::default() };
    let dead = mortal.state.clone();
    let key = Arc::new(SigningKey::generate().unwrap());
    let authority = server.authority.clone();
    runtime.spawn(async move {
        let client = kube::Client::new(mortal, "default");
        let mut config = Config::new(&client, vec!["10.244.0.0/16".parse().unwrap()], authority, key);
        config.options.load_balancing.pools =
            vec![Pool::of_ranges("default", &["192.0.2.1".to_owned()]).unwrap()];
        controllers::run(client, config, &Supervisor::default(), CancellationToken::new()).await;
    });
    runtime.block_on(async {
        tokio::select! {
            () = dead.dies.notified() => {}
            () = over.cancelled() => {}
        }
        dead.settle().await;
    });
    // whatever else was under way is dropped where it stood
    runtime.shutdown_background();
}

#[derive(Default)]
struct State {
    /// Writes that changed something or could have; events, which only report, do not count.
    stored: AtomicUsize,
    dies: Notify,
    dead: AtomicBool,
    /// Writes that the server has: it does them though who sent them is dead, and before the next life looks.
    sent: watch::Sender<usize>,
}

impl State {
    /// Ends the life; nothing is answered any more.
    async fn die<T>(&self) -> T {
        self.dead.store(true, Ordering::Relaxed);
        self.dies.notify_one();
        std::future::pending().await
    }

    /// Sends nothing more, and waits until what was sent is done.
    async fn settle(&self) {
        self.dead.store(true, Ordering::Relaxed);
        let mut sent = self.sent.subscribe();
        let done = sent.wait_for(|sent| *sent == 0);
        tokio::time::timeout(Duration::from_secs(30), done).await.expect("the server answers").unwrap();
    }
}

/// The way to the server: the write that ends the life is never answered.
#[derive(Clone)]
struct Mortal {
    server: apiserver::local::LocalService,
    death: Option<Death>,
    state: Arc<State>,
}

impl tower::Service<Request<Body>> for Mortal {
    type Response = apiserver::Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let writes = request.method() != Method::GET && !request.uri().path().ends_with("/events");
            let Some(death) = this.death.filter(|_| writes) else {
                return this.server.oneshot(request).await;
            };
            let state = &this.state;
            let last = !death.stored && state.stored.load(Ordering::Relaxed) + 1 >= death.write;
            if last || state.dead.load(Ordering::Relaxed) {
                return state.die().await;
            }
            state.sent.send_modify(|sent| *sent += 1);
            let answer = this.server.oneshot(request).await;
            state.sent.send_modify(|sent| *sent -= 1);
            let answer = answer?;
            if answer.status().is_success() && state.stored.fetch_add(1, Ordering::Relaxed) + 1 >= death.write
            {
                return state.die().await;
            }
            Ok(answer)
        })
    }
}
