//! Another authority in an authority's place, with overlap: first trusted beside it, then signing, and the old one dropped last.
//!
//! `NAME-next.crt`, `NAME-next.key`: trusted, not signing yet. `NAME-old.crt`: trusted, signing no more; its key is gone.
//! `NAME-replaced.crt`: those of rotations that are over, trusted no more. Each step is one rename at a time, and [`mend`] finishes what a
//! crash interrupted.

use crate::authority::Authority;
use crate::certificate::Certificate;
use crate::files::paths;
use crate::files::{self, PRIVATE, PUBLIC};
use crate::key::parse_key;
use crate::{Error, pem};
use jiff::Timestamp;
use std::path::{Path, PathBuf};

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a new authority, which everybody is to trust beside the present one.
    Prepare,
    /// Let it sign from now on.
    Switch,
    /// Stop trusting the old one.
    Finish,
}

/// The step an authority's files are ready for.
#[must_use]
pub fn next_step(dir: &Path, name: &str) -> Step {
    if next(dir, name).0.exists() {
        Step::Switch
    } else if old(dir, name).exists() {
        Step::Finish
    } else {
        Step::Prepare
    }
}

/// Does a step. `common_name` is the new authority's.
pub fn rotate(dir: &Path, name: &str, common_name: &str, step: Step, now: Timestamp) -> Result<(), Error> {
    mend(dir, name)?;
    let fail = |reason: &str| Error::Authority { name: name.to_owned(), reason: reason.to_owned() };
    let due = next_step(dir, name);
    if due != step {
        return Err(fail(match due {
            Step::Prepare => "no rotation has been prepared",
            Step::Switch => "a rotation has been prepared: the new authority is to sign next",
            Step::Finish => "the old authority of a rotation is still trusted: it is to be dropped next",
        }));
    }
    let (certificate, key) = paths(dir, name);
    let (next_certificate, next_key) = next(dir, name);
    match step {
        Step::Prepare => {
            let made = Authority::generate(common_name, now)?;
            files::write_atomic(&next_key, made.key_pem().as_bytes(), PRIVATE)?;
            files::write_atomic(&next_certificate, made.cert_pem().as_bytes(), PUBLIC)
        }
        Step::Switch => {
            let next = Authority::from_pem(&files::read(&next_certificate)?, &files::read(&next_key)?)?;
            if !next.certificate().is_valid_at(now) {
                return Err(fail("the life of the authority that was prepared has not begun, or is over"));
            }
            files::write_atomic(&old(dir, name), files::read(&certificate)?.as_bytes(), PUBLIC)?;
            files::rename(&next_key, &key)?;
            // A server that watches its directory may have been faster.
            mend(dir, name)
        }
        Step::Finish => {
            let mut all = replaced(dir, name)?;
            for certificate in Certificate::list_from_pem(&files::read(&old(dir, name))?)? {
                let text = certificate.to_pem();
                if !all.contains(&text) {
                    all.push_str(&text);
                }
            }
            files::write_atomic(&replaced_path(dir, name), all.as_bytes(), PUBLIC)?;
            remove(&old(dir, name))
        }
    }
}

/// The authority that a rotation has prepared and that does not sign yet; `None` where there is none.
///
/// # Errors
/// A file cannot be read, or is none.
pub fn prepared(dir: &Path, name: &str) -> Result<Option<Authority>, Error> {
    let (certificate, key) = next(dir, name);
    match (files::read_optional(&certificate)?, files::read_optional(&key)?) {
        (Some(certificate), Some(key)) => Authority::from_pem(&certificate, &key).map(Some),
        _ => Ok(None),
    }
}

/// Finishes a switch that was interrupted: the key is the new one already, the certificate beside it is not.
pub(crate) fn mend(dir: &Path, name: &str) -> Result<(), Error> {
    let ((certificate, key), (next_certificate, next_key)) = (paths(dir, name), next(dir, name));
    if next_key.exists() {
        return Ok(());
    }
    let (Some(text), Some(key)) = (files::read_optional(&next_certificate)?, files::read_optional(&key)?)
    else {
        return Ok(());
    };
    let prepared = Certificate::from_pem(&text)?;
    let signs = rcgen::PublicKeyData::subject_public_key_info(&parse_key(name, &key)?) == prepared.public_key;
    match signs.then(|| files::rename(&next_certificate, &certificate)) {
        Some(Err(Error::Write { source, .. })) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Some(renamed) => renamed,
        None => Ok(()),
    }
}

/// Every authority to be trusted under a name, as PEM: the signing one first, then those of a rotation that are alive.
pub(crate) fn trusted(dir: &Path, name: &str, signing: &Authority, now: Timestamp) -> Result<String, Error> {
    let mut all = signing.cert_pem();
    for path in [next(dir, name).0, old(dir, name)] {
        let Some(text) = files::read_optional(&path)? else { continue };
        for certificate in Certificate::list_from_pem(&text)? {
            if certificate.not_after >= now {
                all.push_str(&pem::encode("CERTIFICATE", &certificate.der));
            }
        }
    }
    Ok(all)
}

/// Authorities of rotations that are over, as PEM; empty where there was none.
pub(crate) fn replaced(dir: &Path, name: &str) -> Result<String, Error> {
    Ok(files::read_optional(&replaced_path(dir, name))?.unwrap_or_default())
}

/// Every authority there is or was under a name, as PEM: whoever names one of them means this cluster.
///
/// # Errors
/// A file cannot be read.
pub fn known(dir: &Path, name: &str) -> Result<String, Error> {
    let paths = [paths(dir, name).0, next(dir, name).0, old(dir, name), replaced_path(dir, name)];
    paths.iter().map(|path| Ok(files::read_optional(path)?.unwrap_or_default())).collect()
}

fn replaced_path(dir: &Path, name: &str) -> PathBuf {
    paths(dir, &format!("{name}-replaced")).0
}

fn next(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    paths(dir, &format!("{name}-next"))
}

fn old(dir: &Path, name: &str) -> PathBuf {
    paths(dir, &format!("{name}-old")).0
}

fn remove(path: &Path) -> Result<(), Error> {
    std::fs::remove_file(path).map_err(|source| Error::Write { path: path.to_owned(), source })?;
    files::sync_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClusterNames, Leaf, Pki};
    use jiff::SignedDuration;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn start() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn load(dir: &Path, now: Timestamp) -> Pki {
        let names = ClusterNames::of("cluster.local", "10.96.0.1".parse().unwrap(), &[]);
        Pki::load_or_create(dir, &names, now).unwrap()
    }

    fn trusts(bundle: &str, certificate: &str) -> bool {
        let certificate = Certificate::from_pem(certificate).unwrap();
        Certificate::list_from_pem(bundle).unwrap().iter().any(|a| certificate.is_signed_by(a))
    }

    #[test]
    fn whoever_trusts_what_was_trusted_a_step_ago_is_served_and_known() {
        let dir = tempfile::tempdir().unwrap();
        let mut now = start();
        let mut before = load(dir.path(), now);
        let leaf = |pki: &Pki| pki.ca.issue(&Leaf::client("u", &[]), start()).unwrap().cert_pem;
        let first = leaf(&before);
        for step in [Step::Prepare, Step::Switch, Step::Finish] {
            now += DAY;
            assert_eq!(next_step(dir.path(), "ca"), step);
            rotate(dir.path(), "ca", "kubernetes", step, now).unwrap();
            let after = load(dir.path(), now);
            assert!(trusts(&before.trusted, &after.apiserver.cert_pem), "{step:?}: a client of before");
            assert!(
                trusts(&after.trusted, &before.apiserver_kubelet_client.cert_pem) || step == Step::Finish
            );
            assert_eq!(trusts(&after.trusted, &first), step != Step::Finish, "{step:?}");
            assert!(trusts(&after.trusted, &leaf(&after)), "{step:?}");
            before = after;
        }
        assert_eq!(next_step(dir.path(), "ca"), Step::Prepare);
        assert_eq!(Certificate::list_from_pem(&before.trusted).unwrap().len(), 1);
        assert!(trusts(&before.replaced, &first), "what was replaced is known");
        assert!(trusts(&known(dir.path(), "ca").unwrap(), &first));
    }

    #[test]
    fn a_switch_that_was_interrupted_is_finished_and_steps_come_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let old = load(dir.path(), start());
        let error = rotate(dir.path(), "ca", "kubernetes", Step::Switch, start()).unwrap_err().to_string();
        assert!(error.contains("no rotation has been prepared"), "{error}");
        rotate(dir.path(), "ca", "kubernetes", Step::Prepare, start()).unwrap();
        assert!(rotate(dir.path(), "ca", "kubernetes", Step::Prepare, start()).is_err());
        // what a crash between the two renames leaves
        std::fs::copy(dir.path().join("ca.crt"), dir.path().join("ca-old.crt")).unwrap();
        std::fs::rename(dir.path().join("ca-next.key"), dir.path().join("ca.key")).unwrap();
        let mended = load(dir.path(), start());
        assert_ne!(mended.ca.cert_pem(), old.ca.cert_pem());
        assert!(trusts(&mended.trusted, &old.apiserver.cert_pem));
        assert_eq!(next_step(dir.path(), "ca"), Step::Finish);
    }

    #[test]
    fn an_old_authority_whose_life_is_over_must_not_be_trusted() {
        let dir = tempfile::tempdir().unwrap();
        load(dir.path(), start());
        rotate(dir.path(), "ca", "kubernetes", Step::Prepare, start() + DAY * 100).unwrap();
        rotate(dir.path(), "ca", "kubernetes", Step::Switch, start() + DAY * 101).unwrap();
        let count = |days: i32| {
            Certificate::list_from_pem(&load(dir.path(), start() + DAY * days).trusted).unwrap().len()
        };
        assert_eq!((count(102), count(3651)), (2, 1));
    }
}
