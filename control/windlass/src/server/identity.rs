//! Credentials the server writes for this machine: the administrator's kubeconfig, the node's own identity, and its parts'.
//!
//! The machine that holds the authority's key needs no token and no request to certify its own node.

use super::Plan;
use super::endpoint::Endpoint;
use crate::settings;
use anyhow::Context as _;
use jiff::Timestamp;
use node::identity::{Files, KeyPair, Role};
use pki::part::NodePart;
use pki::request::Subject;
use pki::{Certificate, Kubeconfig, Leaf, Pki, needs_renewal};
use std::path::Path;

/// The administrator's user name; the group is what gives the power.
const ADMIN: &str = "kubernetes-admin";

/// Writes the administrator's kubeconfig, and the copy that was asked for, unless they are young and right.
pub(super) fn write_admin(plan: &Plan, pki: &Pki) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let path = settings::admin_kubeconfig(&plan.node.data_dir);
    Endpoint::remember(plan.endpoint.as_ref(), &plan.dir)?;
    let url = plan.local_url();
    let kubeconfig = match current(&path, &url, pki, now) {
        Some(kubeconfig) => kubeconfig,
        None => {
            let kubeconfig = pki.kubeconfig(&url, ADMIN, &["system:masters"], now)?;
            kubeconfig.write(&path)?;
            kubeconfig
        }
    };
    if let Some(copy) = &plan.flags.write_kubeconfig {
        let mut kubeconfig = kubeconfig;
        if let Some(endpoint) = &plan.endpoint {
            kubeconfig.clusters.iter_mut().for_each(|named| named.cluster.server = endpoint.to_string());
        }
        kubeconfig.write(copy).context("write the copy of the kubeconfig")?;
    }
    Ok(())
}

fn current(path: &Path, url: &str, pki: &Pki, now: Timestamp) -> Option<Kubeconfig> {
    let kubeconfig = Kubeconfig::read(path).ok()?;
    let cluster = kubeconfig.cluster().ok()?;
    let certificate = Certificate::from_pem(&kubeconfig.certificate_pem()?).ok()?;
    let right = cluster.server == url
        && cluster.authority_pem().ok()? == pki.trusted
        && certificate.is_signed_by(pki.ca.certificate())
        && !needs_renewal(&certificate, now);
    right.then_some(kubeconfig)
}

/// Writes the node's certificates and kubeconfig, unless they are young and ours.
pub(super) fn write_node(plan: &Plan, pki: &Pki) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let subject = Subject::node(&plan.node.node_name);
    let files = Files::new(&plan.node.agent_dir());
    files.create()?;
    let young = |pair: &KeyPair| {
        pair.certificate.common_name == subject.common_name
            && pair.certificate.is_signed_by(pki.ca.certificate())
            && !needs_renewal(&pair.certificate, now)
    };
    if !files.read_pair(Role::Client)?.as_ref().is_some_and(young) {
        let issued = pki.ca.issue(&Leaf::client(&subject.common_name, &[&subject.organization]), now)?;
        let certificate = Certificate::from_pem(&issued.cert_pem)?;
        files.write_pair(Role::Client, &KeyPair { certificate, key_pem: issued.key_pem })?;
    }
    for part in NodePart::ALL {
        let good = |pair: &KeyPair| {
            pair.certificate.common_name == part.user()
                && pair.certificate.is_signed_by(pki.ca.certificate())
                && !needs_renewal(&pair.certificate, now)
        };
        if !files.read_pair(Role::Part(part))?.as_ref().is_some_and(good) {
            let issued = pki.ca.issue(&Leaf::client(part.user(), &[]), now)?;
            let certificate = Certificate::from_pem(&issued.cert_pem)?;
            files.write_pair(Role::Part(part), &KeyPair { certificate, key_pem: issued.key_pem })?;
        }
    }
    write_serving(plan, pki)?;
    files.write_kubeconfig(&plan.local_url(), &pki.trusted, &subject.common_name)?;
    Ok(())
}

/// Writes the certificate this machine's kubelet serves with, unless it is young and ours: its addresses are an API server's, too, and so
/// nobody else certifies them. Before half of its life is over it is not touched, and then made before the node itself asks for another.
pub(super) fn write_serving(plan: &Plan, pki: &Pki) -> anyhow::Result<()> {
    let (now, files) = (Timestamp::now(), Files::new(&plan.node.agent_dir()));
    files.create()?;
    let subject = Subject::node(&plan.node.node_name);
    let young = |pair: &KeyPair| {
        let certificate = &pair.certificate;
        certificate.common_name == subject.common_name
            && certificate.is_signed_by(pki.ca.certificate())
            && !needs_renewal(certificate, now)
            && now.duration_since(certificate.not_before) < certificate.not_after.duration_since(now)
            && plan.node.node_ips.iter().all(|ip| certificate.ips.contains(ip))
    };
    if files.read_pair(Role::Serving)?.as_ref().is_some_and(young) {
        return Ok(());
    }
    let names = vec![plan.node.node_name.clone()];
    let mut leaf = Leaf::server(&subject.common_name, names, plan.node.node_ips.clone());
    leaf.organizations = vec![subject.organization.clone()];
    let issued = pki.ca.issue(&leaf, now)?;
    let certificate = Certificate::from_pem(&issued.cert_pem)?;
    files.write_pair(Role::Serving, &KeyPair { certificate, key_pem: issued.key_pem })?;
    Ok(())
}
