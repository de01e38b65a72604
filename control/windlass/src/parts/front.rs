//! Proxies in front of a part alone, by `--requestheader-*`: the file of their authorities is read again when it changes.

use super::apiserver::trust::Front;
use crate::flags::Flags;
use anyhow::Context as _;
use apiserver::{Authorities, FrontProxies, Peer};
use http::HeaderMap;
use jiff::Timestamp;
use kubelet::server::{Authorities as ClientAuthorities, User};
use pki::tls::Judge;
use rustls::pki_types::CertificateDer;
use std::path::Path;
use std::sync::Arc;

/// The proxies the flags name; `None` where they name no authorities.
pub(super) fn proxies(flags: &Flags) -> anyhow::Result<Option<FrontProxies>> {
    let name = "requestheader-client-ca-file";
    let Some(path) = flags.text(name) else { return Ok(None) };
    let file = ClientAuthorities::new(Path::new(path)).with_context(|| format!("--{name}"))?;
    let authorities = Authorities::by(Arc::new(Judge::new(move |chain, now| file.verify(chain, now))));
    Ok(Some(names(flags).proxies(authorities)))
}

/// What the flags say of names and headers, with upstream's defaults for parts that ask the API server who a caller is.
fn names(flags: &Flags) -> Front {
    let mut front = Front::of_flags(flags);
    for (words, usual) in [
        (&mut front.users, "x-remote-user"),
        (&mut front.groups, "x-remote-group"),
        (&mut front.extras, "x-remote-extra-"),
    ] {
        if words.is_empty() {
            words.push(usual.to_owned());
        }
    }
    front
}

/// Who the headers say the caller is.
///
/// # Errors
/// They say something, and are not to be believed.
pub(super) fn user(
    proxies: &FrontProxies,
    chain: &[CertificateDer<'static>],
    headers: &HeaderMap,
) -> Result<Option<User>, String> {
    let peer = Peer::new(None, chain.to_vec());
    let said = proxies.user(&peer, &mut headers.clone(), Timestamp::now())?;
    Ok(said.map(|user| {
        let apiserver::User { name, uid, groups, extra } = user;
        User { name, uid, groups, extra }.authenticated()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;
    use pki::{Authority, Leaf};

    #[test]
    fn a_proxy_in_front_must_be_believed_by_the_file_as_it_is_now() {
        let now = Timestamp::now();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.crt");
        let (old, new) = (Authority::generate("old", now).unwrap(), Authority::generate("new", now).unwrap());
        std::fs::write(&path, old.cert_pem()).unwrap();
        let arguments = [
            format!("--requestheader-client-ca-file={}", path.display()),
            // The headers are the usual ones.
            "--requestheader-allowed-names=front".to_owned(),
        ];
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", "alice".parse().unwrap());
        headers.insert("x-remote-group", "g".parse().unwrap());
        let chain = |authority: &Authority| {
            let issued = authority.issue(&Leaf::client("front", &[]), now).unwrap();
            pki::pem::certificates(issued.cert_pem.as_bytes()).unwrap()
        };
        for part in ["kube-scheduler", "kube-controller-manager"] {
            std::fs::write(&path, old.cert_pem()).unwrap();
            let flags = Component::named(part).unwrap().table().parse(&arguments).unwrap();
            assert!(flags.unused().is_empty(), "{:?}", flags.unused());
            let proxies = proxies(&flags).unwrap().unwrap();
            let alice = user(&proxies, &chain(&old), &headers).unwrap().unwrap();
            assert_eq!(
                (alice.name.as_str(), alice.groups.as_slice()),
                ("alice", &["g".to_owned(), "system:authenticated".to_owned()][..])
            );
            assert!(user(&proxies, &chain(&new), &headers).is_err());
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, new.cert_pem()).unwrap();
            assert!(user(&proxies, &chain(&new), &headers).unwrap().is_some(), "the file has changed");
            assert!(user(&proxies, &chain(&old), &headers).is_err());
        }
    }
}
