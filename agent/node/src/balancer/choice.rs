//! Which servers there are, and which one is used.

use tokio_util::sync::CancellationToken;

/// Servers as `HOST:PORT`.
pub(super) struct Choice {
    /// The one that was configured: used for want of others, and never forgotten.
    configured: String,
    known: Vec<String>,
    current: String,
    /// Ends the connections to the one in use.
    cut: CancellationToken,
}

impl Choice {
    pub(super) fn new(configured: String) -> Self {
        Self { current: configured.clone(), configured, known: Vec::new(), cut: CancellationToken::new() }
    }

    /// The one in use, then the others.
    pub(super) fn servers(&self) -> Vec<String> {
        let mut all = vec![self.current.clone()];
        for server in std::iter::once(&self.configured).chain(&self.known) {
            if !all.contains(server) {
                all.push(server.clone());
            }
        }
        all
    }

    /// Takes note of the servers there are; true where others were known.
    pub(super) fn know(&mut self, mut servers: Vec<String>) -> bool {
        servers.sort();
        servers.dedup();
        if self.known == servers {
            return false;
        }
        self.known = servers;
        true
    }

    /// `server` takes connections and is used from now on: those to another one are ended. Gives what ends this one's.
    pub(super) fn used(&mut self, server: &str) -> CancellationToken {
        if self.current != server {
            std::mem::take(&mut self.cut).cancel();
            server.clone_into(&mut self.current);
        }
        self.cut.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_ends_the_connections_to_the_server_before_and_no_others() {
        let mut choice = Choice::new("a:1".into());
        let first = choice.used("a:1");
        assert!(choice.know(vec!["b:1".into(), "a:1".into(), "b:1".into()]));
        assert!(!choice.know(vec!["a:1".into(), "b:1".into()]));
        assert_eq!(choice.servers(), ["a:1", "b:1"]);
        assert!(!first.is_cancelled());
        let second = choice.used("b:1");
        assert!(first.is_cancelled() && !second.is_cancelled());
        assert!(!choice.used("b:1").is_cancelled());
        assert_eq!(choice.servers(), ["b:1", "a:1"]);
    }

    #[test]
    fn the_configured_server_must_not_be_forgotten() {
        let mut choice = Choice::new("balancer:443".into());
        choice.know(vec!["a:1".into(), "b:1".into()]);
        assert_eq!(choice.servers(), ["balancer:443", "a:1", "b:1"]);
        choice.used("b:1");
        choice.know(vec!["a:1".into()]);
        assert_eq!(
            choice.servers(),
            ["b:1", "balancer:443", "a:1"],
            "the one in use goes when it takes no connection"
        );
    }
}
