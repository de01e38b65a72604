//! `--control-plane-endpoint`: a name or address that stays, whichever servers there are. Pure but for the file that remembers it.

use anyhow::{Context as _, ensure};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

/// Where a server keeps it for those who copy a kubeconfig.
const FILE: &str = "control-plane-endpoint";

/// Host and port, as kubeadm's `controlPlaneEndpoint` has them (upstream: `cmd/kubeadm/app/util/endpoint.go`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// A name, or an address without brackets.
    pub(super) host: String,
    port: u16,
}

impl Endpoint {
    /// Reads `HOST[:PORT]`; without a port it is the API server's.
    ///
    /// # Errors
    /// The host is neither a name nor an address, or the port is none.
    pub(super) fn parse(text: &str, usual: u16) -> anyhow::Result<Self> {
        let wrong = || format!("--control-plane-endpoint: {text:?} is not HOST or HOST:PORT");
        let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(Some((host, rest))) => (host, rest.strip_prefix(':').or((!rest.is_empty()).then_some(rest))),
            Some(None) => (text, None),
            None if text.parse::<Ipv6Addr>().is_ok() => (text, None),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(usual), str::parse::<u16>).with_context(wrong)?;
        ensure!(port != 0, wrong());
        let is_host = host.parse::<IpAddr>().is_ok() || machinery::names::dns1123_subdomain(host).is_empty();
        ensure!(is_host, wrong());
        Ok(Self { host: host.to_owned(), port })
    }

    /// Keeps it in the server's directory, or forgets it.
    pub(super) fn remember(this: Option<&Self>, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(FILE);
        let text = this.map(|endpoint| format!("{endpoint}\n"));
        if pki::files::read_optional(&path)? == text {
            return Ok(());
        }
        match text {
            Some(text) => pki::files::write_atomic(&path, text.as_bytes(), pki::files::PUBLIC)?,
            None => std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?,
        }
        Ok(())
    }
}

/// The URL that the server in `dir` was told to tell others, if any.
pub(crate) fn remembered(dir: &Path) -> anyhow::Result<Option<String>> {
    let text = pki::files::read_optional(&dir.join(FILE))?;
    Ok(text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()))
}

impl fmt::Display for Endpoint {
    /// As a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "https://[{host}]:{port}")
        } else {
            write!(f, "https://{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_read_with_and_without_a_port() {
        for (text, url) in [
            ("api.example", "https://api.example:6443"),
            ("api.example:443", "https://api.example:443"),
            ("192.0.2.10", "https://192.0.2.10:6443"),
            ("192.0.2.10:8443", "https://192.0.2.10:8443"),
            ("fd00::10", "https://[fd00::10]:6443"),
            ("[fd00::10]", "https://[fd00::10]:6443"),
            ("[fd00::10]:8443", "https://[fd00::10]:8443"),
        ] {
            assert_eq!(Endpoint::parse(text, 6443).unwrap().to_string(), url, "{text}");
        }
    }

    #[test]
    fn what_nobody_could_reach_must_be_refused() {
        for text in [
            "",
            ":6443",
            "api.example:",
            "api.example:0",
            "api.example:70000",
            "Api_1",
            "https://api.example",
            "[fd00::1",
            "[fd00::1]x",
            "a b",
        ] {
            assert!(Endpoint::parse(text, 6443).is_err(), "{text}");
        }
    }

    #[test]
    fn an_endpoint_that_is_given_no_more_must_not_be_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::parse("api.example", 6443).unwrap();
        Endpoint::remember(None, dir.path()).unwrap();
        for _ in 0..2 {
            Endpoint::remember(Some(&endpoint), dir.path()).unwrap();
            assert_eq!(remembered(dir.path()).unwrap().as_deref(), Some("https://api.example:6443"));
        }
        Endpoint::remember(None, dir.path()).unwrap();
        assert_eq!(remembered(dir.path()).unwrap(), None);
    }
}
