//! What is counted of questions, under CoreDNS' names, as OpenMetrics text.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::net::IpAddr;
use std::time::Instant;

/// Media type of the exposition.
pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What CoreDNS calls a server block.
const SERVER: &str = "dns://:53";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Zoned {
    server: &'static str,
    zone: String,
    view: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    server: &'static str,
    zone: String,
    view: &'static str,
    proto: &'static str,
    family: &'static str,
    r#type: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    server: &'static str,
    zone: String,
    view: &'static str,
    rcode: String,
    plugin: &'static str,
}

/// Who answered, by the name of CoreDNS' plugin for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// We.
    Zone,
    /// Resolvers elsewhere.
    Upstream,
}

/// The counters of one server.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Asked, Counter>,
    responses: Family<Answered, Counter>,
    durations: Family<Zoned, Histogram, fn() -> Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Mutex::default(),
            requests: Family::default(),
            responses: Family::default(),
            durations: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_25, 2.0, 16))
            }),
        };
        {
            let mut registry = metrics.registry.lock();
            let dns = registry.sub_registry_with_prefix("coredns_dns");
            dns.register("requests", "Questions asked", metrics.requests.clone());
            dns.register("responses", "Answers given", metrics.responses.clone());
            dns.register("request_duration_seconds", "Time until an answer", metrics.durations.clone());
        }
        metrics
    }
}

impl Metrics {
    /// A request was answered with this code.
    pub(crate) fn answered(
        &self,
        request: &Message,
        domain: &Name,
        (udp, from): (bool, IpAddr),
        (by, code): (By, ResponseCode),
        began: Instant,
    ) {
        let query = request.queries.first();
        let inside = query.is_some_and(|query| domain.zone_of(query.name()));
        let zone = if inside { domain.to_string() } else { ".".to_owned() };
        let (server, view) = (SERVER, "");
        self.durations
            .get_or_create(&Zoned { server, zone: zone.clone(), view })
            .observe(began.elapsed().as_secs_f64());
        let asked = Asked {
            server,
            zone: zone.clone(),
            view,
            proto: if udp { "udp" } else { "tcp" },
            family: if from.to_canonical().is_ipv4() { "1" } else { "2" },
            r#type: query.map_or_else(|| "other".to_owned(), |query| kind(query.query_type())),
        };
        self.requests.get_or_create(&asked).inc();
        let plugin = if by == By::Zone { "kubernetes" } else { "forward" };
        self.responses.get_or_create(&Answered { server, zone, view, rcode: name(code), plugin }).inc();
    }

    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        if let Err(error) = encode(&mut out, &self.registry.lock()) {
            tracing::warn!(%error, "metrics cannot be written");
        }
        out
    }
}

/// Only kinds of records that people ask for become labels: clients choose them.
fn kind(kind: RecordType) -> String {
    use RecordType as R;
    match kind {
        R::A
        | R::AAAA
        | R::CNAME
        | R::MX
        | R::NS
        | R::PTR
        | R::SOA
        | R::SRV
        | R::TXT
        | R::DS
        | R::DNSKEY
        | R::HTTPS => kind.to_string(),
        _ => "other".to_owned(),
    }
}

fn name(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::BADVERS | ResponseCode::BADSIG => "BADVERS".to_owned(),
        other => format!("RCODE{}", u16::from(other)),
    }
}
