//! Tokens that are no cluster's own: a file of them, and a service that knows others. Upstream:
//! `apiserver/pkg/authentication/token/tokenfile`, `pkg/kubeapiserver/options/authentication.go`.

use crate::flags::Flags;
use crate::parts::apiserver::csv;
use crate::parts::apiserver::reviewer::Remote;
use anyhow::{Context as _, bail};
use apiserver::{StaticTokens, TokenWebhook, User};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a service may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long its answers are kept.
const KEPT_FOR: Duration = Duration::from_secs(120);
/// Columns of a file: token, name, uid; groups may follow.
const COLUMNS: usize = 3;

/// What else is believed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens {
    pub(in crate::parts::apiserver) fixed: StaticTokens,
    webhook: Option<Hook>,
}

/// A service that is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hook {
    kubeconfig: PathBuf,
    v1: bool,
    kept_for: Duration,
}

impl Tokens {
    pub(in crate::parts::apiserver) fn of_flags(flags: &Flags) -> anyhow::Result<Self> {
        let fixed = match flags.text("token-auth-file") {
            Some(path) => of_file(path, &pki::files::read(Path::new(path)).context("--token-auth-file")?)?,
            None => StaticTokens::default(),
        };
        let Some(path) = flags.text("authentication-token-webhook-config-file") else {
            return Ok(Self { fixed, webhook: None });
        };
        let v1 = match flags.text("authentication-token-webhook-version") {
            None | Some("v1beta1") => false,
            Some("v1") => true,
            Some(other) => bail!(
                "unsupported authentication webhook version {other:?}, supported versions are \"v1\", \"v1beta1\""
            ),
        };
        let kept_for = flags.duration("authentication-token-webhook-cache-ttl").unwrap_or(KEPT_FOR);
        Ok(Self { fixed, webhook: Some(Hook { kubeconfig: path.into(), v1, kept_for }) })
    }

    /// The service, made anew.
    pub(in crate::parts::apiserver) async fn webhook(&self) -> anyhow::Result<Option<TokenWebhook>> {
        let Some(hook) = &self.webhook else { return Ok(None) };
        let remote = Remote::new(Some(&hook.kubeconfig), TIMEOUT).await;
        let remote = remote.context("--authentication-token-webhook-config-file")?;
        Ok(Some(TokenWebhook::new(Arc::new(remote), hook.v1, hook.kept_for)))
    }
}

/// The tokens of a file; the last line of a token counts.
fn of_file(path: &str, text: &str) -> anyhow::Result<StaticTokens> {
    let mut tokens = StaticTokens::default();
    for (index, record) in csv::records(text).context("--token-auth-file")?.iter().enumerate() {
        let [token, name, uid, rest @ ..] = record.as_slice() else {
            bail!(
                "token file '{path}' must have at least {COLUMNS} columns (token, user name, user uid), found {}",
                record.len()
            );
        };
        if token.is_empty() {
            tracing::warn!(
                "empty token has been found in token file '{path}', record number '{}'",
                index + 1
            );
            continue;
        }
        if tokens.user(token).is_some() {
            tracing::warn!(
                "duplicate token has been found in token file '{path}', record number '{}'",
                index + 1
            );
        }
        let groups = rest.first().map(|groups| groups.split(',').map(str::to_owned).collect());
        let (name, uid) = (name.clone(), uid.clone());
        tokens.add(token, User { name, uid, groups: groups.unwrap_or_default(), ..User::default() });
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;

    fn of(line: &str) -> anyhow::Result<Tokens> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Tokens::of_flags(&Component::named("kube-apiserver").unwrap().table().parse(&arguments)?)
    }

    #[test]
    fn a_file_says_whose_its_tokens_are() {
        let text = "t1,alice,1,\"dev,ops\"\r\n\nt2,bob,2\n,nobody,3\nt1,carol,4,ops\n\"t\"\"3\",\"d,d\",5,";
        let tokens = of_file("/f", text).unwrap();
        let user = |token: &str| tokens.user(token).map(|user| (user.name, user.uid, user.groups));
        let groups = |all: &[&str]| all.iter().map(|g| (*g).to_owned()).collect::<Vec<_>>();
        assert_eq!(user("t1"), Some(("carol".into(), "4".into(), groups(&["ops"]))), "the last one counts");
        assert_eq!(user("t2"), Some(("bob".into(), "2".into(), Vec::new())));
        assert_eq!(user("t\"3"), Some(("d,d".into(), "5".into(), groups(&[""]))));
        assert_eq!(user(""), None);
    }

    #[test]
    fn a_file_that_is_no_table_of_tokens_is_refused() {
        for (text, why) in [
            ("t,alice", "token file '/f' must have at least 3 columns (token, user name, user uid), found 2"),
            ("t\"x,a,1", "--token-auth-file"),
            ("\"t,a,1", "--token-auth-file"),
            ("\"t\"x,a,1", "--token-auth-file"),
        ] {
            assert_eq!(of_file("/f", text).unwrap_err().to_string(), why, "{text}");
        }
        assert!(of("--token-auth-file=/nowhere").is_err());
    }

    #[test]
    fn who_is_asked_is_settled_by_flags() {
        let hook = |line: &str| {
            of(&format!("--authentication-token-webhook-config-file=/k {line}")).map(|t| t.webhook.unwrap())
        };
        let default = Hook { kubeconfig: "/k".into(), v1: false, kept_for: KEPT_FOR };
        assert_eq!(hook("").unwrap(), default);
        assert_eq!(
            hook("--authentication-token-webhook-version=v1").unwrap(),
            Hook { v1: true, ..default.clone() }
        );
        let kept = hook("--authentication-token-webhook-cache-ttl=0s").unwrap();
        assert_eq!(kept, Hook { kept_for: Duration::ZERO, ..default });
        assert_eq!(
            hook("--authentication-token-webhook-version=v2").unwrap_err().to_string(),
            "unsupported authentication webhook version \"v2\", supported versions are \"v1\", \"v1beta1\""
        );
        assert!(of("").unwrap().webhook.is_none());
    }
}
