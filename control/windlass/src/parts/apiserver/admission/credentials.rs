//! What webhooks are shown, by a kubeconfig whose users are named by the hosts they are for. Upstream:
//! `apiserver/pkg/util/webhook/authentication.go`.
//!
//! Files of certificates and tokens are read at each call, so that they may be renewed.

use anyhow::{anyhow, bail};
use apiserver::webhook_credentials::{Credential, Credentials};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use machinery::codec::yaml;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The users of a kubeconfig.
#[derive(Debug, Default)]
pub(super) struct Kubeconfig {
    users: BTreeMap<String, User>,
    /// Of the current context.
    current: Option<String>,
    /// Where its files are.
    dir: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Written {
    users: Vec<NamedUser>,
    contexts: Vec<NamedContext>,
    current_context: String,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    #[serde(default)]
    context: Context,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Context {
    user: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: String,
    username: String,
    password: String,
    exec: Option<Value>,
    auth_provider: Option<Value>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Kubeconfig {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let decoded = yaml::decode(&std::fs::read(path)?)?;
        let written = Written::deserialize(&decoded.value)?;
        for NamedUser { name, user } in &written.users {
            if user.exec.is_some() || user.auth_provider.is_some() {
                bail!("user {name:?}: exec and auth provider are not supported");
            }
        }
        let current = written.contexts.into_iter().find(|context| context.name == written.current_context);
        Ok(Self {
            users: written.users.into_iter().map(|named| (named.name, named.user)).collect(),
            current: current.map(|context| context.context.user),
            dir: path.parent().map(Path::to_owned).unwrap_or_default(),
        })
    }

    /// The user for a host: of its name, of a name with a star for its first parts, without the port of HTTPS, of the star alone, of the
    /// current context.
    fn user(&self, host: &str, port: u16) -> Option<&User> {
        let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let by_name = |target: &str| {
            let stars = target.match_indices('.').map(|(at, _)| format!("*{}", &target[at..]));
            std::iter::once(target.to_owned()).chain(stars).find_map(|name| self.users.get(&name))
        };
        let found = by_name(&target).or_else(|| by_name(host).filter(|_| port == 443));
        let others = || self.users.get("*").or_else(|| self.users.get(self.current.as_ref()?));
        found.or_else(others)
    }

    /// A file's text, or the data that stands for it.
    fn pem(&self, file: &str, data: &str) -> anyhow::Result<String> {
        match data.is_empty() {
            false => Ok(String::from_utf8(STANDARD.decode(data)?)?),
            true => Ok(pki::files::read(&self.dir.join(file))?),
        }
    }

    fn credential(&self, user: &User) -> anyhow::Result<Credential> {
        let mut credential = Credential::default();
        let token = match (user.token.as_str(), user.token_file.as_str()) {
            ("", "") => None,
            ("", file) => Some(pki::files::read(&self.dir.join(file))?.trim().to_owned()),
            (token, _) => Some(token.to_owned()),
        };
        let said = match token {
            Some(token) => Some(format!("Bearer {token}")),
            None if user.username.is_empty() && user.password.is_empty() => None,
            None => {
                Some(format!("Basic {}", STANDARD.encode(format!("{}:{}", user.username, user.password))))
            }
        };
        if let Some(said) = said {
            let mut value = HeaderValue::from_str(&said).map_err(|_| anyhow!("the token fits no header"))?;
            value.set_sensitive(true);
            credential.authorization = Some(value);
        }
        if !(user.client_certificate.is_empty() && user.client_certificate_data.is_empty()) {
            let chain = self.pem(&user.client_certificate, &user.client_certificate_data)?;
            let key = self.pem(&user.client_key, &user.client_key_data)?;
            let chain = pki::pem::certificates(chain.as_bytes())?;
            credential.identity = Some((chain, pki::pem::private_key(key.as_bytes())?));
        }
        Ok(credential)
    }
}

impl Credentials for Kubeconfig {
    fn shown(&self, host: &str, port: u16) -> Result<Credential, String> {
        match self.user(host, port) {
            Some(user) => self.credential(user).map_err(|e| format!("{e:#}")),
            None => Ok(Credential::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Kubeconfig> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        std::fs::write(&path, text).unwrap();
        Kubeconfig::read(&path)
    }

    #[test]
    fn the_user_nearest_to_the_host_is_shown() {
        let user = |name: &str| format!("- {{name: '{name}', user: {{token: '{name}'}}}}\n");
        let names = ["a.b.svc:8443", "*.b.svc:8443", "hook.example", "*.example", "*", "me"];
        let users: String = names.iter().map(|name| user(name)).collect();
        let context = "contexts: [{name: c, context: {user: me, cluster: x}}]\ncurrent-context: c\n";
        let config = read(&format!("users:\n{users}{context}")).unwrap();
        for (host, port, expected) in [
            ("a.b.svc", 8443, "a.b.svc:8443"),
            ("c.b.svc", 8443, "*.b.svc:8443"),
            ("hook.example", 443, "hook.example"),
            ("other.example", 443, "*.example"),
            ("other.example", 8443, "*"),
        ] {
            let shown = config.shown(host, port).unwrap().authorization.unwrap();
            assert_eq!(shown.to_str().unwrap(), format!("Bearer {expected}"), "{host}:{port}");
        }
        let config = read(&format!("users:\n{}{context}", user("me"))).unwrap();
        assert_eq!(config.shown("h", 1).unwrap().authorization.unwrap(), "Bearer me");
        let nobody = read("users: []\n").unwrap().shown("h", 1).unwrap();
        assert!(nobody.authorization.is_none() && nobody.identity.is_none());
    }

    #[test]
    fn passwords_and_certificates_are_shown_and_programs_are_not_run() {
        let basic = read("users: [{name: '*', user: {username: u, password: p}}]\n").unwrap();
        assert_eq!(basic.shown("h", 1).unwrap().authorization.unwrap(), "Basic dTpw");
        let now = jiff::Timestamp::now();
        let authority = pki::Authority::generate("ca", now).unwrap();
        let issued = authority.issue(&pki::Leaf::client("me", &[]), now).unwrap();
        let (cert, key) = (STANDARD.encode(issued.cert_pem), STANDARD.encode(issued.key_pem));
        let text = format!(
            "users: [{{name: '*', user: {{client-certificate-data: {cert}, client-key-data: {key}}}}}]\n"
        );
        assert!(read(&text).unwrap().shown("h", 1).unwrap().identity.is_some());
        let broken = read("users: [{name: '*', user: {client-certificate: nowhere}}]\n").unwrap();
        assert!(broken.shown("h", 1).is_err());
        assert!(read("users: [{name: '*', user: {exec: {command: x}}}]\n").is_err());
    }
}
