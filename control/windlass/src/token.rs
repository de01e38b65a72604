//! `windlass token`: the bootstrap tokens machines join with.

use crate::cli::{Admin, TokenCommand, TokenCreate};
use crate::member::{self, shared};
use crate::parts::apiserver::publish;
use crate::parts::kubeconfig;
use crate::{output, settings};
use anyhow::{Context as _, anyhow, bail};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use pki::Kubeconfig;
use pki::bootstrap::{BootstrapToken, JoinToken, SECRET_NAMESPACE, SECRET_TYPE};
use pki::sealed::CertificateKey;
use serde::Serialize;

pub(crate) async fn run(command: TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create(flags) => create(&flags).await,
        TokenCommand::List(flags) => list(&flags.admin).await,
        TokenCommand::Delete(flags) => delete(&flags.admin, &flags.tokens).await,
    }
}

/// A cluster as its administrator sees it.
struct Cluster {
    client: kube::Client,
    kubeconfig: Kubeconfig,
}

async fn connect(admin: &Admin) -> anyhow::Result<Cluster> {
    let path = admin.kubeconfig.clone().unwrap_or_else(|| settings::admin_kubeconfig(&admin.data_dir));
    if !path.exists() {
        bail!("there is no {}: run this on a server, or give --kubeconfig", path.display());
    }
    let kubeconfig = Kubeconfig::read(&path)?;
    Ok(Cluster { client: kubeconfig::client(&path, None).await?, kubeconfig })
}

async fn create(flags: &TokenCreate) -> anyhow::Result<()> {
    let key: Option<CertificateKey> = match (flags.control_plane, &flags.certificate_key) {
        (false, _) => None,
        (true, Some(text)) => Some(text.parse().context("--certificate-key")?),
        (true, None) => Some(CertificateKey::generate()?),
    };
    let token: BootstrapToken = match &flags.token {
        Some(text) => text.parse()?,
        None => BootstrapToken::generate()?,
    };
    let cluster = connect(&flags.admin).await?;
    let expiration = match flags.ttl.as_secs() {
        0 => None,
        _ => Some(Timestamp::now().checked_add(flags.ttl).context("--ttl is too long")?),
    };
    let authority = pki::Certificate::from_pem(&cluster.kubeconfig.cluster()?.authority_pem()?)?;
    publish::create_token(&cluster.client, &token, &flags.description, expiration)
        .await
        .with_context(|| format!("create secret {}/{}", SECRET_NAMESPACE, token.secret_name()))?;
    let info = publish::sign_cluster_info(&cluster.client, &token).await;
    let info = info.context("sign kube-public/cluster-info")?;
    // The administrator may reach the server in a way other machines do not.
    let server = Kubeconfig::parse(&info)?.cluster()?.server.clone();
    let words = join_words(&server, &token, &authority);
    let joins = JoinToken::new(token, &authority);
    let kubeadm = kubeadm_command(&words, key.as_ref());
    let (text, command) = if let Some(key) = &key {
        let dir = settings::server_dir(&flags.admin.data_dir);
        shared::upload(&cluster.client, &dir, key).await.context("share this server's files")?;
        let text = member::token::expose(&joins, key);
        let command = format!("windlass server --server {server} --token {text}");
        (text, command)
    } else {
        (joins.expose(), format!("windlass agent {words}"))
    };
    let shown = if flags.print_join_command { &command } else { &text };
    let data = serde_json::json!({"token": text, "server": server, "joinCommand": command,
        "kubeadmJoinCommand": kubeadm, "expires": expiration.map(|at| at.to_string())});
    output::print(flags.admin.output, &format!("{shown}\n"), &data)
}

/// What a machine joins with, in words that `windlass agent` and `kubeadm join` both know.
fn join_words(server: &str, token: &BootstrapToken, authority: &pki::Certificate) -> String {
    format!(
        "{} --token {} --discovery-token-ca-cert-hash sha256:{}",
        server.trim_start_matches("https://"),
        token.expose(),
        authority.public_key_hash()
    )
}

/// With a key, another control plane: where objects are in etcd.
fn kubeadm_command(words: &str, key: Option<&CertificateKey>) -> String {
    let plane = key.map(|key| format!(" --control-plane --certificate-key {}", key.expose()));
    format!("kubeadm join {words}{}", plane.unwrap_or_default())
}

/// A token as `list` shows it: never its secret.
#[derive(Debug, PartialEq, Serialize)]
struct Listed {
    id: String,
    expires: Option<String>,
    expired: bool,
    usages: Vec<String>,
    description: String,
}

async fn list(admin: &Admin) -> anyhow::Result<()> {
    let cluster = connect(admin).await?;
    let api: Api<Secret> = Api::namespaced(cluster.client, SECRET_NAMESPACE);
    let found = api.list(&ListParams::default().fields(&format!("type={SECRET_TYPE}"))).await?;
    let now = Timestamp::now();
    let listed: Vec<Listed> = found.items.iter().filter_map(|secret| describe(secret, now)).collect();
    let mut rows = vec![["ID", "EXPIRES", "USAGES", "DESCRIPTION"].map(str::to_owned).to_vec()];
    for token in &listed {
        let expires = match &token.expires {
            None => "never".to_owned(),
            Some(at) if token.expired => format!("{at} (expired)"),
            Some(at) => at.clone(),
        };
        rows.push(vec![token.id.clone(), expires, token.usages.join(","), token.description.clone()]);
    }
    output::print(admin.output, &output::table(&rows), &listed)
}

fn describe(secret: &Secret, now: Timestamp) -> Option<Listed> {
    let data = secret.data.as_ref()?;
    let text = |key: &str| data.get(key).and_then(|v| String::from_utf8(v.0.clone()).ok());
    let usages = ["authentication", "signing"]
        .into_iter()
        .filter(|usage| text(&format!("usage-bootstrap-{usage}")).as_deref() == Some("true"));
    let expires = text("expiration");
    // An expiration that does not parse counts as past, as it does for the authenticator.
    let expired = expires.as_ref().is_some_and(|at| at.parse::<Timestamp>().map_or(true, |at| at <= now));
    Some(Listed {
        id: text("token-id")?,
        expired,
        expires,
        usages: usages.map(str::to_owned).collect(),
        description: text("description").unwrap_or_default(),
    })
}

async fn delete(admin: &Admin, tokens: &[String]) -> anyhow::Result<()> {
    let ids = tokens.iter().map(|text| token_id(text)).collect::<anyhow::Result<Vec<_>>>()?;
    let cluster = connect(admin).await?;
    let api: Api<Secret> = Api::namespaced(cluster.client, SECRET_NAMESPACE);
    for id in &ids {
        let name = format!("bootstrap-token-{id}");
        api.delete(&name, &DeleteParams::default()).await.with_context(|| format!("delete token {id}"))?;
    }
    let lines: String = ids.iter().map(|id| format!("deleted {id}\n")).collect();
    output::print(admin.output, &lines, &ids)
}

/// The id of a token given as id, `id.secret` or whole join token.
fn token_id(text: &str) -> anyhow::Result<String> {
    if text.len() == 6 && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    let token: JoinToken =
        text.parse().map_err(|_| anyhow!("this is neither the id of a token nor a token"))?;
    Ok(token.token.id().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    #[test]
    fn a_listed_token_shows_no_secret() {
        let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
        let end: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let data = token.secret_data("for tests", Some(end));
        let data = data.into_iter().map(|(k, v)| (k.to_owned(), ByteString(v.into_bytes()))).collect();
        let secret = Secret { data: Some(data), ..Secret::default() };
        let before = describe(&secret, "2026-01-01T00:00:00Z".parse().unwrap()).unwrap();
        assert_eq!((before.id.as_str(), before.expired), ("abcdef", false));
        assert_eq!(before.usages, ["authentication", "signing"]);
        assert!(!serde_json::to_string(&before).unwrap().contains(token.secret()));
        assert!(describe(&secret, end).unwrap().expired);
    }

    #[test]
    fn kubeadm_must_not_be_told_to_join_a_control_plane_without_its_key() {
        let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
        let ca = pki::Authority::generate("kubernetes", Timestamp::now()).unwrap();
        let words = join_words("https://192.0.2.1:6443", &token, ca.certificate());
        let node = kubeadm_command(&words, None);
        assert!(node.starts_with("kubeadm join 192.0.2.1:6443 --token abcdef.0123456789abcdef --discovery"));
        assert!(!node.contains("--control-plane"));
        let key = CertificateKey::generate().unwrap();
        let plane = kubeadm_command(&words, Some(&key));
        assert_eq!(plane, format!("{node} --control-plane --certificate-key {}", key.expose()));
    }

    #[test]
    fn tokens_are_deleted_by_any_of_their_forms() {
        let whole = format!("K10{}::abcdef.0123456789abcdef", "0".repeat(64));
        for form in ["abcdef", "abcdef.0123456789abcdef", &whole] {
            assert_eq!(token_id(form).unwrap(), "abcdef");
        }
        assert!(token_id("ABCDEF").is_err());
    }
}
