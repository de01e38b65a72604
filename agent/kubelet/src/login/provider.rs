//! Credential providers: programs beside the kubelet that know logins. Upstream: `pkg/credentialprovider/plugin`.
//!
//! A provider is asked for the images its patterns match, by a `CredentialProviderRequest` on its standard input; its
//! answer, which says for what and how long it is good, is remembered. A provider that fails costs its logins only.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::keyring::{DockerConfig, Login, is_match};

/// How long a provider may take.
const LONGEST: Duration = Duration::from_secs(60);
/// Answers remembered of one provider.
const REMEMBERED: usize = 1024;
const VERSIONS: [&str; 3] = [
    "credentialprovider.kubelet.k8s.io/v1",
    "credentialprovider.kubelet.k8s.io/v1alpha1",
    "credentialprovider.kubelet.k8s.io/v1beta1",
];
const CONFIG_VERSIONS: [&str; 3] =
    ["kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1alpha1", "kubelet.config.k8s.io/v1beta1"];

/// Why there are no providers, or no answer of one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration, or a program, cannot be read.
    #[error("read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The configuration says what it may not.
    #[error("credential provider configuration {}: {reason}", .path.display())]
    Invalid { path: PathBuf, reason: String },
    #[error("run credential provider plugin {name}: {reason}")]
    Run {
        name: String,
        /// What happened, with what it said on standard error.
        reason: String,
    },
    /// Its answer is none.
    #[error("answer of credential provider plugin {name}: {reason}")]
    Answer { name: String, reason: String },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    providers: Vec<Described>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Described {
    name: String,
    #[serde(default)]
    match_images: Vec<String>,
    default_cache_duration: Option<String>,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<Variable>,
    token_attributes: Option<Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    api_version: String,
    kind: String,
    cache_key_type: String,
    cache_duration: Option<String>,
    auth: Option<BTreeMap<String, Given>>,
}

#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

#[derive(Debug)]
pub struct Provider {
    described: Described,
    program: PathBuf,
    keep: Duration,
    known: tokio::sync::Mutex<BTreeMap<String, (DockerConfig, Instant)>>,
}

/// Reads the providers of a file, or of a directory's files in the order of their names, whose programs are in `programs`.
///
/// # Errors
///
/// Something cannot be read or is not allowed; no node starts with half its providers.
pub fn load(path: &Path, programs: &Path) -> Result<Vec<Provider>, Error> {
    let read = |path: &Path, source| Error::Read { path: path.to_owned(), source };
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|e| read(path, e))?;
        files = entries
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<_, _>>()
            .map_err(|e| read(path, e))?;
        let kept = |file: &PathBuf| {
            file.extension().is_some_and(|e| ["json", "yaml", "yml"].iter().any(|k| e == *k))
        };
        files.retain(|file| kept(file) && !file.is_dir());
        files.sort();
    }
    let mut providers: Vec<Provider> = Vec::new();
    for file in &files {
        let invalid = |reason: String| Error::Invalid { path: file.clone(), reason };
        let text = std::fs::read_to_string(file).map_err(|e| read(file, e))?;
        let config: File = serde_saphyr::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        if config.kind != "CredentialProviderConfig"
            || !CONFIG_VERSIONS.contains(&config.api_version.as_str())
        {
            return Err(invalid(format!(
                "no CredentialProviderConfig: {} {}",
                config.api_version, config.kind
            )));
        }
        for described in config.providers {
            let keep = checked(&described).map_err(invalid)?;
            if providers.iter().any(|p| p.described.name == described.name) {
                return Err(invalid(format!(
                    "duplicate provider name {:?} found in configuration file(s)",
                    described.name
                )));
            }
            let program = programs.join(&described.name);
            std::fs::metadata(&program).map_err(|e| read(&program, e))?;
            providers.push(Provider { described, program, keep, known: tokio::sync::Mutex::default() });
        }
    }
    if providers.is_empty() {
        let reason = "providers: Required value: at least 1 item in plugins is required".to_owned();
        return Err(Error::Invalid { path: path.to_owned(), reason });
    }
    Ok(providers)
}

/// Checks a provider; gives how long its answers are kept where they do not say.
fn checked(described: &Described) -> Result<Duration, String> {
    let name = &described.name;
    if name.is_empty() || name.contains(['/', ' ']) || matches!(name.as_str(), "." | "..") {
        return Err(format!("providers.name: Invalid value: {name:?}"));
    }
    if !VERSIONS.contains(&described.api_version.as_str()) {
        return Err(format!("providers.apiVersion: Unsupported value: {:?}", described.api_version));
    }
    if described.match_images.is_empty() {
        return Err(
            "providers.matchImages: Required value: at least 1 item in matchImages is required".to_owned()
        );
    }
    if described.token_attributes.is_some() {
        return Err(
            "providers.tokenAttributes: Forbidden: tokens for credential providers are not served".to_owned()
        );
    }
    let text = described.default_cache_duration.as_deref();
    let text = text.ok_or("providers.defaultCacheDuration: Required value")?;
    duration(text).ok_or_else(|| format!("providers.defaultCacheDuration: Invalid value: {text:?}"))
}

fn duration(text: &str) -> Option<Duration> {
    machinery::duration::parse(text)
        .ok()
        .and_then(|nanos| u64::try_from(nanos).ok())
        .map(Duration::from_nanos)
}

impl Provider {
    pub fn name(&self) -> &str {
        &self.described.name
    }

    /// Its logins for an image, where it has any to give.
    ///
    /// # Errors
    ///
    /// It failed, or gave no valid answer.
    pub async fn provide(&self, image: &str) -> Result<DockerConfig, Error> {
        if !self.described.match_images.iter().any(|glob| is_match(glob, image)) {
            return Ok(DockerConfig::new());
        }
        // Held while the program runs: pulls at once ask it once.
        let mut known = self.known.lock().await;
        let now = Instant::now();
        known.retain(|_, (_, until)| *until > now);
        let registry = image.split('/').next().unwrap_or_default();
        if let Some((config, _)) = [image, registry, ""].iter().find_map(|key| known.get(*key)) {
            return Ok(config.clone());
        }
        let response = self.ask(image).await?;
        let answer = |reason: String| Error::Answer { name: self.name().to_owned(), reason };
        let key = match response.cache_key_type.as_str() {
            "Image" => image,
            "Registry" => registry,
            "Global" => "",
            other => return Err(answer(format!("did not return a valid cacheKeyType: {other}"))),
        };
        let keep = match &response.cache_duration {
            Some(text) => duration(text).ok_or_else(|| answer(format!("cacheDuration {text:?}")))?,
            None => self.keep,
        };
        let login = |given: Given| Login { username: given.username, password: given.password };
        let logins = response.auth.unwrap_or_default().into_iter();
        let config: DockerConfig = logins.map(|(registry, given)| (registry, login(given))).collect();
        if !keep.is_zero() && known.len() < REMEMBERED {
            known.insert(key.to_owned(), (config.clone(), now + keep));
        }
        Ok(config)
    }

    async fn ask(&self, image: &str) -> Result<Response, Error> {
        let version = &self.described.api_version;
        let request = json!({"kind": "CredentialProviderRequest", "apiVersion": version, "image": image});
        let failed = |reason: String| Error::Run { name: self.name().to_owned(), reason };
        let mut child = Command::new(&self.program)
            .args(&self.described.args)
            .envs(self.described.env.iter().map(|v| (&v.name, &v.value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| failed(e.to_string()))?;
        let stdin = child.stdin.take();
        let run = async {
            if let Some(mut stdin) = stdin {
                // it need not read what it is asked
                let _said = stdin.write_all(request.to_string().as_bytes()).await;
            }
            child.wait_with_output().await
        };
        let output = tokio::time::timeout(LONGEST, run).await;
        let output = output.map_err(|_| failed("context deadline exceeded".to_owned()))?;
        let output = output.map_err(|e| failed(e.to_string()))?;
        if !output.status.success() {
            return Err(failed(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))));
        }
        let answer = |reason: String| Error::Answer { name: self.name().to_owned(), reason };
        // its text may hold what must not be logged
        let response: Response = serde_json::from_slice(&output.stdout).map_err(|_| {
            answer("error decoding credential provider plugin response from stdout".to_owned())
        })?;
        if response.api_version != *version {
            return Err(answer(format!(
                "apiVersion from credential plugin response did not match expected apiVersion:{version}, actual apiVersion:{}",
                response.api_version
            )));
        }
        if response.kind != "CredentialProviderResponse" {
            return Err(answer(format!("unexpected Kind: {:?}", response.kind)));
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const SAYS: &str = r#"#!/bin/sh
cat > "$0.asked"; echo "$@" >> "$0.runs"
echo '{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Registry",
  "auth":{"reg.example:5000":{"username":"u","password":"'$PASSWORD'"}}}'
"#;

    fn config(more: &str) -> String {
        format!(
            "{{apiVersion: kubelet.config.k8s.io/v1, kind: CredentialProviderConfig, providers: [{{name: says, \
             matchImages: ['*.example:5000'], apiVersion: credentialprovider.kubelet.k8s.io/v1, args: [get], \
             env: [{{name: PASSWORD, value: p}}], {more}}}]}}"
        )
    }

    fn dir(text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("says"), SAYS).unwrap();
        std::fs::set_permissions(dir.path().join("says"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(dir.path().join("config.yaml"), text).unwrap();
        dir
    }

    #[tokio::test]
    async fn a_provider_is_asked_for_its_images_once_while_its_answer_is_good() {
        let dir = dir(&config("defaultCacheDuration: 10m"));
        let providers = load(&dir.path().join("config.yaml"), dir.path()).unwrap();
        let [provider] = &providers[..] else { panic!("{providers:?}") };
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(provider.provide("other.example/a").await.unwrap().is_empty());
        for image in ["reg.example:5000/a", "reg.example:5000/b"] {
            let config = provider.provide(image).await.unwrap();
            assert_eq!(config["reg.example:5000"], Login { username: "u".into(), password: "p".into() });
        }
        assert_eq!(read("says.runs"), "get\n");
        let asked: Value = serde_json::from_str(&read("says.asked")).unwrap();
        assert_eq!(asked["image"], "reg.example:5000/a");
        assert_eq!(asked["kind"], "CredentialProviderRequest");
    }

    #[tokio::test]
    async fn an_answer_that_is_not_to_be_kept_must_not_be() {
        let dir = dir(&config("defaultCacheDuration: 0s"));
        let providers = load(dir.path(), dir.path()).unwrap();
        for _ in 0..2 {
            providers[0].provide("reg.example:5000/a").await.unwrap();
        }
        assert_eq!(std::fs::read_to_string(dir.path().join("says.runs")).unwrap(), "get\nget\n");
    }

    #[test]
    fn what_is_not_allowed_is_refused() {
        for more in
            ["defaultCacheDuration: -1s", "", "defaultCacheDuration: 1s, tokenAttributes: {}", "unknown: 1"]
        {
            let dir = dir(&config(more));
            assert!(load(&dir.path().join("config.yaml"), dir.path()).is_err(), "{more}");
        }
        let dir = dir(&config("defaultCacheDuration: 1s"));
        assert!(matches!(
            load(&dir.path().join("config.yaml"), Path::new("/nowhere")),
            Err(Error::Read { .. })
        ));
    }
}
