//! Which authorizers decide, and in which order: `--authorization-config`, or `--authorization-mode` with the flags about a webhook.
//! Upstream: `pkg/kubeapiserver/authorizer`, `apiserver/pkg/apis/apiserver/validation`.

mod remote;

use crate::component_config::{self, Kind};
use crate::flags::Flags;
use anyhow::{Context as _, anyhow, bail};
use apiserver::authz::webhook::{Condition, Config, Version, Webhook};
use apiserver::server::{Authorization, Mode};
use machinery::entry;
use machinery::field::{FieldError, Path as Field};
use remote::Remote;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use supervise::Task;

const FIELDS: &str = include_str!("../../../data/config/AuthorizationConfiguration.txt");
const KINDS: [Kind; 2] = [
    Kind { api_version: "apiserver.config.k8s.io/v1", kind: "AuthorizationConfiguration", fields: FIELDS },
    Kind {
        api_version: "apiserver.config.k8s.io/v1beta1",
        kind: "AuthorizationConfiguration",
        fields: FIELDS,
    },
];
/// Types that upstream knows and that decide here.
const TYPES: [&str; 5] = ["AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];
const ALLOWED_FOR: Duration = Duration::from_secs(300);
const REFUSED_FOR: Duration = Duration::from_secs(30);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a webhook of flags may take, and how often its file is looked at.
const TIMEOUT: Duration = Duration::from_secs(30);
const MOST_CONDITIONS: usize = 64;
/// How often the file is read again.
const REREAD: Duration = Duration::from_secs(60);

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
            let others =
                ["authorization-mode", "authorization-webhook-config-file", "authorization-webhook-version"];
            if let Some(other) = others.into_iter().find(|name| flags.list(name).is_some()) {
                bail!("--{other} can not be specified when --authorization-config is specified");
            }
            return Ok(Source::File(path.into()));
        }
        if modes.is_empty() {
            return Ok(Source::default());
        }
        let mut planned = Vec::new();
        for mode in modes {
            let Some(known) = TYPES.iter().find(|known| *known == mode) else {
                bail!("--authorization-mode={mode} is not served here: {} are", TYPES.join(","));
            };
            let one = match *known {
                "Webhook" => Planned::Webhook(Hook::of_flags(flags)?),
                plain => Planned::Plain(plain),
            };
            if planned.contains(&one) {
                bail!("--authorization-mode: mode {mode:?} is specified more than once");
            }
            planned.push(one);
        }
        Ok(Source::Modes(planned))
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
        let (source, authorization) = (self.clone(), authorization.clone());
        matches!(self, Source::File(_)).then(|| {
            Task::endless("authorization-config", move || {
                let (source, authorization, mut used) =
                    (source.clone(), authorization.clone(), first.clone());
                async move {
                    loop {
                        tokio::time::sleep(REREAD).await;
                        let changed = async {
                            let planned = source.planned()?;
                            if planned != used {
                                use_these(&planned, &authorization).await?;
                                used = planned;
                                tracing::info!("other authorizers decide from now on");
                            }
                            anyhow::Ok(())
                        };
                        if let Err(error) = changed.await {
                            tracing::error!(error = format!("{error:#}"), "the authorizers stay as they are");
                        }
                    }
                }
            })
        })
    }
}

async fn use_these(planned: &[Planned], authorization: &Authorization) -> anyhow::Result<()> {
    let mut modes = Vec::new();
    for one in planned {
        modes.push(match one {
            Planned::Plain("Node") => Mode::Node,
            Planned::Plain("RBAC") => Mode::Rbac,
            Planned::Plain(other) => Mode::Always(*other == "AlwaysAllow"),
            Planned::Webhook(hook) => Mode::Webhook(Arc::new(hook.make().await?)),
        });
    }
    authorization.use_modes(&modes);
    Ok(())
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
        _ if webhook[kept] == false => Duration::ZERO,
        Ok(0) => default,
        Ok(nanos) => Duration::from_nanos(nanos),
        Err(_) => {
            errors.push(FieldError::invalid(&at.child(name), text(webhook, name), "must be > 0s"));
            Duration::ZERO
        }
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

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests;
