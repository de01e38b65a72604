//! Which authorizers decide, and in which order: `--authorization-config`, or `--authorization-mode` with the flags about a webhook.
//! Upstream: `pkg/kubeapiserver/authorizer`, `apiserver/pkg/apis/apiserver/validation`.

use super::reviewer::Remote;
use crate::component_config::{self, Kind, text};
use crate::flags::Flags;
use crate::watched::{Directories, REREAD};
use anyhow::{Context as _, anyhow, bail};
use apiserver::Abac;
use apiserver::authorization_webhook::{Condition, Config, Version, Webhook};
use apiserver::server::{Authorization, Mode};
use machinery::entry;
use machinery::field::{FieldError, Path as Field};
use machinery::names;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use supervise::Task;

const FIELDS: &str = include_str!("../../../data/config/AuthorizationConfiguration.txt");
const KINDS: [Kind; 3] = component_config::of_api_server("AuthorizationConfiguration", FIELDS);
/// Types that upstream knows and that decide here.
const TYPES: [&str; 5] = ["AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];
/// Of these, those that follow the cluster from the start on, and that cannot be begun with later.
const KEPT: [&str; 2] = ["Node", "RBAC"];
const ALLOWED_FOR: Duration = Duration::from_secs(300);
const REFUSED_FOR: Duration = Duration::from_secs(30);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a webhook of flags may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);
const MOST_CONDITIONS: usize = 64;
/// Flags that say what the file says.
const OTHERS: [&str; 5] = [
    "authorization-mode",
    "authorization-webhook-config-file",
    "authorization-webhook-version",
    "authorization-webhook-cache-authorized-ttl",
    "authorization-webhook-cache-unauthorized-ttl",
];

/// What names the authorizers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `--authorization-config`
    File(PathBuf),
    /// Flags.
    Modes(Vec<Planned>),
}

impl Default for Source {
    fn default() -> Self {
        Source::Modes(vec![Planned::Plain("Node"), Planned::Plain("RBAC")])
    }
}

/// An authorizer that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Planned {
    /// By its type.
    Plain(&'static str),
    /// By the policies of a file.
    Abac(Abac),
    Webhook(Hook),
}

/// A webhook that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    /// Its kubeconfig; the pod's own account without.
    kubeconfig: Option<PathBuf>,
    timeout: Duration,
    v1: bool,
    allowed_for: Duration,
    refused_for: Duration,
    fails_open: bool,
    conditions: Vec<String>,
}

impl Source {
    /// What the flags of kube-apiserver name.
    pub(super) fn of_flags(flags: &Flags) -> anyhow::Result<Self> {
        let modes = flags.list("authorization-mode").unwrap_or_default();
        if let Some(path) = flags.text("authorization-config") {
            if let Some(other) = OTHERS.into_iter().find(|name| flags.list(name).is_some()) {
                bail!("--{other} can not be specified when --authorization-config is specified");
            }
            return Ok(Source::File(path.into()));
        }
        let mut planned = Vec::new();
        for mode in modes {
            let one = match (mode.as_str(), TYPES.iter().find(|known| *known == mode)) {
                ("ABAC", _) => Planned::Abac(policies(flags)?),
                (_, Some(&"Webhook")) => Planned::Webhook(Hook::of_flags(flags)?),
                (_, Some(plain)) => Planned::Plain(plain),
                (_, None) => bail!("authorization-mode {mode:?} is not a valid mode"),
            };
            if planned.contains(&one) {
                bail!("--authorization-mode: mode {mode:?} is specified more than once");
            }
            planned.push(one);
        }
        let asks = planned.iter().any(|one| matches!(one, Planned::Webhook(_)));
        if flags.text("authorization-webhook-config-file").is_some() && !asks {
            bail!("cannot specify --authorization-webhook-config-file without mode Webhook");
        }
        let reads = planned.iter().any(|one| matches!(one, Planned::Abac(_)));
        if flags.text("authorization-policy-file").is_some() && !reads {
            bail!("cannot specify --authorization-policy-file without mode ABAC");
        }
        Ok(if planned.is_empty() { Source::default() } else { Source::Modes(planned) })
    }

    /// Whether flags say that everything is allowed.
    pub(super) fn allows_all(&self) -> bool {
        matches!(self, Source::Modes(planned) if planned.contains(&Planned::Plain("AlwaysAllow")))
    }

    /// What it says now, if that keeps the types the server began with.
    fn replaced(&self, first: &[Planned]) -> anyhow::Result<Vec<Planned>> {
        let planned = self.planned()?;
        let types = |all: &[Planned]| -> BTreeSet<&'static str> {
            let plain = all.iter().filter_map(|one| match one {
                Planned::Plain(known) => Some(*known),
                Planned::Abac(_) | Planned::Webhook(_) => None,
            });
            plain.collect()
        };
        let (had, has) = (types(first), types(&planned));
        let missing: Vec<&str> = had.difference(&has).copied().collect();
        if !missing.is_empty() {
            bail!("--authorization-config: missing required types: {missing:?}");
        }
        if let Some(kind) = KEPT.into_iter().find(|kind| has.contains(kind) && !had.contains(kind)) {
            bail!("authorizer type {kind} is not allowed if it was not enabled at initial server startup");
        }
        Ok(planned)
    }

    /// What it says now.
    fn planned(&self) -> anyhow::Result<Vec<Planned>> {
        match self {
            Source::Modes(planned) => Ok(planned.clone()),
            Source::File(path) => {
                let file = component_config::load_one_of(path, &KINDS).context("--authorization-config")?;
                of(&file.0).map_err(|errors| {
                    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
                    anyhow!("--authorization-config: {}: {}", path.display(), texts.join(", "))
                })
            }
        }
    }

    /// Makes the authorizers, and has them asked from now on.
    pub(super) async fn apply(&self, authorization: &Authorization) -> anyhow::Result<Vec<Planned>> {
        let planned = self.planned()?;
        use_these(&planned, authorization).await?;
        Ok(planned)
    }

    /// Follows a file; `first` is what is in use.
    pub(super) fn follow(&self, authorization: &Authorization, first: Vec<Planned>) -> Option<Task> {
        let Source::File(path) = self else { return None };
        let (source, path, authorization) = (self.clone(), path.clone(), authorization.clone());
        Some(Task::endless("authorization-config", move || {
            let (source, path, authorization) = (source.clone(), path.clone(), authorization.clone());
            let (first, mut used) = (first.clone(), first.clone());
            async move {
                let mut changes = Directories::of_files([path.as_path()]);
                loop {
                    changes.changed(REREAD).await;
                    match source.follow_once(&first, &mut used, &authorization).await {
                        Ok(false) => {}
                        Ok(true) => tracing::info!("other authorizers decide from now on"),
                        Err(error) => {
                            tracing::error!(error = format!("{error:#}"), "the authorizers stay as they are");
                        }
                    }
                }
            }
        }))
    }

    /// Has others asked where the file says others than `used`; true where it does.
    async fn follow_once(
        &self,
        first: &[Planned],
        used: &mut Vec<Planned>,
        authorization: &Authorization,
    ) -> anyhow::Result<bool> {
        let planned = self.replaced(first)?;
        if planned == *used {
            return Ok(false);
        }
        use_these(&planned, authorization).await?;
        *used = planned;
        Ok(true)
    }
}

async fn use_these(planned: &[Planned], authorization: &Authorization) -> anyhow::Result<()> {
    let mut modes = Vec::new();
    for one in planned {
        modes.push(match one {
            Planned::Plain("Node") => Mode::Node,
            Planned::Plain("RBAC") => Mode::Rbac,
            Planned::Plain(other) => Mode::Always(*other == "AlwaysAllow"),
            Planned::Abac(policies) => Mode::Abac(Arc::new(policies.clone())),
            Planned::Webhook(hook) => Mode::Webhook(Arc::new(hook.make().await?)),
        });
    }
    authorization.use_modes(&modes);
    Ok(())
}

fn policies(flags: &Flags) -> anyhow::Result<Abac> {
    let path = flags.text("authorization-policy-file");
    let path = path.context("authorization-mode ABAC's authorization policy file not passed")?;
    let text = pki::files::read(Path::new(path)).context("--authorization-policy-file")?;
    Abac::parse(path, &text).map_err(|why| anyhow!(why))
}

impl Hook {
    fn of_flags(flags: &Flags) -> anyhow::Result<Self> {
        let path = flags.text("authorization-webhook-config-file");
        let path = path.context("authorization-mode Webhook's authorization config file not passed")?;
        let v1 = match flags.text("authorization-webhook-version") {
            None | Some("v1beta1") => false,
            Some("v1") => true,
            Some(other) => bail!("--authorization-webhook-version={other}: v1 and v1beta1 are supported"),
        };
        let time = |name: &str, default| flags.duration(name).unwrap_or(default);
        Ok(Hook {
            kubeconfig: Some(path.into()),
            timeout: TIMEOUT,
            v1,
            allowed_for: time("authorization-webhook-cache-authorized-ttl", ALLOWED_FOR),
            refused_for: time("authorization-webhook-cache-unauthorized-ttl", REFUSED_FOR),
            fails_open: true,
            conditions: Vec::new(),
        })
    }

    async fn make(&self) -> anyhow::Result<Webhook> {
        let remote = Remote::new(self.kubeconfig.as_deref(), self.timeout).await?;
        let condition = |source: &String| {
            entry::on_review(source).map(|expression| Condition { source: source.clone(), expression })
        };
        let config = Config {
            version: if self.v1 { Version::V1 } else { Version::V1Beta1 },
            conditions: self.conditions.iter().map(condition).collect::<Result<_, _>>()?,
            allowed_for: self.allowed_for,
            refused_for: self.refused_for,
            fails_open: self.fails_open,
        };
        Ok(Webhook::new(config, Arc::new(remote)))
    }
}

/// The authorizers of a file, in order, or all that is wrong with them.
fn of(file: &Value) -> Result<Vec<Planned>, Vec<FieldError>> {
    let root = Field::new("authorizers");
    let items = file["authorizers"].as_array().map_or(&[][..], Vec::as_slice);
    let (mut planned, mut errors) = (Vec::new(), Vec::new());
    if items.is_empty() {
        errors.push(FieldError::required(&root, "at least one authorization mode must be defined"));
    }
    let (mut types, mut names): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for (index, item) in items.iter().enumerate() {
        let at = root.index(index);
        let (kind, name) = (text(item, "type"), text(item, "name"));
        if kind.is_empty() {
            errors.push(FieldError::required(&at.child("type"), ""));
            continue;
        }
        let Some(known) = TYPES.into_iter().find(|known| *known == kind) else {
            errors.push(FieldError::not_supported(&at.child("type"), kind, &TYPES));
            continue;
        };
        if types.contains(&known) && known != "Webhook" {
            errors.push(FieldError::duplicate(&at.child("type"), kind));
            continue;
        }
        types.push(known);
        if name.is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        } else if names.contains(&name) {
            errors.push(FieldError::duplicate(&at.child("name"), name));
        } else {
            let why = names::dns1123_subdomain(name).join(", ");
            if !why.is_empty() {
                let detail = format!("authorizer name is invalid: {why}");
                errors.push(FieldError::invalid(&at.child("name"), name, detail));
            }
        }
        let expected = known.to_lowercase();
        if known != "Webhook" && !name.is_empty() && name != expected {
            let detail = format!("expected name {expected} for authorizer {known} instead of {name}");
            errors.push(FieldError::invalid(&at.child("name"), name, detail));
        }
        names.push(name);
        match (known, &item["webhook"]) {
            ("Webhook", Value::Null) => {
                errors.push(FieldError::required(&at.child("webhook"), "required when type=Webhook"));
            }
            ("Webhook", webhook) => {
                planned.extend(hook(webhook, &at, &mut errors).map(Planned::Webhook));
            }
            (plain, Value::Null) => planned.push(Planned::Plain(plain)),
            _ => {
                let detail = "may only be specified when type=Webhook";
                errors.push(FieldError::invalid(&at.child("webhook"), "non-null", detail));
            }
        }
    }
    if errors.is_empty() { Ok(planned) } else { Err(errors) }
}

/// Upstream names the fields of a webhook below the authorizer itself.
fn hook(webhook: &Value, at: &Field, errors: &mut Vec<FieldError>) -> Option<Hook> {
    let before = errors.len();
    let time = |name: &str| machinery::duration::parse(webhook[name].as_str().unwrap_or("0")).unwrap_or(0);
    let mut ttl = |name: &str, kept: &str, default: Duration| match u64::try_from(time(name)) {
        Err(_) => {
            errors.push(FieldError::invalid(&at.child(name), text(webhook, name), "must be > 0s"));
            Duration::ZERO
        }
        Ok(_) if webhook[kept] == false => Duration::ZERO,
        Ok(0) => default,
        Ok(nanos) => Duration::from_nanos(nanos),
    };
    let allowed_for = ttl("authorizedTTL", "cacheAuthorizedRequests", ALLOWED_FOR);
    let refused_for = ttl("unauthorizedTTL", "cacheUnauthorizedRequests", REFUSED_FOR);
    let timeout = Duration::from_nanos(u64::try_from(time("timeout")).unwrap_or(0));
    match time("timeout") {
        0 => errors.push(FieldError::required(&at.child("timeout"), "")),
        given if given < 0 || timeout > LONGEST_TIMEOUT => errors.push(FieldError::invalid(
            &at.child("timeout"),
            text(webhook, "timeout"),
            "must be > 0s and <= 30s",
        )),
        _ => {}
    }
    let mut one_of = |name: &str, values: &[&str], optional: bool| {
        let given = text(webhook, name);
        if given.is_empty() && !optional {
            errors.push(FieldError::required(&at.child(name), ""));
        } else if !given.is_empty() && !values.contains(&given) {
            errors.push(FieldError::not_supported(&at.child(name), given, values));
        }
        given
    };
    let version = one_of("subjectAccessReviewVersion", &["v1", "v1beta1"], false);
    let of_conditions = one_of("matchConditionSubjectAccessReviewVersion", &["v1"], true);
    let policy = one_of("failurePolicy", &["NoOpinion", "Deny"], false);
    let conditions = conditions(webhook, at, errors);
    if !conditions.is_empty() && of_conditions.is_empty() {
        let detail = "required if match conditions are specified";
        errors.push(FieldError::required(&at.child("matchConditionSubjectAccessReviewVersion"), detail));
    }
    let kubeconfig = connection(&webhook["connectionInfo"], &at.child("connectionInfo"), errors);
    (errors.len() == before).then(|| Hook {
        kubeconfig,
        timeout,
        v1: version == "v1",
        allowed_for,
        refused_for,
        fails_open: policy == "NoOpinion",
        conditions,
    })
}

fn connection(info: &Value, at: &Field, errors: &mut Vec<FieldError>) -> Option<PathBuf> {
    let file = at.child("kubeConfigFile");
    let path = text(info, "kubeConfigFile");
    match text(info, "type") {
        "" => errors.push(FieldError::required(&at.child("type"), "")),
        "InClusterConfig" if path.is_empty() => {}
        "InClusterConfig" => {
            errors.push(FieldError::invalid(&file, path, "can only be set when type=KubeConfigFile"));
        }
        "KubeConfigFile" if path.is_empty() => errors.push(FieldError::required(&file, "")),
        "KubeConfigFile" if !Path::new(path).is_absolute() => {
            errors.push(FieldError::invalid(&file, path, "must be an absolute path"));
        }
        "KubeConfigFile" => match std::fs::metadata(path) {
            Err(error) => {
                errors.push(FieldError::invalid(&file, path, format!("error loading file: {error}")))
            }
            Ok(found) if !found.is_file() => {
                errors.push(FieldError::invalid(&file, path, "must be a regular file"));
            }
            Ok(_) => {}
        },
        other => errors.push(FieldError::not_supported(
            &at.child("type"),
            other,
            &["InClusterConfig", "KubeConfigFile"],
        )),
    }
    Some(path).filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn conditions(webhook: &Value, at: &Field, errors: &mut Vec<FieldError>) -> Vec<String> {
    let at = at.child("matchConditions");
    let items = webhook["matchConditions"].as_array().map_or(&[][..], Vec::as_slice);
    if items.len() > MOST_CONDITIONS {
        errors.push(FieldError::too_many(&at, items.len(), MOST_CONDITIONS));
        return Vec::new();
    }
    let mut all: Vec<String> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let (at, source) = (at.index(index).child("expression"), text(item, "expression"));
        if source.trim().is_empty() {
            errors.push(FieldError::required(&at, ""));
        } else if all.iter().any(|known| known == source) {
            errors.push(FieldError::duplicate(&at, source));
        } else if let Err(error) = entry::on_review(source) {
            errors.push(FieldError::invalid(&at, source, error.to_string()));
        }
        all.push(source.to_owned());
    }
    all
}

#[cfg(test)]
mod tests;
