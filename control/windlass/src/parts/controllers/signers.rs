//! Who signs certificate requests: one authority for all of upstream's signers, or one for each that has its own flags.
//! Upstream: `cmd/kube-controller-manager/app/options/csrsigningcontroller.go`. Their files are read again when they change, as upstream's
//! `pkg/controller/certificates/signer/ca_provider.go` does.

use crate::flags::Flags;
use crate::watched::{Directories, REREAD};
use anyhow::{Context as _, bail};
use controllers::Authorities;
use pki::Authority;
use pki::signer::Signer;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use supervise::Task;
use tokio::sync::watch;

/// What stands between `--cluster-signing-` and `-cert-file`; how upstream's refusals call it; the signer.
const SIGNERS: [(&str, &str, Signer); 4] = [
    ("kubelet-serving", "kubelet-serving", Signer::KubeletServing),
    ("kubelet-client", "kube-apiserver-client", Signer::ApiServerClientKubelet),
    ("kube-apiserver-client", "kube-apiserver", Signer::ApiServerClient),
    ("legacy-unknown", "legacy-unknown", Signer::LegacyUnknown),
];

/// The files of one authority, and who signs with it.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
    authority: watch::Sender<Arc<Authority>>,
}

/// The files of all.
#[derive(Default)]
pub(super) struct Pairs(Vec<Pair>);

impl Pairs {
    /// Follows them, where there are any.
    pub(super) fn task(self) -> Option<Task> {
        let pairs = Arc::new(self);
        (!pairs.0.is_empty()).then(|| {
            Task::endless("signing-authorities", move || {
                let pairs = pairs.clone();
                async move {
                    let paths =
                        pairs.0.iter().flat_map(|pair| [pair.certificate.as_path(), pair.key.as_path()]);
                    let mut changes = Directories::of_files(paths);
                    loop {
                        pairs.reread();
                        changes.changed(REREAD).await;
                    }
                }
            })
        })
    }

    /// Signs with what the files hold now; one that cannot be used, such as half of another pair, changes nothing.
    fn reread(&self) {
        for pair in &self.0 {
            let fresh = pki::files::read(&pair.certificate).and_then(|certificate| {
                let key = pki::files::read(&pair.key)?;
                Authority::from_pem(&certificate, &key)
            });
            match fresh {
                Ok(fresh) => {
                    let is_new = pair.authority.send_if_modified(|authority| {
                        let is_new = authority.cert_pem() != fresh.cert_pem();
                        if is_new {
                            *authority = Arc::new(fresh);
                        }
                        is_new
                    });
                    if is_new {
                        tracing::info!(path = %pair.certificate.display(), "the signing authority is new");
                    }
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, path = %pair.certificate.display(), "the signing authority is not replaced");
                }
            }
        }
    }
}

/// The authorities of the flags, none where they name none, and their files.
pub(super) fn of(flags: &Flags) -> anyhow::Result<(Authorities, Pairs)> {
    let (mut authorities, mut pairs) = (Authorities::default(), Pairs::default());
    for (name, called, signer) in SIGNERS {
        let paths = [flag(name, "cert"), flag(name, "key")].map(|flag| flags.text(&flag));
        match paths {
            [None, None] => {}
            [Some(certificate), Some(key)] => {
                let pair = read(&flag(name, "cert"), certificate, &flag(name, "key"), key)?;
                authorities.set(signer, pair.authority.subscribe());
                pairs.0.push(pair);
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
    // As upstream: half of it is nothing.
    if let (Some(certificate), Some(key)) = (certificate, key) {
        let pair = read(single[0], certificate, single[1], key)?;
        authorities = Authorities::all(&pair.authority.subscribe());
        pairs.0.push(pair);
    }
    Ok((authorities, pairs))
}

fn flag(signer: &str, part: &str) -> String {
    format!("cluster-signing-{signer}-{part}-file")
}

fn read(certificate_flag: &str, certificate: &str, key_flag: &str, key: &str) -> anyhow::Result<Pair> {
    let text =
        |name: &str, path: &str| pki::files::read(Path::new(path)).with_context(|| format!("--{name}"));
    let texts = (text(certificate_flag, certificate)?, text(key_flag, key)?);
    let authority =
        Authority::from_pem(&texts.0, &texts.1).with_context(|| format!("use --{certificate_flag}"))?;
    Ok(Pair {
        certificate: certificate.into(),
        key: key.into(),
        authority: watch::Sender::new(Arc::new(authority)),
    })
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
        let (authorities, _) = of(&flags)?;
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
    fn an_authority_that_was_replaced_must_not_sign_any_more_and_half_of_one_must_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let authority = |name: &str| Authority::generate(name, jiff::Timestamp::now()).unwrap();
        let (old, new) = (authority("old"), authority("new"));
        for names in [
            ["cluster-signing-cert-file", "cluster-signing-key-file"],
            ["cluster-signing-kubelet-client-cert-file", "cluster-signing-kubelet-client-key-file"],
        ] {
            std::fs::write(path("c"), old.cert_pem()).unwrap();
            std::fs::write(path("k"), old.key_pem()).unwrap();
            let arguments = [("c", names[0]), ("k", names[1])]
                .map(|(file, name)| format!("--{name}={}", path(file).display()));
            let flags = Component::named(super::super::NAME).unwrap().table().parse(&arguments).unwrap();
            let (authorities, pairs) = of(&flags).unwrap();
            let signs = || {
                pairs.reread();
                authorities.of(Signer::ApiServerClientKubelet).unwrap().certificate().common_name.clone()
            };
            assert_eq!(signs(), "old");
            std::fs::write(path("c"), new.cert_pem()).unwrap();
            assert_eq!(signs(), "old", "the key is not there yet");
            std::fs::write(path("k"), new.key_pem()).unwrap();
            assert_eq!(signs(), "new");
            std::fs::remove_file(path("k")).unwrap();
            assert_eq!(signs(), "new");
        }
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
