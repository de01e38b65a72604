//! What plugins are told by `--admission-control-config-file`, an `AdmissionConfiguration`. Upstream: `apiserver/pkg/admission/config.go`.
//!
//! Files are read once, at the start; what is wrong in one refuses the start by its plugin.

use super::PLUGINS;
use super::credentials::Kubeconfig;
use crate::flags::Flags;
use anyhow::{Context as _, anyhow, bail, ensure};
use apiserver::webhook_credentials::Credentials;
use machinery::codec::yaml;
use machinery::object;
use machinery::pod_security::configuration::Configuration as PodSecurity;
use machinery::resources::quota::limited::{self, Limited};
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How requests are admitted, beside what objects say.
#[derive(Clone, Default)]
pub(crate) struct Configured {
    pub(crate) pod_security: PodSecurity,
    pub(crate) limited_resources: Vec<Limited>,
    /// How this server proves itself to mutating webhooks, and to validating ones.
    pub(crate) mutating_webhooks: Option<Arc<dyn Credentials>>,
    pub(crate) validating_webhooks: Option<Arc<dyn Credentials>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    plugins: Option<Vec<Plugin>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Plugin {
    name: String,
    path: Option<String>,
    configuration: Option<Value>,
}

/// `WebhookAdmissionConfiguration`
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Webhooks {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    kube_config_file: String,
    static_manifests_dir: String,
}

/// Reads a document of one of these kinds.
fn document(text: &str, kinds: &[(&str, &str)]) -> anyhow::Result<Value> {
    let decoded = yaml::decode(text.as_bytes())?;
    if let Some(twice) = decoded.duplicates.first() {
        bail!("strict decoding error: {twice}");
    }
    expect(&decoded.value, kinds)?;
    Ok(decoded.value)
}

fn expect(value: &Value, kinds: &[(&str, &str)]) -> anyhow::Result<()> {
    let (api_version, kind) = (object::api_version(value), object::kind(value));
    ensure!(!kind.is_empty(), "Object 'Kind' is missing");
    ensure!(
        kinds.contains(&(api_version, kind)),
        "no kind {kind:?} is registered for version {api_version:?} in scheme"
    );
    Ok(())
}

const ADMISSION: [(&str, &str); 2] = [
    ("apiserver.config.k8s.io/v1", "AdmissionConfiguration"),
    ("apiserver.k8s.io/v1alpha1", "AdmissionConfiguration"),
];
const POD_SECURITY: [(&str, &str); 3] = [
    ("pod-security.admission.config.k8s.io/v1", "PodSecurityConfiguration"),
    ("pod-security.admission.config.k8s.io/v1beta1", "PodSecurityConfiguration"),
    ("pod-security.admission.config.k8s.io/v1alpha1", "PodSecurityConfiguration"),
];
const QUOTA: [(&str, &str); 3] = [
    ("apiserver.config.k8s.io/v1", "ResourceQuotaConfiguration"),
    ("resourcequota.admission.k8s.io/v1beta1", "Configuration"),
    ("resourcequota.admission.k8s.io/v1alpha1", "Configuration"),
];
const WEBHOOKS: [(&str, &str); 2] = [
    ("apiserver.config.k8s.io/v1", "WebhookAdmissionConfiguration"),
    ("apiserver.config.k8s.io/v1alpha1", "WebhookAdmission"),
];

impl Plugin {
    /// What it is told, of one of these kinds; none where it is told nothing.
    fn told(&self, dir: &Path, kinds: &[(&str, &str)]) -> anyhow::Result<Option<Value>> {
        match (&self.configuration, self.path.as_deref().filter(|path| !path.is_empty())) {
            (Some(inline), _) => expect(inline, kinds).map(|()| Some(inline.clone())),
            (None, Some(path)) => {
                let path = dir.join(path);
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("read admission plugin configuration {}", path.display()))?;
                document(&text, kinds).map(Some)
            }
            (None, None) => Ok(None),
        }
    }

    fn apply(&self, dir: &Path, configured: &mut Configured) -> anyhow::Result<()> {
        match self.name.as_str() {
            "PodSecurity" => {
                if let Some(told) = self.told(dir, &POD_SECURITY)? {
                    configured.pod_security = PodSecurity::parse(&told).map_err(|why| anyhow!(why))?;
                }
            }
            "ResourceQuota" => {
                if let Some(told) = self.told(dir, &QUOTA)? {
                    configured.limited_resources = limited::parse(&told).map_err(|why| anyhow!(why))?;
                }
            }
            "MutatingAdmissionWebhook" => configured.mutating_webhooks = self.webhooks(dir)?,
            "ValidatingAdmissionWebhook" => configured.validating_webhooks = self.webhooks(dir)?,
            name => match PLUGINS.iter().find(|(known, _)| *known == name) {
                Some((_, true)) if self.configuration.is_none() && self.path.is_none() => {}
                Some(_) => {
                    tracing::warn!("the configuration of the admission plugin {name} has no effect here")
                }
                None => tracing::warn!(
                    "the configuration of the admission plugin {name:?}, which is unknown, has no effect"
                ),
            },
        }
        Ok(())
    }

    fn webhooks(&self, dir: &Path) -> anyhow::Result<Option<Arc<dyn Credentials>>> {
        let Some(told) = self.told(dir, &WEBHOOKS)? else { return Ok(None) };
        let Webhooks { kube_config_file, static_manifests_dir, .. } = Webhooks::deserialize(&told)?;
        ensure!(static_manifests_dir.is_empty(), "staticManifestsDir is not served here");
        if kube_config_file.is_empty() {
            return Ok(None);
        }
        let path = Path::new(&kube_config_file);
        ensure!(
            path.is_absolute(),
            "kubeConfigFile: Invalid value: {kube_config_file:?}: must be an absolute file path"
        );
        let kubeconfig =
            Kubeconfig::read(path).with_context(|| format!("kubeConfigFile {kube_config_file}"))?;
        Ok(Some(Arc::new(kubeconfig)))
    }
}

impl Configured {
    pub(crate) fn of_flags(flags: &Flags) -> anyhow::Result<Self> {
        match flags.text("admission-control-config-file") {
            Some(path) => Self::read(Path::new(path)).context("--admission-control-config-file"),
            None => Ok(Self::default()),
        }
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("unable to read admission control configuration from {path:?}"))?;
        let written = Written::deserialize(&document(&text, &ADMISSION)?)?;
        // Paths are relative to the file they stand in.
        let dir: PathBuf = path.parent().map(Path::to_owned).unwrap_or_default();
        let (mut configured, mut seen) = (Self::default(), Vec::new());
        for plugin in written.plugins.unwrap_or_default() {
            // As upstream, the first of a name counts.
            if seen.contains(&plugin.name) {
                continue;
            }
            let what = || format!("couldn't init admission plugin {:?}", plugin.name);
            plugin.apply(&dir, &mut configured).with_context(what)?;
            seen.push(plugin.name);
        }
        Ok(configured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;

    fn of(dir: &Path, text: &str) -> anyhow::Result<Configured> {
        let file = dir.join("admission.yaml");
        std::fs::write(&file, text).unwrap();
        let line = [format!("--admission-control-config-file={}", file.display())];
        Configured::of_flags(&Component::named("kube-apiserver").unwrap().table().parse(&line)?)
    }

    fn plugin(dir: &Path, plugin: &str) -> anyhow::Result<Configured> {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n";
        of(dir, &format!("{head}- {plugin}\n"))
    }

    #[test]
    fn plugins_are_told_inline_or_by_a_file_beside() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let pod_security = "{apiVersion: pod-security.admission.config.k8s.io/v1, kind: PodSecurityConfiguration, \
            defaults: {enforce: baseline}, exemptions: {namespaces: [kube-system]}}";
        let inline = plugin(dir, &format!("{{name: PodSecurity, configuration: {pod_security}}}")).unwrap();
        assert_eq!(inline.pod_security.defaults.enforce.to_string(), "baseline:latest");
        std::fs::write(dir.join("ps.yaml"), pod_security).unwrap();
        let beside = plugin(dir, "{name: PodSecurity, path: ps.yaml}").unwrap();
        assert_eq!(beside.pod_security, inline.pod_security);
        let quota = "{name: ResourceQuota, configuration: {apiVersion: apiserver.config.k8s.io/v1, kind: ResourceQuotaConfiguration, \
            limitedResources: [{resource: pods, matchContains: [cpu]}]}}";
        assert_eq!(plugin(dir, quota).unwrap().limited_resources.len(), 1);
        let bare = plugin(dir, "{name: PodSecurity}").unwrap();
        assert_eq!(bare.pod_security, PodSecurity::default());
        let unknown = plugin(dir, "{name: Nobody, configuration: {a: b}}").unwrap();
        assert!(unknown.limited_resources.is_empty());
    }

    #[test]
    fn what_is_wrong_is_refused_by_its_plugin() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let webhooks = |rest: &str| {
            format!(
                "{{name: MutatingAdmissionWebhook, configuration: {{apiVersion: apiserver.config.k8s.io/v1, \
                 kind: WebhookAdmissionConfiguration, {rest}}}}}"
            )
        };
        for (text, why) in [
            ("{name: PodSecurity, path: nowhere.yaml}".to_owned(), "nowhere.yaml"),
            (
                "{name: PodSecurity, configuration: {kind: Pod, apiVersion: v1}}".to_owned(),
                "no kind \"Pod\" is registered",
            ),
            (
                "{name: PodSecurity, configuration: {apiVersion: pod-security.admission.config.k8s.io/v1, \
                 kind: PodSecurityConfiguration, defaults: {enforce: x}}}"
                    .to_owned(),
                "defaults.enforce: Invalid value: \"x\"",
            ),
            (webhooks("kubeConfigFile: relative"), "must be an absolute file path"),
            (webhooks("kubeConfigFile: /nowhere"), "/nowhere"),
            (webhooks("staticManifestsDir: /d"), "staticManifestsDir"),
            ("{title: PodSecurity}".to_owned(), "unknown field `title`"),
        ] {
            let error = format!("{:#}", plugin(dir, &text).err().unwrap());
            assert!(error.contains(why), "{text}: {error}");
        }
        for (text, why) in [
            (
                "apiVersion: v1\nkind: AdmissionConfiguration\n",
                "no kind \"AdmissionConfiguration\" is registered for version \"v1\"",
            ),
            ("plugins: []\n", "Object 'Kind' is missing"),
        ] {
            let error = format!("{:#}", of(dir, text).err().unwrap());
            assert!(error.contains(why) && error.starts_with("--admission-control-config-file: "), "{error}");
        }
    }
}
