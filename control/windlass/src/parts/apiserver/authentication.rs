//! Whose tokens are believed beside our own, and where anybody may ask: `--authentication-config`, or `--oidc-*`, which say the same of one
//! issuer. Upstream: `pkg/kubeapiserver/options/authentication.go`, `apiserver/pkg/apis/apiserver/validation`.

mod issuer;
mod remotes;
mod tokens;

pub(crate) use tokens::Tokens;

use crate::component_config::{self, Kind, text};
use crate::flags::Flags;
use crate::watched::{Directories, REREAD};
use anyhow::{Context as _, anyhow, bail};
use apiserver::jwt::{ALGORITHMS, Issuers};
use machinery::field::{FieldError, Path as Field};
use remotes::Remotes;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use supervise::Task;

const FIELDS: &str = include_str!("../../../data/config/AuthenticationConfiguration.txt");
const KINDS: [Kind; 3] = component_config::of_api_server("AuthenticationConfiguration", FIELDS);
/// How long the issuers of a changed file may take to be ready, and how often they are asked in that time.
const READY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(10));
/// Issuers a file may name.
const MOST_ISSUERS: usize = 64;

/// What names the issuers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    /// `--authentication-config`
    file: Option<PathBuf>,
    /// The configuration, as it was read first.
    config: Value,
    algorithms: Vec<String>,
    /// The URLs of our own tokens, which are no other issuer's.
    own: Vec<String>,
    remotes: Arc<Remotes>,
}

/// Where anybody may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Anonymous {
    pub(crate) enabled: bool,
    /// Just there; everywhere where there is none.
    pub(crate) paths: Vec<String>,
}

impl Source {
    /// What the flags of kube-apiserver name.
    pub(super) fn of_flags(flags: &Flags) -> anyhow::Result<Self> {
        let own = flags.list("service-account-issuer").map(<[String]>::to_vec).unwrap_or_default();
        let oidc = oidc(flags)?;
        let Some(path) = flags.text("authentication-config") else {
            let algorithms = flags.list("oidc-signing-algs").map(<[String]>::to_vec);
            let algorithms = algorithms.unwrap_or_else(|| vec!["RS256".to_owned()]);
            if let Some(other) = algorithms.iter().find(|name| !ALGORITHMS.contains(&name.as_str())) {
                bail!("--oidc-signing-algs: {other:?} is not verified here: {} are", ALGORITHMS.join(","));
            }
            let config = oidc.unwrap_or_default();
            let source = Self { file: None, config, algorithms, own, remotes: Arc::default() };
            source.check(&source.config)?;
            return Ok(source);
        };
        let config =
            component_config::load_one_of(Path::new(path), &KINDS).context("--authentication-config")?.0;
        if oidc.is_some() {
            bail!("authentication-config file and oidc-* flags are mutually exclusive");
        }
        if flags.bool("anonymous-auth").is_some() && !config["anonymous"].is_null() {
            bail!(
                "--anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file"
            );
        }
        let algorithms = ALGORITHMS.map(str::to_owned).to_vec();
        let source = Self { file: Some(path.into()), config, algorithms, own, remotes: Arc::default() };
        source.check(&source.config)?;
        Ok(source)
    }

    fn check(&self, config: &Value) -> anyhow::Result<()> {
        self.issuers_of(config).map(drop)
    }

    /// The issuers, made anew.
    pub(super) fn issuers(&self) -> anyhow::Result<Issuers> {
        self.issuers_of(&self.config)
    }

    fn issuers_of(&self, config: &Value) -> anyhow::Result<Issuers> {
        self.remotes.prune();
        let (mut made, mut errors) = (Vec::new(), Vec::new());
        let root = Field::new("jwt");
        let items = config["jwt"].as_array().map_or(&[][..], Vec::as_slice);
        if items.len() > MOST_ISSUERS {
            errors.push(FieldError::too_many(&root, items.len(), MOST_ISSUERS));
        }
        for (index, item) in items.iter().take(MOST_ISSUERS).enumerate() {
            let at = root.index(index).child("issuer");
            for name in ["url", "discoveryURL"] {
                let url = text(&item["issuer"], name);
                if !url.is_empty() && items[..index].iter().any(|other| text(&other["issuer"], name) == url) {
                    errors.push(FieldError::duplicate(&at.child(name), url));
                }
            }
            let at = root.index(index);
            made.extend(issuer::of(item, &at, &self.algorithms, &self.own, &self.remotes, &mut errors));
        }
        let anonymous = &config["anonymous"];
        let conditions = anonymous["conditions"].as_array().is_some_and(|all| !all.is_empty());
        if conditions && anonymous["enabled"] != true {
            let detail = "enabled should be set to true when conditions are defined";
            let at = Field::new("anonymous").child("conditions");
            errors.push(FieldError::invalid(&at, anonymous["conditions"].clone(), detail));
        }
        if errors.is_empty() {
            return Ok(Issuers(made));
        }
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Err(anyhow!("invalid authentication configuration: {}", texts.join(", ")))
    }

    /// Where anybody may ask, if the file says that.
    pub(super) fn anonymous(&self) -> Option<Anonymous> {
        let anonymous = Some(&self.config["anonymous"]).filter(|anonymous| !anonymous.is_null())?;
        let conditions = anonymous["conditions"].as_array().into_iter().flatten();
        let paths = conditions.map(|condition| text(condition, "path").to_owned()).collect();
        Some(Anonymous { enabled: anonymous["enabled"] == true, paths })
    }

    /// Follows the file: `put` takes the issuers it names from then on. Where anybody may ask is not changed while the server runs, as
    /// upstream.
    pub(super) fn follow(&self, put: impl Fn(Issuers) + Clone + Send + Sync + 'static) -> Option<Task> {
        let (path, first) = (self.file.clone()?, self.clone());
        Some(Task::endless("authentication-config", move || {
            let (path, mut used, put) = (path.clone(), first.clone(), put.clone());
            async move {
                let mut changes = Directories::of_files([path.as_path()]);
                loop {
                    changes.changed(REREAD).await;
                    match used.follow_once(&path, READY).await {
                        Ok(None) => {}
                        Ok(Some(issuers)) => {
                            put(issuers);
                            tracing::info!("tokens of other issuers are believed from now on");
                        }
                        Err(error) => {
                            tracing::error!(error = format!("{error:#}"), "the issuers stay as they are");
                        }
                    }
                }
            }
        }))
    }

    /// The issuers of the file where it says others than before, once all of them have told their keys.
    async fn follow_once(
        &mut self,
        path: &Path,
        (longest, again): (Duration, Duration),
    ) -> anyhow::Result<Option<Issuers>> {
        let config = component_config::load_one_of(path, &KINDS)?.0;
        if config == self.config {
            return Ok(None);
        }
        if config["anonymous"] != self.config["anonymous"] {
            bail!("changes to the anonymous field need a restart");
        }
        let issuers = self.issuers_of(&config)?;
        let late = tokio::time::Instant::now() + longest;
        loop {
            let ready = futures::future::try_join_all(issuers.0.iter().map(|issuer| issuer.keys.known()));
            match tokio::time::timeout_at(late, ready).await {
                Ok(Ok(_)) => break,
                Ok(Err(error)) if tokio::time::Instant::now() + again >= late => bail!(error),
                Ok(Err(_)) => tokio::time::sleep(again).await,
                Err(_) => bail!("an issuer has not told its keys in {} seconds", longest.as_secs()),
            }
        }
        self.config = config;
        Ok(Some(issuers))
    }
}

/// What `--oidc-*` say, as the file would.
fn oidc(flags: &Flags) -> anyhow::Result<Option<Value>> {
    const NAMES: [&str; 9] = [
        "oidc-issuer-url",
        "oidc-client-id",
        "oidc-ca-file",
        "oidc-username-claim",
        "oidc-username-prefix",
        "oidc-groups-claim",
        "oidc-groups-prefix",
        "oidc-signing-algs",
        "oidc-required-claim",
    ];
    if NAMES.iter().all(|name| flags.list(name).is_none()) {
        return Ok(None);
    }
    let (Some(url), Some(client)) = (flags.text("oidc-issuer-url"), flags.text("oidc-client-id")) else {
        bail!("oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set");
    };
    let mut issuer = json!({"url": url, "audiences": [client]});
    if let Some(path) = flags.text("oidc-ca-file") {
        issuer["certificateAuthority"] = pki::files::read(Path::new(path)).context("--oidc-ca-file")?.into();
    }
    let claim = flags.text("oidc-username-claim").unwrap_or("sub");
    let prefix = match flags.text("oidc-username-prefix") {
        Some("-") => String::new(),
        Some(prefix) => prefix.to_owned(),
        // A name is unique at its issuer only; an address is everywhere.
        None if claim == "email" => String::new(),
        None => format!("{url}#"),
    };
    let mut mappings = json!({"username": {"claim": claim, "prefix": prefix}});
    if let Some(groups) = flags.text("oidc-groups-claim") {
        let prefix = flags.text("oidc-groups-prefix").unwrap_or_default();
        mappings["groups"] = json!({"claim": groups, "prefix": prefix});
    }
    let mut rules = Vec::new();
    for pair in flags.list("oidc-required-claim").unwrap_or_default() {
        let (claim, value) = pair.split_once('=').unwrap_or((pair, ""));
        rules.push(json!({"claim": claim, "requiredValue": value}));
    }
    let one = json!({"issuer": issuer, "claimMappings": mappings, "claimValidationRules": rules});
    Ok(Some(json!({"jwt": [one]})))
}

#[cfg(test)]
mod tests;
