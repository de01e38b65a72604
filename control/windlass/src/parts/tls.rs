//! What a part agrees on in handshakes, and which certificates it shows to whom, by upstream's flags. Upstream:
//! `component-base/cli/flag/{ciphersuites,curves,namedcertkey}_flag.go`, `apiserver/pkg/server/options/serving.go`.

use crate::flags::Flags;
use anyhow::{Context as _, anyhow, ensure};
use apiserver::tls::NamedPair;
use pki::handshake::{self, Agreed};
use rustls::{CipherSuite, NamedGroup, ProtocolVersion};
use std::path::PathBuf;

/// What the flags let a handshake agree on. What is allowed and not here is never agreed on: of that a warning tells, unless nothing else
/// is allowed.
pub(crate) fn agreed(flags: &Flags) -> anyhow::Result<Agreed> {
    let oldest = match flags.text("tls-min-version") {
        None => ProtocolVersion::TLSv1_2,
        Some(name) => handshake::oldest(name).map_err(|e| anyhow!(e))?,
    };
    if matches!(oldest, ProtocolVersion::TLSv1_0 | ProtocolVersion::TLSv1_1) {
        tracing::warn!("--tls-min-version={oldest:?}: nothing older than TLS 1.2 is spoken here");
    }
    Ok(Agreed {
        only_tls13: oldest == ProtocolVersion::TLSv1_3,
        suites: suites(flags.list("tls-cipher-suites").unwrap_or_default())?,
        groups: groups(flags.list("tls-curve-preferences").unwrap_or_default())?,
        no_http2: flags.bool("disable-http2-serving").unwrap_or(false),
    })
}

fn suites(names: &[String]) -> anyhow::Result<Option<Vec<CipherSuite>>> {
    if names.is_empty() {
        return Ok(None);
    }
    let named = handshake::suites(names).map_err(|e| anyhow!(e))?;
    warn_of_absent("tls-cipher-suites", &named.absent, names.len())?;
    Ok(Some(named.here))
}

fn groups(texts: &[String]) -> anyhow::Result<Option<Vec<NamedGroup>>> {
    if texts.is_empty() {
        return Ok(None);
    }
    let number = |text: &String| {
        text.parse::<i32>().map_err(|_| {
            anyhow!(
                "invalid argument {text:?} for \"--tls-curve-preferences\" flag: strconv.ParseInt: parsing {text:?}: invalid syntax"
            )
        })
    };
    let numbers = texts.iter().map(number).collect::<anyhow::Result<Vec<i32>>>()?;
    let named = handshake::groups(&numbers).map_err(|e| anyhow!(e))?;
    warn_of_absent("tls-curve-preferences", &named.absent, texts.len())?;
    Ok(Some(named.here))
}

/// Of `all` that a flag names, some are not here: it is refused if nothing else is left.
fn warn_of_absent(flag: &str, absent: &[String], all: usize) -> anyhow::Result<()> {
    ensure!(absent.len() < all, "--{flag}: none of them is here: {}", absent.join(","));
    if !absent.is_empty() {
        tracing::warn!("--{flag}: these are not here and never agreed on: {}", absent.join(","));
    }
    Ok(())
}

/// Files of a certificate and its key, and whom it is shown to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    names: Vec<String>,
}

impl NamedFiles {
    /// Those of `--tls-sni-cert-key`.
    pub(crate) fn of_flags(flags: &Flags) -> anyhow::Result<Vec<Self>> {
        let all = flags.list("tls-sni-cert-key").unwrap_or_default();
        all.iter()
            .map(|text| {
                Self::parse(text).map_err(|why| {
                    anyhow!("invalid argument {text:?} for \"--tls-sni-cert-key\" flag: {why}")
                })
            })
            .collect()
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let (files, names) = match text.split_once(':') {
            Some((_, names)) if names.trim().is_empty() => return Err("empty names list is not allowed"),
            Some((files, names)) => (files, names.split(',').map(|name| name.trim().to_owned()).collect()),
            None => (text, Vec::new()),
        };
        match files.split(',').map(str::trim).collect::<Vec<_>>().as_slice() {
            [certificate, key] => Ok(Self { certificate: certificate.into(), key: key.into(), names }),
            _ => Err("expected comma separated certificate and key file paths"),
        }
    }

    /// What the files hold now.
    pub(crate) fn read(&self) -> anyhow::Result<NamedPair> {
        let read = |path| pki::files::read(path).context("failed to load SNI cert and key");
        Ok(NamedPair {
            certificates: read(&self.certificate)?,
            key: read(&self.key)?,
            names: self.names.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;

    fn flags(line: &str) -> Flags {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Component::named("kube-apiserver").unwrap().table().parse(&arguments).unwrap()
    }

    #[test]
    fn what_handshakes_may_agree_on_is_settled_by_flags() {
        let default = Agreed::default();
        let aes = CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;
        for (line, expected) in [
            ("", default.clone()),
            ("--tls-min-version=VersionTLS12", default.clone()),
            ("--tls-min-version=VersionTLS10", default.clone()),
            ("--tls-min-version=VersionTLS13", Agreed { only_tls13: true, ..default.clone() }),
            ("--disable-http2-serving", Agreed { no_http2: true, ..default.clone() }),
            (
                "--tls-cipher-suites=TLS_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_RSA_WITH_AES_128_CBC_SHA",
                Agreed { suites: Some(vec![aes]), ..default.clone() },
            ),
            (
                "--tls-cipher-suites=TLS_AES_128_GCM_SHA256",
                Agreed { suites: Some(vec![]), ..default.clone() },
            ),
            (
                "--tls-curve-preferences=4588,29,24",
                Agreed { groups: Some(vec![NamedGroup::X25519, NamedGroup::secp384r1]), ..default },
            ),
        ] {
            assert_eq!(agreed(&flags(line)).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_agreed_on_is_refused_in_upstreams_words() {
        for (line, why) in [
            ("--tls-min-version=TLS13", "unknown tls version \"TLS13\""),
            ("--tls-cipher-suites=AES", "Cipher suite AES not supported or doesn't exist"),
            (
                "--tls-cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA",
                "--tls-cipher-suites: none of them is here: TLS_RSA_WITH_AES_128_CBC_SHA",
            ),
            ("--tls-curve-preferences=0", "curve preference 0 is out of range (must be 1-65535)"),
            ("--tls-curve-preferences=29,29", "duplicate curve preference 29"),
            ("--tls-curve-preferences=7", "curve preference 7 is not supported by the current Go version"),
            ("--tls-curve-preferences=4588", "--tls-curve-preferences: none of them is here: 4588"),
        ] {
            assert_eq!(agreed(&flags(line)).unwrap_err().to_string(), why, "{line}");
        }
    }

    #[test]
    fn certificates_of_names_are_read_from_their_files() {
        let of = |text: &str| NamedFiles::of_flags(&flags(&format!("--tls-sni-cert-key={text}")));
        let named = of("a.crt,a.key:*.a.test,b.test").unwrap();
        assert_eq!(named[0].names, ["*.a.test", "b.test"]);
        assert_eq!(
            (&named[0].certificate, &named[0].key),
            (&PathBuf::from("a.crt"), &PathBuf::from("a.key"))
        );
        assert!(of("a.crt,a.key").unwrap()[0].names.is_empty());
        let two = flags("--tls-sni-cert-key=a,b --tls-sni-cert-key=c,d:e");
        assert_eq!(NamedFiles::of_flags(&two).unwrap().len(), 2);
        for (text, why) in [
            ("a.crt", "expected comma separated certificate and key file paths"),
            ("a,b,c", "expected comma separated certificate and key file paths"),
            ("a,b:", "empty names list is not allowed"),
        ] {
            assert!(of(text).unwrap_err().to_string().ends_with(why), "{text}");
        }
        assert!(of("/nowhere/a,/nowhere/b").unwrap()[0].read().is_err());
    }
}
