//! When certificates end, and who signed them: what `kubeadm certs check-expiration` tells. Pure but for reading the files.

use crate::certificate::Certificate;
use crate::{Error, Kubeconfig, files};
use jiff::Timestamp;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What is said of one certificate (upstream: `output.kubeadm.k8s.io/v1alpha3`, `CertificateExpirationInfo`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Expiry {
    /// The file's name without its extension.
    pub name: String,
    /// The end of its life.
    pub expiration_date: Timestamp,
    /// Seconds of life left; negative where it is over.
    pub residual_time: i64,
    /// The authority that signed it, empty for an authority.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca_name: String,
    /// Nobody here has the key that could renew it.
    pub externally_managed: bool,
    /// When it is renewed by itself.
    pub renewal_date: Timestamp,
}

/// Everything found, leaves and authorities apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Expiries {
    /// Those that show who somebody is.
    pub certificates: Vec<Expiry>,
    /// Those that sign others.
    pub certificate_authorities: Vec<Expiry>,
}

/// Names of authorities; the first signs.
const AUTHORITIES: [&str; 9] = [
    "ca",
    "ca-next",
    "ca-old",
    "front-proxy-ca",
    "front-proxy-ca-next",
    "front-proxy-ca-old",
    "etcd/ca",
    "etcd/ca-next",
    "etcd/ca-old",
];

/// What kubeadm calls the certificate that is in a file `NAME.crt` of a server's directory.
#[must_use]
pub fn called(name: &str) -> String {
    name.replace('/', "-")
}

/// Looks at certificates and at kubeconfigs that hold one; the authorities are those of `dir`. Files that are not there are passed over.
pub fn inspect(dir: &Path, paths: &[PathBuf], now: Timestamp) -> Result<Expiries, Error> {
    let mut authorities = Vec::new();
    for name in AUTHORITIES {
        if let Some(text) = files::read_optional(&dir.join(format!("{name}.crt")))? {
            authorities.push((
                called(name),
                Certificate::from_pem(&text)?,
                dir.join(format!("{name}.key")).exists(),
            ));
        }
    }
    let of = |name: &str, certificate: &Certificate, ca: Option<(&str, bool)>, external: bool| Expiry {
        name: name.to_owned(),
        expiration_date: certificate.not_after,
        residual_time: certificate.not_after.as_second() - now.as_second(),
        ca_name: ca.map_or_else(String::new, |(name, _)| name.to_owned()),
        externally_managed: external,
        renewal_date: certificate.renewal_time(),
    };
    let mut found = Expiries {
        certificate_authorities: authorities
            .iter()
            .map(|(name, certificate, key)| of(name, certificate, None, !key))
            .collect(),
        ..Expiries::default()
    };
    for path in paths {
        let Some(text) = files::read_optional(path)? else { continue };
        let held = match path.extension().and_then(|e| e.to_str()) {
            Some("kubeconfig" | "conf") => match Kubeconfig::parse(&text)?.certificate_pem() {
                Some(pem) => pem,
                // its certificate is in a file of its own
                None => continue,
            },
            _ => text,
        };
        let certificate = Certificate::from_pem(&held)?;
        let signer = authorities.iter().find(|(_, authority, _)| certificate.is_signed_by(authority));
        let signer = signer.map(|(name, _, key)| (name.as_str(), *key));
        let name = path.strip_prefix(dir).ok().or(path.file_name().map(Path::new));
        let name = name.and_then(Path::to_str).unwrap_or_default();
        let name = called(name.strip_suffix(".crt").or(name.strip_suffix(".pem")).unwrap_or(name));
        found.certificates.push(of(&name, &certificate, signer, !signer.is_some_and(|(_, key)| key)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClusterNames, Pki};

    #[test]
    fn every_certificate_is_told_with_its_end_and_its_authority() {
        let start: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let names = ClusterNames::of("cluster.local", "10.96.0.1".parse().unwrap(), &[]);
        let pki = Pki::load_or_create(dir.path(), &names, start).unwrap();
        let admin = dir.path().join("admin.kubeconfig");
        pki.kubeconfig("https://h:6443", "admin", &["system:masters"], start).unwrap().write(&admin).unwrap();
        let paths = ["apiserver.crt", "front-proxy-client.crt", "gone.crt"].map(|name| dir.path().join(name));
        let paths: Vec<PathBuf> = paths.into_iter().chain([admin]).collect();
        let hour = jiff::SignedDuration::from_hours(1);
        let found = inspect(dir.path(), &paths, start + hour).unwrap();
        let told: Vec<_> = found.certificates.iter().map(|c| (c.name.as_str(), c.ca_name.as_str())).collect();
        let wanted =
            [("apiserver", "ca"), ("front-proxy-client", "front-proxy-ca"), ("admin.kubeconfig", "ca")];
        assert_eq!(told, wanted);
        assert_eq!(found.certificates[0].residual_time, 365 * 24 * 3600 - 3600);
        assert!(found.certificates.iter().all(|c| !c.externally_managed));
        let authorities: Vec<_> = found.certificate_authorities.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(authorities, ["ca", "front-proxy-ca"]);
        let late = inspect(dir.path(), &paths, start + hour * 24 * 366).unwrap();
        assert!(late.certificates[0].residual_time < 0);
    }
}
