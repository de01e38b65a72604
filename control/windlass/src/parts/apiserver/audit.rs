//! What is audited, and where it goes, by upstream's flags. Upstream: `apiserver/pkg/server/options/audit.go`.

use super::reviewer::Remote;
use crate::flags::Flags;
use anyhow::{Context as _, anyhow, bail};
use apiserver::audit::{
    Auditor, Batches, Config, Delivery, Format, Log, Mode, Output, Policy, Receiver, Rotation, Truncate,
    Webhook,
};
use apiserver::metrics::Metrics;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use supervise::Supervisor;

const VERSION: &str = "audit.k8s.io/v1";
const MEGABYTE: u64 = 1 << 20;
/// How long a service may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Upstream's defaults of all backends.
const BUFFER: i64 = 10_000;
const TRUNCATE: (i64, i64) = (100 * 1024, 10 * 1024 * 1024);

/// What flags say. Nothing is audited without a policy and a place.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Source {
    policy: Option<Policy>,
    log: Option<Log>,
    webhook: Option<Service>,
}

/// The service that events are posted to.
#[derive(Clone, Debug, PartialEq)]
struct Service {
    kubeconfig: PathBuf,
    initial_backoff: Duration,
    delivery: Delivery,
}

/// What is delivered how, where flags say nothing.
struct Defaults {
    name: &'static str,
    mode: &'static str,
    size: i64,
    wait: Duration,
    throttled: bool,
    overlapping: bool,
}

const LOG: Defaults = Defaults {
    name: "log",
    mode: "blocking",
    size: 1,
    wait: Duration::ZERO,
    throttled: false,
    overlapping: false,
};
const WEBHOOK: Defaults = Defaults {
    name: "webhook",
    mode: "batch",
    size: 400,
    wait: Duration::from_secs(30),
    throttled: true,
    overlapping: true,
};

const MODES: [(&str, Mode); 3] =
    [("batch", Mode::Batch), ("blocking", Mode::Blocking), ("blocking-strict", Mode::BlockingStrict)];

/// A number that is to be above zero.
fn positive(number: i64, what: impl FnOnce() -> String) -> anyhow::Result<u64> {
    match u64::try_from(number) {
        Ok(number) if number > 0 => Ok(number),
        _ => bail!("{} {number}, must be a positive number", what()),
    }
}

fn float(flags: &Flags, name: &str) -> Option<f64> {
    flags.text(name).and_then(|text| text.parse().ok())
}

impl Defaults {
    fn flag(&self, rest: &str) -> String {
        format!("audit-{}-{rest}", self.name)
    }

    /// How events get to this backend, by its flags.
    fn delivery(&self, flags: &Flags) -> anyhow::Result<Delivery> {
        let name = self.name;
        let mode = flags.text(&self.flag("mode")).unwrap_or(self.mode);
        let Some((_, mode)) = MODES.iter().find(|(known, _)| *known == mode) else {
            bail!("invalid audit {name} mode {mode}, allowed modes are \"batch,blocking,blocking-strict\"");
        };
        let version = flags.text(&self.flag("version")).unwrap_or(VERSION);
        if version != VERSION {
            bail!("--{}: invalid group version, allowed versions are [{VERSION:?}]", self.flag("version"));
        }
        let batches = match mode {
            // What is not used is not judged.
            Mode::Blocking | Mode::BlockingStrict => self.unused(),
            Mode::Batch => self.batches(flags)?,
        };
        let int = |rest: &str, default: i64| flags.int(&self.flag(rest)).unwrap_or(default);
        let event = int("truncate-max-event-size", TRUNCATE.0);
        let batch = int("truncate-max-batch-size", TRUNCATE.1);
        let event_size = positive(event, || format!("invalid audit truncate {name} max event size"))?;
        if batch < event {
            bail!(
                "invalid audit truncate {name} max batch size {batch}, must be greater than max event size ({event})"
            );
        }
        let bounds = Truncate { event: event_size, batch: batch.unsigned_abs() };
        let truncated = flags.bool(&self.flag("truncate-enabled")).unwrap_or(false);
        Ok(Delivery { mode: *mode, batches, truncate: truncated.then_some(bounds) })
    }

    fn unused(&self) -> Batches {
        Batches { buffer: 1, size: 1, wait: self.wait, throttle: None, overlapping: self.overlapping }
    }

    fn batches(&self, flags: &Flags) -> anyhow::Result<Batches> {
        let name = self.name;
        let int = |rest: &str, default: i64| flags.int(&self.flag(rest)).unwrap_or(default);
        let what = |what: &'static str| move || format!("invalid audit batch {name} {what}");
        let buffer = positive(int("batch-buffer-size", BUFFER), what("buffer size"))?;
        let size = positive(int("batch-max-size", self.size), what("max batch size"))?;
        let throttle = match flags.bool(&self.flag("batch-throttle-enable")).unwrap_or(self.throttled) {
            false => None,
            true => {
                let default = if self.throttled { (10.0, 15) } else { (0.0, 0) };
                let qps = float(flags, &self.flag("batch-throttle-qps")).unwrap_or(default.0);
                if qps.is_nan() || qps <= 0.0 {
                    bail!("{} {qps}, must be a positive number", what("throttle QPS")());
                }
                let burst = positive(int("batch-throttle-burst", default.1), what("throttle burst"))?;
                Some((qps, u32::try_from(burst).unwrap_or(u32::MAX)))
            }
        };
        let wait = flags.duration(&self.flag("batch-max-wait")).unwrap_or(self.wait);
        Ok(Batches {
            buffer: usize::try_from(buffer)?,
            size: usize::try_from(size)?,
            wait,
            throttle,
            overlapping: self.overlapping,
        })
    }
}

/// A number that may be zero, which means no bound.
fn bound(flags: &Flags, name: &str, default: i64) -> anyhow::Result<Option<u64>> {
    let number = flags.int(name).unwrap_or(default);
    match u64::try_from(number) {
        Ok(number) => Ok(Some(number).filter(|number| *number > 0)),
        Err(_) => bail!("--{name} {number} can't be a negative number"),
    }
}

fn log(flags: &Flags) -> anyhow::Result<Option<Log>> {
    let Some(path) = flags.text("audit-log-path") else { return Ok(None) };
    let format = match flags.text("audit-log-format") {
        None | Some("json") => Format::Json,
        Some("legacy") => Format::Legacy,
        Some(other) => bail!("invalid audit log format {other}, allowed formats are \"legacy,json\""),
    };
    let rotation = Rotation {
        size: bound(flags, "audit-log-maxsize", 100)?.map(|megabytes| megabytes.saturating_mul(MEGABYTE)),
        days: bound(flags, "audit-log-maxage", 366)?.map(|days| u32::try_from(days).unwrap_or(u32::MAX)),
        backups: bound(flags, "audit-log-maxbackup", 100)?.map(usize::try_from).transpose()?,
        compress: flags.bool("audit-log-compress").unwrap_or(false),
    };
    let output = match path {
        "-" => Output::Stdout,
        path => Output::File(path.into(), rotation),
    };
    Ok(Some(Log { output, format, delivery: LOG.delivery(flags)? }))
}

fn webhook(flags: &Flags) -> anyhow::Result<Option<Service>> {
    let Some(path) = flags.text("audit-webhook-config-file") else { return Ok(None) };
    let (backoff, old) = ("audit-webhook-initial-backoff", "audit-webhook-batch-initial-backoff");
    if flags.text(old).is_some() {
        tracing::warn!("Flag --{old} has been deprecated, use --{backoff} instead");
    }
    let backoff = flags.duration(backoff).or_else(|| flags.duration(old));
    Ok(Some(Service {
        kubeconfig: path.into(),
        initial_backoff: backoff.unwrap_or(Duration::from_secs(10)),
        delivery: WEBHOOK.delivery(flags)?,
    }))
}

fn policy(flags: &Flags) -> anyhow::Result<Option<Policy>> {
    let Some(path) = flags.text("audit-policy-file") else { return Ok(None) };
    let read = || {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("failed to read file path {path:?}"))?;
        Policy::parse(&text).map_err(|why| anyhow!("{why}: from file {path}"))
    };
    read().context("loading audit policy file").map(Some)
}

impl Source {
    pub(crate) fn of_flags(flags: &Flags) -> anyhow::Result<Self> {
        Ok(Self { policy: policy(flags)?, log: log(flags)?, webhook: webhook(flags)? })
    }

    /// Opens what events go to; none where nothing is audited.
    pub(crate) async fn start(
        &self,
        supervisor: &Supervisor,
        metrics: &Metrics,
    ) -> anyhow::Result<Option<Arc<Auditor>>> {
        if let Some(log) = &self.log {
            // As upstream, a wrong path is found even where nothing is to be written.
            log.ensure().context("--audit-log-path")?;
        }
        let Some(policy) = self.policy.clone() else {
            if self.log.is_some() || self.webhook.is_some() {
                tracing::warn!("No audit policy file provided, no events will be recorded");
            }
            return Ok(None);
        };
        let webhook = match &self.webhook {
            None => None,
            Some(Service { kubeconfig, initial_backoff, delivery }) => {
                let remote = Remote::new(Some(kubeconfig), PATIENCE).await;
                let receiver = Arc::new(Posted(remote.context("initializing audit webhook")?));
                Some(Webhook { receiver, initial_backoff: *initial_backoff, delivery: *delivery })
            }
        };
        let config = Config { policy, log: self.log.clone(), webhook };
        Auditor::start(config, supervisor, metrics).context("--audit-log-path")
    }
}

/// A service by a kubeconfig.
struct Posted(Remote);

impl Receiver for Posted {
    fn post(&self, list: Bytes) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { self.0.send(list.into()).await.map(drop).map_err(|failure| failure.text) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;

    fn of(line: &str) -> anyhow::Result<Source> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Source::of_flags(&Component::named("kube-apiserver").unwrap().table().parse(&arguments)?)
    }

    #[test]
    fn the_defaults_are_upstreams_for_each_backend() {
        assert_eq!(of("").unwrap(), Source::default());
        let source = of("--audit-log-path=/l --audit-webhook-config-file=/w").unwrap();
        let log = source.log.unwrap();
        let rotation =
            Rotation { size: Some(100 << 20), days: Some(366), backups: Some(100), compress: false };
        assert_eq!((log.output, log.format), (Output::File("/l".into(), rotation), Format::Json));
        assert_eq!((log.delivery.mode, log.delivery.truncate), (Mode::Blocking, None));
        let webhook = source.webhook.unwrap();
        assert_eq!(webhook.initial_backoff, Duration::from_secs(10));
        let batches = Batches {
            buffer: 10_000,
            size: 400,
            wait: Duration::from_secs(30),
            throttle: Some((10.0, 15)),
            overlapping: true,
        };
        assert_eq!(webhook.delivery, Delivery { mode: Mode::Batch, batches, truncate: None });
    }

    #[test]
    fn every_flag_has_an_effect() {
        let base = "--audit-log-path=/l --audit-log-mode=batch --audit-log-truncate-enabled --audit-log-batch-throttle-enable \
            --audit-log-batch-throttle-qps=1 --audit-log-batch-throttle-burst=1 --audit-webhook-config-file=/w \
            --audit-webhook-truncate-enabled";
        let before = of(base).unwrap();
        for flag in [
            "log-path=-",
            "log-format=legacy",
            "log-maxage=1",
            "log-maxbackup=0",
            "log-maxsize=0",
            "log-compress",
            "log-mode=blocking-strict",
            "log-batch-buffer-size=1",
            "log-batch-max-size=2",
            "log-batch-max-wait=1s",
            "log-batch-throttle-enable=false",
            "log-batch-throttle-qps=2.5",
            "log-batch-throttle-burst=2",
            "log-truncate-enabled=false",
            "log-truncate-max-batch-size=9000000",
            "log-truncate-max-event-size=9",
            "webhook-config-file=/x",
            "webhook-mode=blocking",
            "webhook-initial-backoff=1s",
            "webhook-batch-initial-backoff=2s",
            "webhook-batch-buffer-size=1",
            "webhook-batch-max-size=2",
            "webhook-batch-max-wait=1s",
            "webhook-batch-throttle-enable=false",
            "webhook-batch-throttle-qps=2.5",
            "webhook-batch-throttle-burst=2",
            "webhook-truncate-enabled=false",
            "webhook-truncate-max-batch-size=9000000",
            "webhook-truncate-max-event-size=9",
        ] {
            assert_ne!(of(&format!("{base} --audit-{flag}")).unwrap(), before, "{flag}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused_in_upstreams_words() {
        for (line, why) in [
            ("--audit-log-path=/l --audit-log-mode=x", "invalid audit log mode x, allowed modes are"),
            (
                "--audit-log-path=/l --audit-log-format=xml",
                "invalid audit log format xml, allowed formats are \"legacy,json\"",
            ),
            ("--audit-log-path=/l --audit-log-maxage=-1", "--audit-log-maxage -1 can't be a negative number"),
            ("--audit-log-path=/l --audit-log-maxbackup=-1", "--audit-log-maxbackup -1 can't be"),
            ("--audit-log-path=/l --audit-log-maxsize=-1", "--audit-log-maxsize -1 can't be"),
            (
                "--audit-log-path=/l --audit-log-version=audit.k8s.io/v1beta1",
                "invalid group version, allowed versions are",
            ),
            (
                "--audit-log-path=/l --audit-log-mode=batch --audit-log-batch-buffer-size=0",
                "invalid audit batch log buffer size 0, must be a positive number",
            ),
            (
                "--audit-webhook-config-file=/w --audit-webhook-batch-max-size=-1",
                "invalid audit batch webhook max batch size -1, must be a positive number",
            ),
            (
                "--audit-webhook-config-file=/w --audit-webhook-batch-throttle-qps=0",
                "invalid audit batch webhook throttle QPS 0, must be a positive number",
            ),
            (
                "--audit-log-path=/l --audit-log-mode=batch --audit-log-batch-throttle-enable --audit-log-batch-throttle-qps=1",
                "invalid audit batch log throttle burst 0",
            ),
            (
                "--audit-log-path=/l --audit-log-truncate-max-batch-size=1",
                "invalid audit truncate log max batch size 1, must be greater than max event size (102400)",
            ),
            (
                "--audit-log-path=/l --audit-log-truncate-max-event-size=0",
                "invalid audit truncate log max event size 0",
            ),
            (
                "--audit-policy-file=/nowhere",
                "loading audit policy file: failed to read file path \"/nowhere\"",
            ),
        ] {
            let error = format!("{:#}", of(line).expect_err(line));
            assert!(error.contains(why), "{line}: {error}");
        }
        // What is not used is not judged.
        assert!(of("--audit-log-mode=x").is_ok());
        assert!(of("--audit-log-path=/l --audit-log-batch-buffer-size=0").is_ok());
    }

    #[test]
    fn a_policy_that_is_none_names_its_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = format!("--audit-policy-file={}", file.path().display());
        for (text, why) in [
            (
                "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []\n",
                "loaded illegal policy with 0 rules: from file",
            ),
            (
                "apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]\n",
                "failed decoding: no kind",
            ),
        ] {
            std::fs::write(file.path(), text).unwrap();
            let error = format!("{:#}", of(&line).unwrap_err());
            assert!(error.contains(why) && error.starts_with("loading audit policy file: "), "{error}");
        }
        std::fs::write(
            file.path(),
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n",
        )
        .unwrap();
        assert!(of(&line).unwrap().policy.is_some());
    }

    #[tokio::test]
    async fn nothing_must_be_audited_without_a_policy_or_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("a/audit.log");
        let (supervisor, metrics) = (Supervisor::default(), Metrics::default());
        let source = of(&format!("--audit-log-path={}", log.display())).unwrap();
        assert!(source.start(&supervisor, &metrics).await.unwrap().is_none());
        assert!(log.exists());
        let policy =
            Policy::parse("{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None}]}").unwrap();
        let alone = Source { policy: Some(policy.clone()), ..Source::default() };
        assert!(alone.start(&supervisor, &metrics).await.unwrap().is_none());
        let both = Source { policy: Some(policy), ..source };
        assert!(both.start(&supervisor, &metrics).await.unwrap().is_some());
    }
}
