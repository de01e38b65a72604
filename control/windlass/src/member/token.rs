//! What a server joins with: a join token, and the key of what servers share, in one text or apart.

use crate::cli::MemberFlags;
use anyhow::{Context as _, bail};
use pki::bootstrap::{AuthorityHash, JoinToken};
use pki::sealed::CertificateKey;

/// Digits of a certificate key.
const DIGITS: usize = 64;

/// What a server was given to join with.
#[derive(Clone, Debug)]
pub(crate) struct Invitation {
    pub(crate) token: JoinToken,
    pub(crate) key: Option<CertificateKey>,
}

impl Invitation {
    /// Reads `K10<hash>::<id>.<secret>[::<key>]`, or kubeadm's words: the plain token, the authority's hash, the key.
    pub(crate) fn parse(text: &str, flags: &MemberFlags) -> anyhow::Result<Self> {
        let text = text.trim();
        let (token, key) = match text.rsplit_once("::") {
            Some((token, key)) if key.len() == DIGITS => (token, Some(key)),
            _ => (text, None),
        };
        let mut token: JoinToken = token.parse().context("--token")?;
        if let Some(hash) = &flags.ca_cert_hash {
            if token.authority.is_some() {
                bail!("--ca-cert-hash is given, but the token names the authority itself");
            }
            token.authority = Some(AuthorityHash::parse_public_key(hash).context("--ca-cert-hash")?);
        }
        let key = flags.certificate_key.as_deref().or(key);
        let key = key.map(str::parse).transpose().context("--certificate-key")?;
        Ok(Self { token, key })
    }
}

/// The text that [`Invitation::parse`] reads. Never log it.
pub(crate) fn expose(token: &JoinToken, key: &CertificateKey) -> String {
    format!("{}::{}", token.expose(), key.expose())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_says_all_and_so_do_kubeadms_words() {
        let hash = "a".repeat(64);
        let plain: JoinToken = format!("K10{hash}::abcdef.0123456789abcdef").parse().unwrap();
        let key = CertificateKey::generate().unwrap();
        let none = MemberFlags::default();
        let read = Invitation::parse(&expose(&plain, &key), &none).unwrap();
        assert_eq!((&read.token, &read.key), (&plain, &Some(key.clone())));
        assert!(Invitation::parse(&plain.expose(), &none).unwrap().key.is_none());
        let words = MemberFlags {
            certificate_key: Some(key.expose()),
            ca_cert_hash: Some(format!("sha256:{hash}")),
            ..none
        };
        let read = Invitation::parse("abcdef.0123456789abcdef", &words).unwrap();
        assert_eq!(read.key, Some(key));
        assert!(read.token.authority.is_some());
        assert!(Invitation::parse(&plain.expose(), &words).is_err(), "two hashes");
    }
}
