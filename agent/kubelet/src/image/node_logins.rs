//! The node's own logins, tried after those of a pod's secrets: Docker's files, then credential providers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Config;
use crate::login::keyring::{self, DockerConfig, Keyring, Login};
use crate::login::provider::Provider;

/// Where the node's logins come from.
#[derive(Clone, Debug)]
pub struct NodeLogins {
    root_dir: PathBuf,
    providers: Arc<[Provider]>,
}

impl NodeLogins {
    /// Those of a configuration.
    pub fn new(config: &Config) -> Self {
        Self { root_dir: config.root_dir.clone(), providers: Arc::clone(&config.credential_providers) }
    }

    /// The logins for a repository, named in full.
    pub async fn lookup(&self, repository: &str) -> Vec<Login> {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let mut files = Keyring::default();
        files.add(docker_files(&self.root_dir, &home, Path::new("/")));
        let mut provided = Keyring::default();
        for provider in self.providers.iter() {
            match Box::pin(provider.provide(repository)).await {
                Ok(config) => provided.add(config),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(provider = provider.name(), error, "no credentials from a provider");
                }
            }
        }
        [files.lookup(repository), provided.lookup(repository)].concat()
    }
}

/// The first of Docker's files that can be read, as upstream looks for them: `config.json`, then the older `.dockercfg`.
fn docker_files(root: &Path, home: &Path, top: &Path) -> DockerConfig {
    let read = |path: PathBuf| std::fs::read(path).ok();
    let newer = [root.to_owned(), PathBuf::new(), home.join(".docker"), top.join(".docker")];
    let newer = newer.iter().find_map(|dir| keyring::read_json(&read(dir.join("config.json"))?).ok());
    newer.unwrap_or_else(|| {
        let older = [root, Path::new(""), home, top];
        let mut older = older.iter().map(|dir| read(dir.join(".dockercfg")));
        older.find_map(|bytes| serde_json::from_slice(&bytes?).ok()).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_files_are_read_in_upstreams_order() {
        let dir = tempfile::tempdir().unwrap();
        let [root, home, top] = ["root", "home", "top"].map(|name| dir.path().join(name));
        let write = |path: PathBuf, text: &str| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let user = || docker_files(&root, &home, &top).get("r").map(|login| login.username.clone());
        assert_eq!(user(), None);
        write(top.join(".dockercfg"), r#"{"r": {"username": "old"}}"#);
        assert_eq!(user().as_deref(), Some("old"));
        write(home.join(".docker/config.json"), r#"{"auths": {"r": {"username": "home"}}}"#);
        assert_eq!(user().as_deref(), Some("home"));
        write(root.join("config.json"), "no JSON");
        assert_eq!(user().as_deref(), Some("home"));
        write(root.join("config.json"), r#"{"auths": {"r": {"username": "root"}}}"#);
        assert_eq!(user().as_deref(), Some("root"));
    }
}
