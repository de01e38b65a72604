//! The API server as a program of its own, with upstream's flags.

use super::trust::Front;
use super::{Api, Certificates, Flagged, Limits, Settings, admission, neighbours, publish, storage};
use crate::flags::Flags;
use crate::ranges;
use crate::signals::Signals;
use crate::watched::{Directories, REREAD};
use anyhow::{Context as _, bail};
use apiserver::registry;
use ipnet::IpNet;
use jiff::Timestamp;
use pki::service_account::{SigningKey, VerifyingKey};
use pki::{Authority, Leaf};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use supervise::Task;
use tokio_util::sync::CancellationToken;

const PORT: u16 = 6443;
/// Where the program's lock is, without `--data-dir`.
const DATA_DIR: &str = "/var/lib/windlass/apiserver";

/// Runs until a signal.
pub(crate) async fn run(flags: Flags) -> anyhow::Result<()> {
    let signals = Signals::take().context("take over signals")?;
    admission::check(&flags)?;
    storage::Settings::check(&flags)?;
    let files = Arc::new(Files::of(&flags));
    let generated = Generated::new(&flags)?;
    let settings = settings(&flags, files.read(&generated)?)?;
    let dir = data_dir(&flags);
    pki::files::create_private_dir(&dir)?;
    let _lock = crate::lock::take(&dir, "API server")?;
    let (listen, certificates) = (settings.listen, settings.certificates.clone());
    let api = Arc::new(super::start(settings).await?);
    neighbours::add(api.health())?;
    tracing::info!(%listen, "the API server listens");
    let shutdown = CancellationToken::new();
    let main = async {
        api.ready().await?;
        let client = api.client("system:apiserver", &["system:masters"]);
        publish::namespaces(&client).await.context("make the cluster's first namespaces")?;
        tracing::info!("the API server is ready");
        let mut tasks = vec![api.logging(), api.trust(), reread(files, generated, certificates, &api)];
        tasks.extend(api.follows());
        api.supervisor().run(tasks, &shutdown).await;
        anyhow::Ok(())
    };
    let stop = CancellationToken::new();
    let main = async {
        let done = tokio::select! {
            done = main => done,
            () = async { shutdown.cancelled().await; if api.is_ready() { std::future::pending::<()>().await } } => Ok(()),
        };
        stop.cancel();
        done
    };
    let work = async {
        let (served, done) = tokio::join!(Box::pin(api.serve(&stop)), Box::pin(main));
        done.and(served)
    };
    signals.until_done(&shutdown, Box::pin(work)).await
}

/// Serves with renewed certificates soon after their files changed.
fn reread(files: Arc<Files>, generated: Generated, first: Certificates, api: &Arc<Api>) -> Task {
    let (generated, api) = (Arc::new(generated), api.clone());
    Task::endless("certificates", move || {
        let (files, generated, mut served, api) =
            (files.clone(), generated.clone(), first.clone(), api.clone());
        async move {
            let mut changes = Directories::of_files(files.0.iter().map(|(_, path)| path.as_path()));
            loop {
                changes.changed(REREAD).await;
                let replaced = files.read(&generated).and_then(|now| {
                    if now != served {
                        api.replace(&now)?;
                        served = now;
                        tracing::info!("uses other certificates from now on");
                    }
                    Ok(())
                });
                if let Err(error) = replaced {
                    tracing::warn!(error = format!("{error:#}"), "certificates are not replaced");
                }
            }
        }
    })
}

fn data_dir(flags: &Flags) -> PathBuf {
    flags.text("data-dir").unwrap_or(DATA_DIR).into()
}

/// Flags that name a file, by the flag.
struct Files(Vec<(&'static str, PathBuf)>);

impl Files {
    fn of(flags: &Flags) -> Self {
        let names = [
            "tls-cert-file",
            "tls-private-key-file",
            "client-ca-file",
            "kubelet-client-certificate",
            "kubelet-client-key",
            "kubelet-certificate-authority",
            "proxy-client-cert-file",
            "proxy-client-key-file",
            "requestheader-client-ca-file",
        ];
        Self(names.into_iter().filter_map(|name| Some((name, flags.text(name)?.into()))).collect())
    }

    fn text(&self, flag: &str) -> Option<anyhow::Result<String>> {
        let (name, path) = self.0.iter().find(|(name, _)| *name == flag)?;
        Some(pki::files::read(path).with_context(|| format!("--{name}")))
    }

    fn pair(
        &self,
        certificate: &str,
        key: &str,
        default: &(String, String),
    ) -> anyhow::Result<(String, String)> {
        match (self.text(certificate), self.text(key)) {
            (Some(certificate), Some(key)) => Ok((certificate?, key?)),
            (None, None) => Ok(default.clone()),
            _ => bail!("--{certificate} and --{key} must be given together"),
        }
    }

    fn read(&self, generated: &Generated) -> anyhow::Result<Certificates> {
        let client_authorities = self.text("client-ca-file").transpose()?;
        Ok(Certificates {
            serving: self.pair("tls-cert-file", "tls-private-key-file", &generated.serving)?,
            kubelet_client: self.pair(
                "kubelet-client-certificate",
                "kubelet-client-key",
                &generated.client,
            )?,
            kubelet_authorities: self.text("kubelet-certificate-authority").transpose()?,
            proxy_client: self.pair("proxy-client-cert-file", "proxy-client-key-file", &generated.client)?,
            client_authorities,
            front_authorities: self.text("requestheader-client-ca-file").transpose()?,
            replaced: String::new(),
        })
    }
}

/// Certificates of nobody's, for those that were not given.
struct Generated {
    serving: (String, String),
    client: (String, String),
}

impl Generated {
    fn new(flags: &Flags) -> anyhow::Result<Self> {
        let now = Timestamp::now();
        let authority = Authority::generate("windlass self-signed", now)?;
        let mut ips: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into()];
        ips.extend(flags.ip("advertise-address"));
        let serving = authority.issue(&Leaf::server("localhost", vec!["localhost".to_owned()], ips), now)?;
        let client = authority.issue(&Leaf::client("nobody", &[]), now)?;
        let pair = |issued: pki::authority::Issued| (issued.cert_pem, issued.key_pem);
        Ok(Self { serving: pair(serving), client: pair(client) })
    }
}

fn settings(flags: &Flags, certificates: Certificates) -> anyhow::Result<Settings> {
    let bind = flags.ip("bind-address").unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let listen = SocketAddr::new(bind, flags.port("secure-port", PORT)?);
    let services = flags.text("service-cluster-ip-range").unwrap_or("10.0.0.0/24").split(',');
    let services = services.map(|text| {
        text.trim().parse::<IpNet>().with_context(|| format!("--service-cluster-ip-range: {text:?}"))
    });
    let services = services.collect::<anyhow::Result<Vec<IpNet>>>()?;
    ranges::check("service-cluster-ip-range", &services)?;
    let given = flags.ip("advertise-address").or(Some(bind).filter(|ip| !ip.is_unspecified()));
    let own = match given {
        Some(_) => Vec::new(),
        None => node::address::of_node(node::address::own(None)?, &services),
    };
    // As upstream: who wants privileged containers says so.
    let objects = registry::Config { privileged: false, ..registry::Config::default() };
    let flagged = Flagged::of_flags(flags, &objects)?;
    // Where nobody keeps the endpoints of the Service `kubernetes`, they may be of any family.
    let named: &[IpNet] = match flagged.services.endpoints {
        registry::EndpointReconciler::None => &[],
        _ => services.as_slice(),
    };
    let advertise = ranges::advertised(given, &own, named)?.context("no address to advertise")?;
    let issuers = flags.list("service-account-issuer").map(<[String]>::to_vec).unwrap_or_default();
    let read = |path: &str| pki::files::read(Path::new(path));
    let signing = match flags.text("service-account-signing-key-file") {
        Some(path) => {
            let text = read(path).context("--service-account-signing-key-file")?;
            Some(Arc::new(SigningKey::from_pem(&text).context("--service-account-signing-key-file")?))
        }
        None => None,
    };
    if issuers.is_empty() {
        bail!("--service-account-issuer is a required flag");
    }
    if let Some(twice) = issuers.iter().enumerate().find(|(at, issuer)| issuers[..*at].contains(issuer)) {
        bail!("service-account-issuer {:?} is already specified", twice.1);
    }
    let mut verifying = Vec::new();
    for path in flags.list("service-account-key-file").unwrap_or_default() {
        verifying.extend(verifying_keys(&read(path).context("--service-account-key-file")?)?);
    }
    if verifying.is_empty() {
        verifying.extend(signing.iter().map(|key| key.public().clone()));
    }
    Ok(Settings {
        listen,
        advertise,
        storage: storage::Settings::alone(flags, crate::settings::store_file(&data_dir(flags)))?,
        service_cidrs: services,
        issuers,
        audiences: flags.list("api-audiences").map(<[String]>::to_vec).unwrap_or_default(),
        signing_key: signing,
        verifying_keys: verifying,
        certificates,
        front: front(flags),
        limits: Limits::of_flags(flags, &flagged, Limits { bootstrap_tokens: false, ..Limits::default() })?,
        flagged,
    })
}

/// Who may say in headers who a caller is.
fn front(flags: &Flags) -> Front {
    let front = Front::of_flags(flags);
    if flags.text("requestheader-client-ca-file").is_some() && front.users.is_empty() {
        tracing::warn!(
            "--requestheader-client-ca-file without --requestheader-username-headers: no header names a user"
        );
    }
    front
}

/// Public keys, or the public part of a private one: upstream takes both.
fn verifying_keys(text: &str) -> anyhow::Result<Vec<VerifyingKey>> {
    match VerifyingKey::list_from_pem(text) {
        Ok(keys) if !keys.is_empty() => Ok(keys),
        _ => Ok(vec![SigningKey::from_pem(text).context("--service-account-key-file")?.public().clone()]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Services;
    use super::*;
    use crate::parts::component::Component;
    use apiserver::registry::EndpointReconciler;

    fn of(line: &str) -> anyhow::Result<Settings> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let flags = Component::named("kube-apiserver").unwrap().table().parse(&arguments)?;
        admission::check(&flags)?;
        settings(&flags, Files::of(&flags).read(&Generated::new(&flags)?)?)
    }

    #[test]
    fn flags_become_settings() {
        let line = "--advertise-address=192.0.2.1 --service-account-issuer=https://a --service-account-issuer=https://b \
            --service-cluster-ip-range=10.96.0.0/12,fd00::/108 --authorization-mode=Node,RBAC \
            --enable-admission-plugins=NodeRestriction --max-requests-inflight=7 --anonymous-auth=false --data-dir=/d";
        let settings = of(line).unwrap();
        assert_eq!(settings.listen, "0.0.0.0:6443".parse().unwrap());
        assert_eq!(settings.advertise, IpAddr::from([192, 0, 2, 1]));
        assert_eq!((settings.service_cidrs.len(), settings.issuers.len()), (2, 2));
        assert_eq!(settings.audiences(), ["https://a"]);
        assert_eq!(settings.storage, storage::Settings::Embedded("/d/store.redb".into()));
        assert_eq!((settings.limits.requests, settings.limits.mutating), (7, 200));
        assert!(!settings.limits.anonymous.enabled && !settings.limits.bootstrap_tokens);
        assert_eq!(settings.flagged.services, Services::default());
    }

    #[test]
    fn what_services_are_given_is_settled_by_flags() {
        let services = |line: &str| {
            let issuer = "--advertise-address=192.0.2.1 --service-account-issuer=https://a";
            of(&format!("{issuer} {line}")).map(|settings| settings.flagged.services)
        };
        let ports = |text: &str| services(&format!("--service-node-port-range={text}")).map(|s| s.node_ports);
        assert_eq!(ports("30000-30100").unwrap(), (30000, 30100));
        assert_eq!(ports("30000+100").unwrap(), (30000, 30100));
        assert_eq!(ports("30000").unwrap(), (30000, 30000));
        for wrong in ["30100-30000", "x", "0-5", "65000+1000", "-"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
        let endpoints = |line: &str| services(line).map(|s| s.endpoints);
        assert_eq!(endpoints("--endpoint-reconciler-type=none").unwrap(), EndpointReconciler::None);
        assert_eq!(
            endpoints("--endpoint-reconciler-type=master-count --apiserver-count=3").unwrap(),
            EndpointReconciler::MasterCount(3)
        );
        assert!(
            endpoints("--endpoint-reconciler-type=x").is_err() && endpoints("--apiserver-count=0").is_err()
        );
    }

    #[test]
    fn anybody_must_not_be_let_in_where_everything_is_allowed() {
        let anonymous = |line: &str| {
            let issuer = "--advertise-address=192.0.2.1 --service-account-issuer=https://a";
            of(&format!("{issuer} {line}")).unwrap().limits.anonymous.enabled
        };
        assert!(anonymous("") && anonymous("--authorization-mode=RBAC"));
        assert!(!anonymous("--authorization-mode=RBAC,AlwaysAllow --anonymous-auth=true"));
    }

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        let issuer = "--advertise-address=192.0.2.1 --service-account-issuer=https://a";
        for (line, word) in [
            ("--advertise-address=192.0.2.1", "--service-account-issuer"),
            (&format!("{issuer} --authorization-mode=ABAC"), "ABAC's authorization policy file not passed"),
            (&format!("{issuer} --authorization-policy-file=/p"), "without mode ABAC"),
            (&format!("{issuer} --service-account-issuer=https://a"), "\"https://a\" is already specified"),
            (&format!("{issuer} --enable-admission-plugins=Foo"), "\"Foo\" is unknown"),
            (&format!("{issuer} --tls-cert-file=/x"), "--tls-private-key-file"),
            (&format!("{issuer} --client-ca-file=/nowhere"), "--client-ca-file"),
            (&format!("{issuer} --service-cluster-ip-range=x"), "--service-cluster-ip-range"),
        ] {
            let error = format!("{:#}", of(line).err().expect(line));
            assert!(error.contains(word), "{line}: {error}");
        }
    }

    #[test]
    fn clients_outside_are_told_the_names_that_were_set() {
        let told = |line: &str| {
            let issuer = "--advertise-address=192.0.2.1 --service-account-issuer=https://a";
            let config = super::super::config(&of(&format!("{issuer} {line}")).unwrap()).unwrap();
            let keys = config.openid.unwrap().configuration["jwks_uri"].as_str().unwrap().to_owned();
            (config.advertise, keys)
        };
        for (line, address, keys) in [
            ("", "192.0.2.1:6443", "https://192.0.2.1:6443/openid/v1/jwks"),
            ("--external-hostname=api.test", "api.test:6443", "https://api.test:6443/openid/v1/jwks"),
            ("--external-hostname=api.test:443", "api.test:443", "https://api.test:443/openid/v1/jwks"),
            (
                "--external-hostname=2001:db8::1",
                "[2001:db8::1]:6443",
                "https://[2001:db8::1]:6443/openid/v1/jwks",
            ),
            ("--service-account-jwks-uri=https://k.test/j", "192.0.2.1:6443", "https://k.test/j"),
        ] {
            assert_eq!(told(line), (address.to_owned(), keys.to_owned()), "{line}");
        }
    }

    #[test]
    fn a_server_of_its_own_must_be_told_that_containers_may_be_privileged() {
        let issuer = "--advertise-address=192.0.2.1 --service-account-issuer=https://a";
        let allowed = |line: &str| of(&format!("{issuer} {line}")).unwrap().flagged.objects.privileged;
        assert!(!allowed("") && allowed("--allow-privileged=true") && !allowed("--allow-privileged=false"));
    }

    #[test]
    fn tokens_are_verified_by_public_and_by_private_keys() {
        let key = SigningKey::generate().unwrap();
        for text in [key.public().to_pem(), key.to_pem().to_owned()] {
            assert_eq!(verifying_keys(&text).unwrap()[0].id, key.public().id);
        }
        assert!(verifying_keys("nothing").is_err());
    }
}
