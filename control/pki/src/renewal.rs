//! A certificate issued again before its time, be it the control plane's or of etcd beside it.

use crate::authority::{LEAF_LIFE, Leaf};
use crate::certificate::Certificate;
use crate::cluster::{LEAVES, Pki, load_authority};
use crate::files::{self, PRIVATE, PUBLIC};
use crate::{Error, etcd};
use jiff::Timestamp;
use std::path::Path;

impl Pki {
    /// Issues one of the certificates again before its time, as it is, with another key. A server that runs sees it in its directory.
    pub fn renew(dir: &Path, name: &str, now: Timestamp) -> Result<(), Error> {
        let fail = |reason: &str| Error::Authority { name: name.to_owned(), reason: reason.to_owned() };
        let mut leaves = LEAVES.into_iter().chain(etcd::LEAVES);
        let Some((_, ca, purpose)) = leaves.find(|(leaf, ..)| *leaf == name) else {
            return Err(fail("no such certificate can be renewed"));
        };
        let (cert_path, key_path) = files::paths(dir, name);
        let old = Certificate::from_pem(&files::read(&cert_path)?)?;
        let leaf = Leaf {
            common_name: old.common_name,
            organizations: old.organizations,
            dns_names: old.dns_names,
            ips: old.ips,
            purpose,
            lifetime: LEAF_LIFE,
        };
        let issued = load_authority(dir, ca)?.issue(&leaf, now)?;
        files::write_atomic(&key_path, issued.key_pem.as_bytes(), PRIVATE)?;
        files::write_atomic(&cert_path, issued.cert_pem.as_bytes(), PUBLIC)
    }
}
