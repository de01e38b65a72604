//! The EncryptionConfiguration file (`apiserver.config.k8s.io/v1`), checked as upstream checks it
//! (`apis/apiserver/validation/validation_encryption.go`).

use crate::cipher::Cipher;
use crate::kms::Kms;
use crate::provider::Provider;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<ResourceRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceRule {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<ProviderRule>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ProviderRule {
    aesgcm: Option<KeysRule>,
    aescbc: Option<KeysRule>,
    secretbox: Option<KeysRule>,
    identity: Option<IdentityRule>,
    kms: Option<KmsRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityRule {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysRule {
    #[serde(default)]
    keys: Vec<KeyRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyRule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    secret: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KmsRule {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    endpoint: String,
    /// As Go writes durations.
    timeout: Option<String>,
    /// Of version 1; nothing now.
    #[serde(default, rename = "cachesize")]
    _cachesize: Option<i64>,
}

/// What is wrong with a configuration. Never quotes a secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{path}: {why}")]
pub struct Invalid {
    path: String,
    why: String,
}

fn invalid(path: impl Into<String>, why: impl Into<String>) -> Invalid {
    Invalid { path: path.into(), why: why.into() }
}

/// Which resources a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    One {
        plural: String,
        group: String,
    },
    /// `*.apps`; `*.` is the core group.
    Group(String),
    All,
}

impl Pattern {
    fn parse(text: &str) -> Self {
        match text.split_once('.') {
            Some(("*", "*")) => Self::All,
            Some(("*", group)) => Self::Group(group.to_owned()),
            Some((plural, group)) => Self::One { plural: plural.to_owned(), group: group.to_owned() },
            None => Self::One { plural: text.to_owned(), group: String::new() },
        }
    }

    /// Whether nothing of `other` is left for a later rule.
    fn masks(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Group(group), Self::One { group: of, .. } | Self::Group(of)) => group == of,
            _ => false,
        }
    }

    fn names(&self, of_group: &str, of_plural: &str) -> bool {
        match self {
            Self::One { plural, group } => plural == of_plural && group == of_group,
            Self::Group(group) => group == of_group,
            Self::All => true,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One { plural, group } if group.is_empty() => write!(f, "{plural}"),
            Self::One { plural, group } => write!(f, "{plural}.{group}"),
            Self::Group(group) => write!(f, "*.{group}"),
            Self::All => write!(f, "*.*"),
        }
    }
}

struct Rule {
    patterns: Vec<Pattern>,
    providers: Vec<Provider>,
}

/// Providers by resource.
pub(crate) struct Rules {
    rules: Vec<Rule>,
}

impl Rules {
    /// The providers of a resource, the one that seals first; none where nothing is said of it.
    pub(crate) fn providers(&self, group: &str, plural: &str) -> &[Provider] {
        let named = self.rules.iter().find(|rule| rule.patterns.iter().any(|p| p.names(group, plural)));
        named.map_or(&[], |rule| &rule.providers)
    }

    pub(crate) fn plugins(&self) -> impl Iterator<Item = Arc<Kms>> {
        self.rules.iter().flat_map(|rule| &rule.providers).filter_map(|provider| match provider {
            Provider::Kms(kms) => Some(kms.clone()),
            _ => None,
        })
    }
}

/// Reads and checks a configuration.
pub(crate) fn parse(text: &str) -> Result<Rules, Invalid> {
    let file: File = serde_saphyr::from_str(text).map_err(|e| {
        // The parser quotes the text around an error, which may be a key.
        let place = e.location().map(|l| format!(" near line {}", l.line())).unwrap_or_default();
        invalid("EncryptionConfiguration", format!("not understood{place}"))
    })?;
    if file.kind != "EncryptionConfiguration" || file.api_version != "apiserver.config.k8s.io/v1" {
        return Err(invalid(
            "apiVersion",
            "an EncryptionConfiguration of apiserver.config.k8s.io/v1 is expected",
        ));
    }
    required("resources", &file.resources)?;
    check_plugins(&file.resources)?;
    check_masks(&file.resources)?;
    let rules = file.resources.into_iter().enumerate().map(|(n, rule)| {
        let path = format!("resources[{n}]");
        required(&format!("{path}.resources"), &rule.resources)?;
        check_overlap(&format!("{path}.resources"), &rule.resources)?;
        rule.resources.iter().try_for_each(|name| check_name(&format!("{path}.resources"), name))?;
        required(&format!("{path}.providers"), &rule.providers)?;
        let providers = rule.providers.into_iter().enumerate();
        let providers = providers.map(|(m, p)| provider(&format!("{path}.providers[{m}]"), p));
        Ok(Rule {
            patterns: rule.resources.iter().map(|name| Pattern::parse(name)).collect(),
            providers: providers.collect::<Result<_, Invalid>>()?,
        })
    });
    Ok(Rules { rules: rules.collect::<Result<_, Invalid>>()? })
}

fn required<T>(path: &str, list: &[T]) -> Result<(), Invalid> {
    match list.is_empty() {
        true => Err(invalid(path, format!("Required value: at least one {path} is required"))),
        false => Ok(()),
    }
}

/// Names of plugins are in what they sealed: of two of one name, one would be asked to open what the other sealed.
fn check_plugins(rules: &[ResourceRule]) -> Result<(), Invalid> {
    let mut names = BTreeSet::new();
    for (n, rule) in rules.iter().enumerate() {
        for (m, kms) in rule.providers.iter().enumerate().filter_map(|(m, p)| Some((m, p.kms.as_ref()?))) {
            if !names.insert(&kms.name) {
                let name = &kms.name;
                let why = format!("duplicate KMS provider name {name}, names must be unique");
                let path = format!("resources[{n}].providers[{m}].kms.name");
                return Err(invalid(path, format!("Invalid value: {name:?}: {why}")));
            }
        }
    }
    Ok(())
}

/// One list must not name anything twice.
fn check_overlap(path: &str, names: &[String]) -> Result<(), Invalid> {
    let all: Vec<Pattern> = names.iter().map(|name| Pattern::parse(name)).collect();
    let pairs =
        || all.iter().enumerate().flat_map(|(n, one)| all[n + 1..].iter().map(move |other| (one, other)));
    let why = if pairs().any(|(one, other)| one == other) {
        "the same resource cannot be specified multiple times"
    } else if pairs().any(|(one, other)| one.masks(other) || other.masks(one)) {
        "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked"
    } else {
        return Ok(());
    };
    let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    Err(invalid(path, format!("Invalid value: [{}]: {why}", names.join(","))))
}

/// A rule must not be for what an earlier one has taken.
fn check_masks(rules: &[ResourceRule]) -> Result<(), Invalid> {
    let mut earlier: Vec<Pattern> = Vec::new();
    for (n, rule) in rules.iter().enumerate() {
        let patterns: Vec<Pattern> = rule.resources.iter().map(|name| Pattern::parse(name)).collect();
        for pattern in &patterns {
            if let Some(mask) = earlier.iter().find(|mask| mask.masks(pattern)) {
                let why = format!(
                    "resource {:?} is masked by earlier rule {:?}",
                    pattern.to_string(),
                    mask.to_string()
                );
                return Err(invalid(format!("resources[{n}].resources"), why));
            }
        }
        earlier.extend(patterns);
    }
    Ok(())
}

fn check_name(path: &str, name: &str) -> Result<(), Invalid> {
    let why = match name {
        "*" => "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
        "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations" => {
            "resources which do not have REST API/s cannot be encrypted"
        }
        _ if name.chars().any(char::is_uppercase) => "resource name should not contain capital letters",
        _ if name.ends_with(".events.k8s.io") => {
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file"
        }
        _ if name != "*.*" && name.ends_with(".*") => {
            "encrypting the same resource across groups is not supported"
        }
        _ if name.ends_with(".extensions") => {
            "'extensions' group has been removed and cannot be used for encryption"
        }
        _ => return Ok(()),
    };
    Err(invalid(path, format!("Invalid value: {name:?}: {why}")))
}

fn provider(path: &str, rule: ProviderRule) -> Result<Provider, Invalid> {
    let ProviderRule { aesgcm, aescbc, secretbox, identity, kms } = rule;
    let given = [aesgcm.is_some(), aescbc.is_some(), secretbox.is_some(), identity.is_some(), kms.is_some()];
    match given.iter().filter(|given| **given).count() {
        0 => return Err(invalid(path, "Required value: at least one provider is required")),
        1 => {}
        _ => {
            let why = "more than one provider specified in a single element, should split into different list elements";
            return Err(invalid(path, format!("Invalid value: {why}")));
        }
    }
    if let Some(rule) = kms {
        return plugin(&format!("{path}.kms"), rule);
    }
    const AES: &str = "[16 24 32]";
    if let Some(rule) = aesgcm {
        return keys(path, "aesgcm", "k8s:enc:aesgcm:v1:", AES, rule, Cipher::gcm);
    }
    if let Some(rule) = aescbc {
        return keys(path, "aescbc", "k8s:enc:aescbc:v1:", AES, rule, Cipher::cbc);
    }
    match secretbox {
        Some(rule) => keys(path, "secretbox", "k8s:enc:secretbox:v1:", "[32]", rule, Cipher::secretbox),
        None => Ok(Provider::Identity),
    }
}

/// How long a plugin may take to answer by default.
const KMS_TIMEOUT: Duration = Duration::from_secs(3);

fn plugin(path: &str, rule: KmsRule) -> Result<Provider, Invalid> {
    let field = |name: &str, why: String| invalid(format!("{path}.{name}"), format!("Invalid value: {why}"));
    if rule.api_version != "v2" {
        return Err(field(
            "apiVersion",
            format!("{:?}: version 2 of the plugins' interface only", rule.api_version),
        ));
    }
    if rule.name.is_empty() {
        return Err(invalid(
            format!("{path}.name"),
            "Required value: name is a mandatory field for a provider",
        ));
    }
    if rule.name.contains(':') {
        return Err(field("name", format!("invalid KMS provider name {}, must not contain ':'", rule.name)));
    }
    if rule.endpoint.is_empty() {
        return Err(invalid(
            format!("{path}.endpoint"),
            "Required value: endpoint is a mandatory field for a provider",
        ));
    }
    if !rule.endpoint.starts_with("unix://") {
        let scheme = rule.endpoint.split("://").next().unwrap_or_default();
        return Err(field(
            "endpoint",
            format!("unsupported scheme {scheme:?} for KMS provider, only unix is supported"),
        ));
    }
    let timeout = match rule.timeout.as_deref().map(machinery::duration::parse) {
        None => KMS_TIMEOUT,
        Some(Ok(nanos)) if nanos > 0 => Duration::from_nanos(nanos.unsigned_abs()),
        Some(_) => return Err(field("timeout", "timeout should be a positive value".to_owned())),
    };
    let kms = Kms::new(rule.name, &rule.endpoint, timeout)
        .map_err(|e| field("endpoint", format!("invalid endpoint for kms provider, error: {e}")))?;
    Ok(Provider::Kms(Arc::new(kms)))
}

fn keys(
    path: &str,
    name: &str,
    prefix: &'static str,
    sizes: &str,
    rule: KeysRule,
    cipher: fn(&[u8]) -> Option<Cipher>,
) -> Result<Provider, Invalid> {
    let path = format!("{path}.{name}.keys");
    required(&path, &rule.keys)?;
    let keys = rule.keys.into_iter().enumerate().map(|(n, key)| {
        let path = format!("{path}[{n}]");
        if key.name.is_empty() {
            return Err(invalid(path, "Required value: name is a mandatory field for a key"));
        }
        if key.secret.is_empty() {
            return Err(invalid(path, "Required value: secret is a mandatory field for a key"));
        }
        let why = "Invalid value: \"REDACTED\": secrets must be base64 encoded";
        let secret = BASE64.decode(&key.secret).map_err(|_| invalid(format!("{path}.secret"), why))?;
        let cipher = cipher(&secret).ok_or_else(|| {
            let got = secret.len();
            let why = format!("secret is not of the expected length, got {got}, expected one of {sizes}");
            invalid(format!("{path}.secret"), format!("Invalid value: \"REDACTED\": {why}"))
        })?;
        Ok((key.name, cipher))
    });
    Ok(Provider::Keys { prefix, keys: keys.collect::<Result<_, Invalid>>()? })
}
