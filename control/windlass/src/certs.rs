//! `windlass certs`: when certificates end, their renewal before that, and another authority for the cluster.
//!
//! It works on files; a server that runs sees them change, and agents follow what it publishes. [`behind`]: who would be left behind by a step.

mod behind;

use crate::cli::{CertsCommand, CertsPlace, CertsRenew, CertsRotate, RotationStep};
use crate::{output, settings};
use anyhow::{Context as _, bail};
use behind::Rotation;
use jiff::Timestamp;
use node::identity::{Files, Role};
use pki::expiry::{self, Expiries, Expiry};
use pki::part::NodePart;
use pki::rotation::{self, Step};
use pki::{Certificate, Kubeconfig, LEAVES, Pki, etcd};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) async fn run(command: &CertsCommand) -> anyhow::Result<()> {
    let now = Timestamp::now();
    match command {
        CertsCommand::Check(place) => check(place, now),
        CertsCommand::Renew(flags) => renew(flags, now),
        CertsCommand::RotateCa(flags) => rotate(flags, now).await,
    }
}

/// The name under which the administrator's kubeconfig is told.
const ADMIN: &str = "admin.kubeconfig";

fn pki_dir(data_dir: &Path) -> PathBuf {
    settings::server_dir(data_dir).join("pki")
}

/// What may be on this machine: a server's, a node's.
fn paths(data_dir: &Path) -> Vec<PathBuf> {
    let leaves = LEAVES.iter().chain(&etcd::LEAVES);
    let leaves = leaves.map(|(name, ..)| pki_dir(data_dir).join(format!("{name}.crt")));
    let files = Files::new(&data_dir.join("agent"));
    let parts = NodePart::ALL.map(Role::Part);
    let node = [Role::Client, Role::Serving].into_iter().chain(parts).map(|role| files.pair(role));
    leaves.chain([settings::admin_kubeconfig(data_dir)]).chain(node).collect()
}

fn check(place: &CertsPlace, now: Timestamp) -> anyhow::Result<()> {
    let found = expiry::inspect(&pki_dir(&place.data_dir), &paths(&place.data_dir), now)?;
    if found == Expiries::default() {
        bail!("there are no certificates below {}", place.data_dir.display());
    }
    let mut data = serde_json::to_value(&found)?;
    data["apiVersion"] = json!("output.kubeadm.k8s.io/v1alpha3");
    data["kind"] = json!("CertificateExpirationInfo");
    output::print(place.output, &text(&found), &data)
}

/// As kubeadm lays it out.
fn text(found: &Expiries) -> String {
    let row = |entry: &Expiry, authority: bool| {
        let mut row = vec![
            entry.name.clone(),
            entry.expiration_date.strftime("%b %d, %Y %H:%M UTC").to_string(),
            duration(entry.residual_time),
        ];
        if !authority {
            row.push(entry.ca_name.clone());
        }
        row.push(if entry.externally_managed { "yes" } else { "no" }.to_owned());
        row
    };
    let head = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut leaves = vec![head(&[
        "CERTIFICATE",
        "EXPIRES",
        "RESIDUAL TIME",
        "CERTIFICATE AUTHORITY",
        "EXTERNALLY MANAGED",
    ])];
    leaves.extend(found.certificates.iter().map(|entry| row(entry, false)));
    let mut authorities =
        vec![head(&["CERTIFICATE AUTHORITY", "EXPIRES", "RESIDUAL TIME", "EXTERNALLY MANAGED"])];
    authorities.extend(found.certificate_authorities.iter().map(|entry| row(entry, true)));
    format!("{}\n{}", output::table(&leaves), output::table(&authorities))
}

/// As upstream shortens it (`k8s.io/apimachinery/pkg/util/duration`).
fn duration(seconds: i64) -> String {
    const DAY: i64 = 24 * 3600;
    match seconds {
        s if s < 0 => "<invalid>".to_owned(),
        s if s < 2 * 60 => format!("{s}s"),
        s if s < 3 * 3600 => format!("{}m", s / 60),
        s if s < 2 * DAY => format!("{}h", s / 3600),
        s if s < 2 * 365 * DAY => format!("{}d", s / DAY),
        s => format!("{}y", s / (365 * DAY)),
    }
}

fn renew(flags: &CertsRenew, now: Timestamp) -> anyhow::Result<()> {
    let place = &flags.place;
    let dir = pki_dir(&place.data_dir);
    // A server without a member of etcd has none of its leaves.
    let of_etcd =
        etcd::LEAVES.iter().map(|(leaf, ..)| *leaf).filter(|leaf| dir.join(format!("{leaf}.crt")).exists());
    let files: BTreeMap<String, &str> = LEAVES
        .iter()
        .map(|(leaf, ..)| *leaf)
        .chain(of_etcd)
        .map(|leaf| (expiry::called(leaf), leaf))
        .collect();
    let names: Vec<&str> = match flags.names.as_slice() {
        [all] if all == "all" => files.keys().map(String::as_str).chain([ADMIN]).collect(),
        names => names.iter().map(String::as_str).collect(),
    };
    if let Some(unknown) = names.iter().find(|name| **name != ADMIN && !files.contains_key(**name)) {
        let known: Vec<&str> = files.keys().map(String::as_str).chain([ADMIN]).collect();
        bail!(
            "{unknown:?} is not one of {}; a node's certificates are renewed by its agent",
            known.join(", ")
        );
    }
    for name in &names {
        match files.get(*name) {
            Some(leaf) => Pki::renew(&dir, leaf, now)?,
            None => renew_admin(&place.data_dir, &dir, now)?,
        }
    }
    let lines: String = names.iter().map(|name| format!("renewed {name}\n")).collect();
    output::print(place.output, &lines, &names)
}

/// Another certificate for the same user, groups and server.
fn renew_admin(data_dir: &Path, dir: &Path, now: Timestamp) -> anyhow::Result<()> {
    let path = settings::admin_kubeconfig(data_dir);
    let kubeconfig = Kubeconfig::read(&path)?;
    let held = kubeconfig.certificate_pem().context("the administrator's kubeconfig holds no certificate")?;
    let held = Certificate::from_pem(&held)?;
    let groups: Vec<&str> = held.organizations.iter().map(String::as_str).collect();
    let issued =
        pki::load_authority(dir, "ca")?.issue(&pki::Leaf::client(&held.common_name, &groups), now)?;
    let (cert_pem, key_pem) = (issued.cert_pem, issued.key_pem);
    let credentials = pki::kubeconfig::Credentials::Certificate { cert_pem, key_pem };
    let cluster = kubeconfig.cluster()?;
    Kubeconfig::new("kubernetes", &cluster.server, &cluster.authority_pem()?, &held.common_name, credentials)
        .write(&path)?;
    Ok(())
}

async fn rotate(flags: &CertsRotate, now: Timestamp) -> anyhow::Result<()> {
    let dir = pki_dir(&flags.place.data_dir);
    // as `certs check` tells its files
    let authority =
        if flags.name == expiry::called(etcd::AUTHORITY) { etcd::AUTHORITY } else { flags.name.as_str() };
    let step = match flags.step {
        Some(RotationStep::Prepare) => Step::Prepare,
        Some(RotationStep::Switch) => Step::Switch,
        Some(RotationStep::Finish) => Step::Finish,
        None => rotation::next_step(&dir, authority),
    };
    let held = pki::load_authority(&dir, authority)?;
    if !flags.force && step == rotation::next_step(&dir, authority) {
        let data_dir = &flags.place.data_dir;
        let here = expiry::inspect(&dir, &paths(data_dir), now)?.certificates;
        let asked = Rotation { name: authority, step, dir: &dir, data_dir };
        let behind::Found { in_the_way, unseen } = asked.found(&here, now).await?;
        for what in unseen {
            tracing::warn!("cannot be seen from here: {what}");
        }
        if !in_the_way.is_empty() {
            bail!("not everybody follows yet (--force does it all the same):\n  {}", in_the_way.join("\n  "));
        }
    }
    rotation::rotate(&dir, authority, &held.certificate().common_name, step, now)?;
    // Without a server that runs, its next start does the rest.
    let of_etcd = authority == etcd::AUTHORITY;
    let (name, then) = match step {
        Step::Prepare if of_etcd => (
            "prepare",
            "the new authority is trusted beside the present one once etcd has started again, which servers have it do in turn; give other \
             servers its files (etcd/ca-next.crt, etcd/ca-next.key). Then switch at each of them; members are asked first",
        ),
        Step::Switch if of_etcd => {
            ("switch", "the new authority signs; when all servers have switched, finish at each of them")
        }
        Step::Prepare => (
            "prepare",
            "the new authority is trusted beside the present one; give other servers its files (NAME-next.crt, NAME-next.key). When \
             agents have learned of it (twenty-one minutes at the most), switch, which asks nodes and servers",
        ),
        Step::Switch => (
            "switch",
            "the new authority signs; when agents and clients have certificates of it (agents: twenty minutes; \
             see `windlass certs check` there), finish. Kubeconfigs given out before are to be made anew",
        ),
        Step::Finish => ("finish", "the old authority is trusted no more"),
    };
    let data = json!({"authority": flags.name, "step": name});
    output::print(flags.place.output, &format!("{name}: {then}\n"), &data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pki::ClusterNames;

    #[test]
    fn certificates_are_told_as_kubeadm_tells_them() {
        let entry = |name: &str, ca: &str, seconds| Expiry {
            name: name.to_owned(),
            expiration_date: "2027-03-01T12:00:00Z".parse().unwrap(),
            residual_time: seconds,
            ca_name: ca.to_owned(),
            externally_managed: false,
            renewal_date: "2026-11-01T12:00:00Z".parse().unwrap(),
        };
        let found = Expiries {
            certificates: vec![
                entry("apiserver", "ca", 364 * 24 * 3600),
                entry("admin.kubeconfig", "ca", -1),
            ],
            certificate_authorities: vec![entry("ca", "", 9 * 365 * 24 * 3600 + 5)],
        };
        let lines: Vec<String> =
            text(&found).lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[1], "apiserver Mar 01, 2027 12:00 UTC 364d ca no");
        assert_eq!(lines[2], "admin.kubeconfig Mar 01, 2027 12:00 UTC <invalid> ca no");
        assert_eq!(lines[5], "ca Mar 01, 2027 12:00 UTC 9y no");
    }

    #[test]
    fn renewed_certificates_live_longer_and_strangers_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let start: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let later: Timestamp = "2026-05-01T12:00:00Z".parse().unwrap();
        let names = ClusterNames::of("cluster.local", "10.96.0.1".parse().unwrap(), &[]);
        let pki = Pki::load_or_create(&pki_dir(dir.path()), &names, start).unwrap();
        let admin = pki.kubeconfig("https://h:6443", "admin", &["system:masters"], start).unwrap();
        admin.write(&settings::admin_kubeconfig(dir.path())).unwrap();
        let ends = || {
            let found = expiry::inspect(&pki_dir(dir.path()), &paths(dir.path()), later).unwrap();
            found.certificates.into_iter().map(|c| (c.name, c.expiration_date)).collect::<Vec<_>>()
        };
        let before = ends();
        assert_eq!(before.len(), 4);
        let flags = |names: &[&str]| CertsRenew {
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            place: CertsPlace { data_dir: dir.path().to_owned(), output: output::Output::Json },
        };
        assert!(renew(&flags(&["ca"]), later).is_err() && renew(&flags(&["etcd-peer"]), later).is_err());
        renew(&flags(&["all"]), later).unwrap();
        assert!(ends().iter().zip(&before).all(|(new, old)| new.0 == old.0 && new.1 > old.1));
        let kubeconfig = Kubeconfig::read(&settings::admin_kubeconfig(dir.path())).unwrap();
        assert_eq!(kubeconfig.cluster().unwrap().server, "https://h:6443");
    }

    #[test]
    fn certificates_of_etcd_must_not_end_unseen() {
        let dir = tempfile::tempdir().unwrap();
        let start: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let later: Timestamp = "2026-05-01T12:00:00Z".parse().unwrap();
        let names = ClusterNames { dns_names: vec!["n1".into()], ips: vec!["192.0.2.1".parse().unwrap()] };
        let pki = pki_dir(dir.path());
        Pki::load_or_create(&pki, &names, start).unwrap();
        let made = etcd::EtcdPki::load_or_create(&pki, "n1", &names, start).unwrap();
        let found = || expiry::inspect(&pki, &paths(dir.path()), later).unwrap();
        let ends = || -> BTreeMap<String, (String, Timestamp)> {
            let each = found().certificates.into_iter();
            each.map(|c| (c.name, (c.ca_name, c.expiration_date))).collect()
        };
        let (before, year) = (ends(), start + jiff::SignedDuration::from_hours(365 * 24));
        let of_etcd = ["apiserver-etcd-client", "etcd-healthcheck-client", "etcd-peer", "etcd-server"];
        for name in of_etcd {
            assert_eq!(before[name], ("etcd-ca".to_owned(), year), "{name}");
        }
        assert!(found().certificate_authorities.iter().any(|ca| ca.name == "etcd-ca"));
        let flags = |names: &[&str]| CertsRenew {
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            place: CertsPlace { data_dir: dir.path().to_owned(), output: output::Output::Json },
        };
        let peer = Certificate::from_pem(&std::fs::read_to_string(made.peer_files().0).unwrap()).unwrap();
        renew(&flags(&["etcd-peer"]), later).unwrap();
        let renewed = Certificate::from_pem(&std::fs::read_to_string(made.peer_files().0).unwrap()).unwrap();
        assert!(renewed.not_after > peer.not_after && renewed.ips == peer.ips);
        assert_eq!(ends()["etcd-server"], before["etcd-server"], "and no other");
        // Still what a start takes for good.
        etcd::EtcdPki::load_or_create(&pki, "n1", &names, later).unwrap();
        assert_eq!(ends()["etcd-peer"].1, renewed.not_after);
        let all = flags(&of_etcd);
        renew(&all, later).unwrap();
        assert!(of_etcd.iter().all(|name| ends()[*name].1 > year));
    }
}
