//! How the API server serves: its port, handshakes, headers, connections, and its end. Upstream:
//! `apiserver/pkg/server/options/{serving,server_run_options}.go`.

use crate::flags::Flags;
use crate::parts::tls::{self, NamedFiles};
use crate::watched::{Directories, REREAD};
use anyhow::{Context as _, anyhow, bail, ensure};
use apiserver::server::Config;
use apiserver::tls::{Agreed, ServingCertificate};
use apiserver::{Headers, Limits, Shutdown};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Task, listen};
use tokio::net::{TcpListener, TcpSocket};

/// Connections that wait for being accepted.
const BACKLOG: u32 = 1024;
const ORIGINS: &str = "List of allowed origins for CORS, comma separated. An allowed origin can be a regular expression to support \
    subdomain matching. If this list is empty CORS will not be enabled. Please ensure each expression matches the entire hostname by \
    anchoring to the start with '^' or including the '//' prefix, and by anchoring to the end with '$' or including the ':' port separator \
    suffix. Examples of valid expressions are '//example\\.com(:|$)' and '^https://example\\.com(:|$)'";
const DIRECTIVES: &str = "--strict-transport-security-directives invalid, allowed values: max-age=expireTime, includeSubDomains, preload. \
    see https://tools.ietf.org/html/rfc6797#section-6.1 for more information";

/// How it serves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Serving {
    pub(super) agreed: Agreed,
    pub(super) limits: Limits,
    pub(super) headers: Headers,
    pub(super) shutdown: Shutdown,
    /// How long it may take to start before it is called dead.
    pub(super) to_start: Duration,
    /// The name clients outside are told, in place of the advertised address.
    pub(super) external: Option<String>,
    /// Others may listen on the same port.
    shares_port: bool,
    /// Certificates for those who ask for a name of theirs.
    named: Vec<NamedFiles>,
}

impl Serving {
    pub(super) fn of_flags(flags: &Flags) -> anyhow::Result<Self> {
        let default = Limits::default();
        let streams = flags.int("http2-max-streams-per-connection").unwrap_or(0);
        let goaway = flags.float("goaway-chance").unwrap_or(0.0);
        ensure!(
            (0.0..=0.02).contains(&goaway),
            "--goaway-chance can not be less than 0 or greater than 0.02"
        );
        let agreed = tls::agreed(flags)?;
        let mut headers = Headers::default();
        let origins = flags.list("cors-allowed-origins").unwrap_or_default();
        check_origins(origins, &mut headers)?;
        let directives = flags.list("strict-transport-security-directives").unwrap_or_default();
        directives.iter().try_for_each(|directive| check_directive(directive))?;
        headers.keep_to_tls(directives).context("--strict-transport-security-directives")?;
        Ok(Self {
            limits: Limits {
                // Zero is Go's default.
                streams: u32::try_from(streams).ok().filter(|n| *n > 0).unwrap_or(default.streams),
                http2: !agreed.no_http2,
                goaway,
                ..default
            },
            agreed,
            headers,
            shutdown: Shutdown {
                delay: not_negative(
                    flags,
                    "shutdown-delay-duration",
                    "--shutdown-delay-duration can not be negative value",
                )?,
                watches: not_negative(
                    flags,
                    "shutdown-watch-termination-grace-period",
                    "shutdown-watch-termination-grace-period, if provided, can not be a negative value",
                )?,
                refuses: flags.bool("shutdown-send-retry-after").unwrap_or(false),
            },
            to_start: not_negative(
                flags,
                "livez-grace-period",
                "--livez-grace-period can not be a negative value",
            )?,
            external: flags.text("external-hostname").map(str::to_owned),
            shares_port: flags.bool("permit-port-sharing").unwrap_or(false),
            named: NamedFiles::of_flags(flags)?,
        })
    }

    /// Opens the port.
    pub(super) fn listen(&self, address: SocketAddr) -> anyhow::Result<TcpListener> {
        let open = |address: SocketAddr| {
            let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
            // As Go does for every listener, whatever --permit-address-sharing says.
            socket.set_reuseaddr(true)?;
            socket.set_reuseport(self.shares_port)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        };
        listen::open(address, open).with_context(|| format!("listen on {address}"))
    }

    /// Shows the certificates of names, too, and follows their files.
    pub(super) fn show(&self, certificate: &Arc<ServingCertificate>) -> anyhow::Result<Option<Task>> {
        if self.named.is_empty() {
            return Ok(None);
        }
        let named = self.named.clone();
        replace(&named, certificate)?;
        let certificate = certificate.clone();
        Ok(Some(Task::endless("named-certificates", move || {
            let (named, certificate) = (named.clone(), certificate.clone());
            async move {
                let paths = named.iter().flat_map(|files| [files.certificate.as_path(), files.key.as_path()]);
                let mut changes = Directories::of_files(paths);
                loop {
                    changes.changed(REREAD).await;
                    if let Err(error) = replace(&named, &certificate) {
                        tracing::warn!(
                            error = format!("{error:#}"),
                            "certificates of names are not replaced"
                        );
                    }
                }
            }
        })))
    }

    /// The rest of what a server is told.
    pub(super) fn put_into(&self, config: Config) -> Config {
        Config {
            agreed: self.agreed.clone(),
            limits: self.limits,
            headers: self.headers.clone(),
            shutdown: self.shutdown,
            ..config
        }
    }
}

fn replace(named: &[NamedFiles], certificate: &ServingCertificate) -> anyhow::Result<()> {
    let pairs = named.iter().map(NamedFiles::read).collect::<anyhow::Result<Vec<_>>>()?;
    certificate.replace_named(&pairs).context("--tls-sni-cert-key")
}

/// A time, none by default, that upstream refuses where it is negative, in its words.
pub(super) fn not_negative(flags: &Flags, name: &str, why: &str) -> anyhow::Result<Duration> {
    let Some(text) = flags.text(name) else { return Ok(Duration::ZERO) };
    let nanos =
        machinery::duration::parse(text).map_err(|e| anyhow!(e)).with_context(|| format!("--{name}"))?;
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| anyhow!("{why}"))
}

fn check_origins(origins: &[String], headers: &mut Headers) -> anyhow::Result<()> {
    let wrong = |why: &str| {
        anyhow!("--cors-allowed-origins has an invalid regular expression: {why}, help: {ORIGINS}")
    };
    headers.allow_origins(origins).map_err(|e| wrong(&e.to_string()))?;
    for origin in origins {
        if !["^", "//"].iter().any(|start| origin.contains(start))
            || !["$", ":"].iter().any(|end| origin.contains(end))
        {
            return Err(wrong("regular expression does not pin to start/end of host in the origin header"));
        }
    }
    Ok(())
}

fn check_directive(directive: &str) -> anyhow::Result<()> {
    match directive.split('=').collect::<Vec<_>>().as_slice() {
        ["includeSubDomains" | "preload"] | ["max-age", _] => Ok(()),
        _ => bail!(DIRECTIVES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;

    fn of(line: &str) -> anyhow::Result<Serving> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Serving::of_flags(&Component::named("kube-apiserver").unwrap().table().parse(&arguments)?)
    }

    #[test]
    fn each_flag_changes_what_it_names() {
        type Seen = fn(&Serving) -> String;
        let cases: [(&str, Seen, &str); 9] = [
            ("--http2-max-streams-per-connection=7", |s| s.limits.streams.to_string(), "7"),
            ("--goaway-chance=0.001", |s| s.limits.goaway.to_string(), "0.001"),
            (
                "--disable-http2-serving",
                |s| format!("{} {}", s.limits.http2, s.agreed.no_http2),
                "false true",
            ),
            ("--shutdown-delay-duration=20s", |s| s.shutdown.delay.as_secs().to_string(), "20"),
            (
                "--shutdown-watch-termination-grace-period=20s",
                |s| s.shutdown.watches.as_secs().to_string(),
                "20",
            ),
            ("--shutdown-send-retry-after", |s| s.shutdown.refuses.to_string(), "true"),
            ("--livez-grace-period=1m", |s| s.to_start.as_secs().to_string(), "60"),
            ("--external-hostname=api.test", |s| s.external.clone().unwrap_or_default(), "api.test"),
            ("--permit-port-sharing", |s| s.shares_port.to_string(), "true"),
        ];
        let default = of("").unwrap();
        for (line, seen, expected) in cases {
            let set = of(line).unwrap();
            assert_eq!(seen(&set), expected, "{line}");
            assert_ne!(seen(&default), expected, "{line}");
        }
        assert_eq!(
            of("--http2-max-streams-per-connection=0").unwrap().limits.streams,
            default.limits.streams
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_in_upstreams_words() {
        let cors = "--cors-allowed-origins has an invalid regular expression: ";
        for (line, why) in [
            ("--goaway-chance=0.03", "--goaway-chance can not be less than 0 or greater than 0.02"),
            ("--goaway-chance=-1", "--goaway-chance can not be less than 0 or greater than 0.02"),
            ("--shutdown-delay-duration=-1s", "--shutdown-delay-duration can not be negative value"),
            ("--livez-grace-period=-1s", "--livez-grace-period can not be a negative value"),
            ("--strict-transport-security-directives=max-age", DIRECTIVES),
            ("--strict-transport-security-directives=max-age=1,all", DIRECTIVES),
            ("--cors-allowed-origins=example.com", cors),
            ("--cors-allowed-origins=//example.com", cors),
            ("--cors-allowed-origins=//(:", cors),
        ] {
            let error = of(line).unwrap_err().to_string();
            assert!(error.starts_with(why), "{line}: {error}");
        }
        assert!(of("--cors-allowed-origins=//example\\.com(:|$),^https://b$").is_ok());
        assert!(of("--strict-transport-security-directives=max-age=1,includeSubDomains,preload").is_ok());
    }

    #[tokio::test]
    async fn a_port_is_shared_only_where_both_say_so() {
        let (sharing, alone) = (of("--permit-port-sharing").unwrap(), of("").unwrap());
        let first = sharing.listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        assert!(sharing.listen(address).is_ok());
        assert!(alone.listen(address).is_err());
    }
}
