//! `windlass kubeconfig`: the administrator's kubeconfig, for a copy of it elsewhere, or one for another user.

use crate::cli::KubeconfigFlags;
use crate::server::endpoint;
use crate::{output, settings};
use anyhow::{Context as _, bail};
use jiff::{SignedDuration, Timestamp};
use pki::authority::LEAF_LIFE;
use pki::kubeconfig::Credentials;
use pki::{Kubeconfig, Leaf};

pub(crate) fn run(flags: &KubeconfigFlags) -> anyhow::Result<()> {
    let path = settings::admin_kubeconfig(&flags.data_dir);
    if !path.exists() {
        bail!("there is no {}: has `windlass server` been started on this machine?", path.display());
    }
    let mut kubeconfig = Kubeconfig::read(&path)?;
    if let Some(user) = &flags.user {
        kubeconfig = certified(flags, user, &kubeconfig, Timestamp::now())?;
    }
    // This server's own address is of use on this machine only.
    let stable = endpoint::remembered(&settings::server_dir(&flags.data_dir))?;
    if let Some(server) = flags.server.as_ref().or(stable.as_ref()) {
        node::cluster_info::parse_server(server)?;
        kubeconfig.clusters.iter_mut().for_each(|c| c.cluster.server.clone_from(server));
    }
    output::print(flags.output, &kubeconfig.to_yaml().context("write the kubeconfig")?, &kubeconfig)
}

/// A kubeconfig of the same cluster with a new client certificate.
fn certified(
    flags: &KubeconfigFlags,
    user: &str,
    admin: &Kubeconfig,
    now: Timestamp,
) -> anyhow::Result<Kubeconfig> {
    let lifetime = flags.validity.map_or(Ok(LEAF_LIFE), SignedDuration::try_from).context("--validity")?;
    if user.is_empty() || lifetime.is_zero() {
        bail!("a certificate needs a user and a life");
    }
    let groups: Vec<&str> = flags.group.iter().map(String::as_str).collect();
    let authority = pki::load_authority(&settings::server_dir(&flags.data_dir).join("pki"), "ca")?;
    let issued = authority.issue(&Leaf { lifetime, ..Leaf::client(user, &groups) }, now)?;
    let cluster = admin.cluster()?;
    let credentials = Credentials::Certificate { cert_pem: issued.cert_pem, key_pem: issued.key_pem };
    Ok(Kubeconfig::new("kubernetes", &cluster.server, &cluster.authority_pem()?, user, credentials))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;
    use pki::{Certificate, ClusterNames, Pki};

    #[test]
    fn a_user_is_certified_in_its_groups_for_so_long() {
        let dir = tempfile::tempdir().unwrap();
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let names = ClusterNames::of("cluster.local", "10.96.0.1".parse().unwrap(), &[]);
        let server_dir = settings::server_dir(dir.path());
        let pki = Pki::load_or_create(&server_dir.join("pki"), &names, now).unwrap();
        let admin = pki.kubeconfig("https://h:6443", "admin", &["system:masters"], now).unwrap();
        let of = |words: &str| {
            let line = format!("windlass kubeconfig --data-dir {} {words}", dir.path().display());
            let Command::Kubeconfig(flags) = Cli::try_parse_from(line.split_whitespace())?.command else {
                panic!("another command")
            };
            certified(&flags, flags.user.as_deref().unwrap(), &admin, now)
        };
        let jane = of("--user jane --group dev --group ops --validity 24h").unwrap();
        let certificate = Certificate::from_pem(&jane.certificate_pem().unwrap()).unwrap();
        assert_eq!(
            (certificate.common_name.as_str(), jane.current_context.as_str()),
            ("jane", "jane@kubernetes")
        );
        assert_eq!(certificate.organizations, ["dev", "ops"]);
        assert_eq!(certificate.not_after, now + SignedDuration::from_hours(24));
        assert!(certificate.is_signed_by(pki.ca.certificate()));
        assert_eq!(jane.cluster().unwrap().server, "https://h:6443");
        assert!(of("--user jane --validity 0").is_err());
        assert!(of("--group dev").is_err());
    }
}
