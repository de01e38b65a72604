//! The cluster's trust: authorities, certificates, service account keys, join tokens, kubeconfigs.
//!
//! - [`cluster`]: every file a control plane needs, created, completed and renewed by [`cluster::Pki::load_or_create`]
//! - [`rotation`]: another authority in an authority's place; [`expiry`]: when certificates end
//! - [`etcd`]: the files of an etcd member beside it; [`sealed`]: files under a key that only the operator holds
//! - [`authority`]: a certificate authority that issues leaves and signs requests
//! - [`certificate`]: what a certificate says, and when it must be renewed
//! - [`request`]: certificate signing requests, made and parsed; [`signer`]: the rules of the `kubernetes.io/*` signers
//! - [`node`]: who a node is; [`part`]: the parts of a node that have certificates of their own
//! - [`service_account`]: keys and tokens of service accounts; [`openid`]: the documents that let others verify them; [`jwk`]: keys and tokens of others
//! - [`bootstrap`]: tokens that let a machine join, and the proof that it talks to the right cluster
//! - [`kubeconfig`]: the file a client reads; [`files`]: writes that are whole or not at all; [`pem`]: text to DER
//! - [`tls`]: peers whose certificates are judged later, or not at all; [`handshake`]: what both sides may agree on
//! - `key`: private keys; `der`: the few ASN.1 forms a certificate is made of; `error`: what can go wrong, for all of them
//!
//! Nothing here reads the clock: `now` is an argument.

#![warn(unreachable_pub)]

pub mod authority;
pub mod bootstrap;
mod certificate;
mod cluster;
mod der;
mod error;
pub mod etcd;
pub mod expiry;
pub mod files;
pub mod handshake;
pub mod jwk;
mod key;
pub mod kubeconfig;
pub mod node;
pub mod openid;
pub mod part;
pub mod pem;
mod public;
mod renewal;
pub mod request;
pub mod rotation;
pub mod sealed;
pub mod service_account;
pub mod signer;
pub mod tls;

pub use authority::{Authority, Issued, Leaf};
pub use certificate::{Certificate, needs_renewal};
pub use cluster::{ClusterNames, LEAVES, Pki, load_authority};
pub use error::Error;
pub use kubeconfig::Kubeconfig;
pub use request::CertificateRequest;
