//! What the scheduler's file says of services outside that have a say.

use std::collections::BTreeSet;
use std::time::Duration;

/// How long one may take that says nothing of it.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// An extender, as the scheduler's file describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where it is; verbs are appended to it.
    pub url: String,
    /// Asked which nodes take a pod; empty: it is not.
    pub filter: String,
    /// Asked how well nodes suit a pod.
    pub prioritize: String,
    /// Asked to bind pods.
    pub bind: String,
    /// Asked whom to evict.
    pub preempt: String,
    /// What its scores are multiplied with.
    pub weight: i64,
    /// It knows nodes by their names.
    pub cached: bool,
    /// It is asked about pods that ask for one of these; about all where there is none.
    pub managed: BTreeSet<String>,
    /// Those of them that are its business alone.
    pub ignored: BTreeSet<String>,
    /// Pods are scheduled without it, too.
    pub ignorable: bool,
    /// How long it may take.
    pub timeout: Duration,
    /// How it proves itself.
    pub tls: Tls,
}

/// TLS to an extender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Any server is believed.
    pub insecure: bool,
    /// The name on its certificate, if it is not the URL's.
    pub server_name: Option<String>,
    /// Who signs its certificate, as DER; the machine's authorities where there is none.
    pub authorities: Vec<Vec<u8>>,
    /// The certificate and the key that are shown to it, as base64 of PEM.
    pub identity: Option<(String, String)>,
}
