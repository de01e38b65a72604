//! Who signs certificate requests: one authority for all of upstream's signers, or one for each that has its own flags.
//! Upstream: `cmd/kube-controller-manager/app/options/csrsigningcontroller.go`.

use crate::flags::Flags;
use anyhow::{Context as _, bail};
use controllers::Authorities;
use pki::Authority;
use pki::signer::Signer;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// What stands between `--cluster-signing-` and `-cert-file`; how upstream's refusals call it; the signer.
const SIGNERS: [(&str, &str, Signer); 4] = [
    ("kubelet-serving", "kubelet-serving", Signer::KubeletServing),
    ("kubelet-client", "kube-apiserver-client", Signer::ApiServerClientKubelet),
    ("kube-apiserver-client", "kube-apiserver", Signer::ApiServerClient),
    ("legacy-unknown", "legacy-unknown", Signer::LegacyUnknown),
];

/// The authorities of the flags; none where they name none.
pub(super) fn of(flags: &Flags) -> anyhow::Result<Authorities> {
    let mut authorities = Authorities::default();
    for (name, called, signer) in SIGNERS {
        let paths = [flag(name, "cert"), flag(name, "key")].map(|flag| flags.text(&flag));
        match paths {
            [None, None] => {}
            [Some(certificate), Some(key)] => {
                authorities.set(signer, read(&flag(name, "cert"), certificate, &flag(name, "key"), key)?);
            }
            [None, Some(_)] => bail!("\"cluster-signing-{called}\": cannot specify key without cert"),
            [Some(_), None] => bail!("\"cluster-signing-{called}\": cannot specify cert without key"),
        }
    }
    let single = ["cluster-signing-cert-file", "cluster-signing-key-file"];
    let [certificate, key] = single.map(|name| flags.text(name));
    if (certificate.is_some() || key.is_some()) && !authorities.is_empty() {
        bail!(
            "cannot specify --cluster-signing-{{cert,key}}-file and other --cluster-signing-*-file flags at the same time"
        );
    }
    Ok(match (certificate, key) {
        (Some(certificate), Some(key)) => Authorities::all(&read(single[0], certificate, single[1], key)?),
        // As upstream: half of it is nothing.
        _ => authorities,
    })
}

fn flag(signer: &str, part: &str) -> String {
    format!("cluster-signing-{signer}-{part}-file")
}

fn read(
    certificate_flag: &str,
    certificate: &str,
    key_flag: &str,
    key: &str,
) -> anyhow::Result<watch::Receiver<Arc<Authority>>> {
    let text =
        |name: &str, path: &str| pki::files::read(Path::new(path)).with_context(|| format!("--{name}"));
    let (certificate, key) = (text(certificate_flag, certificate)?, text(key_flag, key)?);
    let authority =
        Authority::from_pem(&certificate, &key).with_context(|| format!("use --{certificate_flag}"))?;
    Ok(watch::Sender::new(Arc::new(authority)).subscribe())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;

    /// A folder of authorities `a` and `b`, and what the flags make of them; `%` in a line is the folder.
    fn read_line(line: &str) -> anyhow::Result<Vec<(Signer, String)>> {
        let dir = tempfile::tempdir()?;
        for name in ["a", "b"] {
            let authority = Authority::generate(name, jiff::Timestamp::now())?;
            std::fs::write(dir.path().join(format!("{name}.crt")), authority.cert_pem())?;
            std::fs::write(dir.path().join(format!("{name}.key")), authority.key_pem())?;
        }
        let line = line.replace('%', &dir.path().display().to_string());
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let flags = Component::named(super::super::NAME).unwrap().table().parse(&arguments)?;
        assert!(flags.unused().is_empty(), "{line}");
        let authorities = of(&flags)?;
        let name = |signer: Signer| Some((signer, authorities.of(signer)?.certificate().common_name.clone()));
        Ok(Signer::ALL.into_iter().filter_map(name).collect())
    }

    #[test]
    fn each_signer_signs_with_its_own_authority_and_one_without_does_not() {
        let all =
            read_line("--cluster-signing-cert-file=%/a.crt --cluster-signing-key-file=%/a.key").unwrap();
        assert_eq!(all, Signer::ALL.map(|signer| (signer, "a".to_owned())));
        for (name, _, signer) in SIGNERS {
            let line = format!(
                "--cluster-signing-{name}-cert-file=%/b.crt --cluster-signing-{name}-key-file=%/b.key"
            );
            assert_eq!(read_line(&line).unwrap(), [(signer, "b".to_owned())]);
        }
        let two = "--cluster-signing-kubelet-client-cert-file=%/a.crt --cluster-signing-kubelet-client-key-file=%/a.key \
            --cluster-signing-kubelet-serving-cert-file=%/b.crt --cluster-signing-kubelet-serving-key-file=%/b.key";
        let expected =
            [(Signer::ApiServerClientKubelet, "a".to_owned()), (Signer::KubeletServing, "b".to_owned())];
        assert_eq!(read_line(two).unwrap(), expected);
        assert!(read_line("").unwrap().is_empty());
        assert!(
            read_line("--cluster-signing-cert-file=%/a.crt").unwrap().is_empty(),
            "half of it is nothing"
        );
    }

    #[test]
    fn what_upstream_refuses_is_refused_in_its_words() {
        for (line, words) in [
            (
                "--cluster-signing-kubelet-client-key-file=/k",
                "\"cluster-signing-kube-apiserver-client\": cannot specify key without cert",
            ),
            (
                "--cluster-signing-legacy-unknown-cert-file=/c",
                "\"cluster-signing-legacy-unknown\": cannot specify cert without key",
            ),
            (
                "--cluster-signing-key-file=/k --cluster-signing-kubelet-serving-cert-file=%/b.crt --cluster-signing-kubelet-serving-key-file=%/b.key",
                "cannot specify --cluster-signing-{cert,key}-file and other --cluster-signing-*-file flags at the same time",
            ),
            (
                "--cluster-signing-cert-file=/nowhere --cluster-signing-key-file=/nowhere",
                "--cluster-signing-cert-file",
            ),
            (
                "--cluster-signing-cert-file=%/a.crt --cluster-signing-key-file=%/b.key",
                "--cluster-signing-cert-file",
            ),
        ] {
            let Err(error) = read_line(line) else { panic!("{line}") };
            let error = format!("{error:#}");
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
