//! How often a part asks the API server: upstream's `--kube-api-qps` and `--kube-api-burst`, a bucket of so many requests that fills at so
//! many a second. Each client has a bucket of its own, as upstream's have; without the flags nobody waits: the API server's flow control is fairer.

use crate::flags::Flags;
use anyhow::bail;

/// How often one client may ask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limit {
    /// Requests a second.
    pub(crate) qps: f64,
    /// Requests at once.
    pub(crate) burst: u32,
}

impl Limit {
    /// What is given, the rest by `default`; `None` where nothing is, or the rate is below nothing, which stands for no limit.
    pub(crate) fn given(qps: Option<f64>, burst: Option<i64>, default: Self) -> Option<Self> {
        if qps.is_none() && burst.is_none() {
            return None;
        }
        let qps = qps.unwrap_or(default.qps);
        let burst = burst.map_or(default.burst, |burst| u32::try_from(burst).unwrap_or(u32::MAX));
        (qps > 0.0).then_some(Self { qps, burst: burst.max(1) })
    }

    /// What the flags say. Nothing at all stands for client-go's own default.
    pub(crate) fn of_flags(flags: &Flags, default: Self) -> anyhow::Result<Option<Self>> {
        const NOTHING: Limit = Limit { qps: 5.0, burst: 10 };
        let burst = flags.int("kube-api-burst");
        if let Some(burst) = burst.filter(|burst| *burst < 0) {
            bail!("clientConnection.burst: Invalid value: {burst}: must be non-negative");
        }
        let qps = flags.float("kube-api-qps").map(|qps| if qps == 0.0 { NOTHING.qps } else { qps });
        let burst = burst.map(|burst| if burst == 0 { NOTHING.burst.into() } else { burst });
        Ok(Self::given(qps, burst, default))
    }

    /// The same for a client that asks more than others.
    pub(crate) fn times(self, qps: f64, burst: u32) -> Self {
        Self { qps: self.qps * qps, burst: self.burst.saturating_mul(burst) }
    }
}

/// The client, asking no more often than `limit`.
pub(crate) fn limited(client: kube::Client, limit: Option<Limit>) -> kube::Client {
    match limit {
        Some(limit) => node::limited_client(client, limit.qps, limit.burst),
        None => client,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;
    use crate::parts::{controllers, scheduler};
    use http::{Request, Response};
    use kube::client::Body;
    use parking_lot::Mutex;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn without_flags_nobody_waits() {
        let of = |name: &str, line: &str, default| {
            let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let flags = Component::named(name).unwrap().table().parse(&arguments).unwrap();
            assert!(flags.unused().is_empty(), "{name} {line}");
            Limit::of_flags(&flags, default).map_err(|error| error.to_string())
        };
        for (name, default) in
            [("kube-controller-manager", controllers::LIMIT), ("kube-scheduler", scheduler::LIMIT)]
        {
            let of = |line: &str| of(name, line, default);
            assert_eq!(of(""), Ok(None));
            assert_eq!(of("--kube-api-qps=7"), Ok(Some(Limit { qps: 7.0, ..default })));
            assert_eq!(of("--kube-api-burst=7"), Ok(Some(Limit { burst: 7, ..default })));
            assert_eq!(of("--kube-api-qps=-1"), Ok(None));
            assert_eq!(of("--kube-api-qps=0 --kube-api-burst=0"), Ok(Some(Limit { qps: 5.0, burst: 10 })));
            let error = of("--kube-api-burst=-1").unwrap_err();
            assert_eq!(error, "clientConnection.burst: Invalid value: -1: must be non-negative");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_asks_no_more_often_than_it_may() {
        let (asked, times) = (Arc::new(Mutex::new(Vec::new())), 7);
        let noted = asked.clone();
        let start = Instant::now();
        let server = tower::service_fn(move |_: Request<Body>| {
            // The timer's grain is a millisecond.
            noted.lock().push(start.elapsed().as_millis() / 10 * 10);
            async { Ok::<_, std::convert::Infallible>(Response::new(Body::empty())) }
        });
        let client = limited(kube::Client::new(server, "d"), Some(Limit { qps: 2.0, burst: 3 }));
        assert_eq!(client.default_namespace(), "d");
        let request =
            || async { client.send(Request::get("/").body(Body::empty()).unwrap()).await.map(drop) };
        let all: Vec<_> = (0..times).map(|_| request()).collect();
        for answer in futures::future::join_all(all).await {
            answer.unwrap();
        }
        assert_eq!(*asked.lock(), [0, 0, 0, 500, 1000, 1500, 2000]);
        // What was not asked for a while may be asked at once, but no more than that.
        tokio::time::sleep(Duration::from_secs(60)).await;
        asked.lock().clear();
        for _ in 0..4 {
            request().await.unwrap();
        }
        let first = asked.lock()[0];
        assert_eq!(asked.lock().iter().map(|at| at - first).collect::<Vec<_>>(), [0, 0, 0, 500]);
    }
}
