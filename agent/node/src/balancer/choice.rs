//! Which servers there are, and which one is used.
//!
//! The rule is that of k3s's load balancer: one server for all connections; another one only when that one fails, and the configured one first. What
//! k3s has not: the configured one is used again once it has been well for long, unless the cluster has had it and has it no more.

use tokio_util::sync::CancellationToken;

/// Looks at the configured server that find it well, one after the other, before it is used again.
const STEADY: u32 = 20;

/// How a server is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Health {
    /// It takes no connection, or says nothing.
    Dead,
    /// It says that it cannot serve: it ends, or has lost its store.
    Unready,
    Ready,
}

/// Servers as `HOST:PORT`.
pub(super) struct Choice {
    /// The one that was configured: preferred to others, and never forgotten.
    configured: String,
    known: Vec<String>,
    current: String,
    /// Ends the connections to the one in use.
    cut: CancellationToken,
    /// Ends the connections to others, which are there for want of a quick answer.
    strays: CancellationToken,
    /// How often in turn the configured one was well while another is in use.
    steady: u32,
    /// The cluster named the configured one, and does so no more: it is the last to be tried, and is not returned to.
    has_left: bool,
}

impl Choice {
    pub(super) fn new(configured: String) -> Self {
        Self {
            current: configured.clone(),
            configured,
            known: Vec::new(),
            cut: CancellationToken::new(),
            strays: CancellationToken::new(),
            steady: 0,
            has_left: false,
        }
    }

    /// The one in use, then the others, the configured one first.
    pub(super) fn servers(&self) -> Vec<String> {
        let mut all = vec![self.current.clone()];
        let (first, last) =
            if self.has_left { (None, Some(&self.configured)) } else { (Some(&self.configured), None) };
        for server in first.into_iter().chain(&self.known).chain(last) {
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
        let is_named = servers.contains(&self.configured);
        self.has_left = !is_named && (self.has_left || self.known.contains(&self.configured));
        self.known = servers;
        true
    }

    /// What ends a connection to `server`.
    pub(super) fn connected(&self, server: &str) -> CancellationToken {
        if self.current == server { self.cut.clone() } else { self.strays.clone() }
    }

    /// Uses `server` from now on: connections to others are ended, so that their owners come again.
    pub(super) fn use_server(&mut self, server: &str) {
        if self.current != server {
            self.end_strays();
            std::mem::take(&mut self.cut).cancel();
            server.clone_into(&mut self.current);
            self.steady = 0;
        }
    }

    /// Uses `server` in place of `from`, if that is still the one in use; true where it was. Who looked at `from` knows nothing of one that was
    /// chosen meanwhile.
    pub(super) fn leave(&mut self, from: &str, server: &str) -> bool {
        let leaves = self.current == from && from != server;
        if leaves {
            self.use_server(server);
        }
        leaves
    }

    /// The one in use is well: nobody needs another.
    pub(super) fn end_strays(&mut self) {
        std::mem::take(&mut self.strays).cancel();
    }

    /// The configured server, where another one is in use.
    pub(super) fn preferred(&self) -> Option<&str> {
        (self.current != self.configured && !self.has_left).then_some(self.configured.as_str())
    }

    /// Takes note of how the configured server is while another one is in use; true once it may be used again.
    pub(super) fn may_return(&mut self, health: Health) -> bool {
        self.steady = if health == Health::Ready { self.steady + 1 } else { 0 };
        self.steady >= STEADY
    }
}

/// The server to move to from one that is `now`, of `others` in the order they are preferred in: the best, if it is better.
pub(super) fn better<'a>(now: Health, others: &[(&'a str, Health)]) -> Option<&'a str> {
    let best = others.iter().map(|(_, health)| *health).max().filter(|best| *best > now)?;
    others.iter().find(|(_, health)| *health == best).map(|(server, _)| *server)
}

#[cfg(test)]
mod tests {
    use super::Health::{Dead, Ready, Unready};
    use super::*;

    #[test]
    fn a_move_ends_the_connections_to_the_server_before_and_no_others() {
        let mut choice = Choice::new("a:1".into());
        let first = choice.connected("a:1");
        assert!(choice.know(vec!["b:1".into(), "a:1".into(), "b:1".into()]));
        assert!(!choice.know(vec!["a:1".into(), "b:1".into()]));
        assert_eq!(choice.servers(), ["a:1", "b:1"]);
        assert!(!first.is_cancelled());
        choice.use_server("b:1");
        let second = choice.connected("b:1");
        assert!(first.is_cancelled() && !second.is_cancelled());
        choice.use_server("b:1");
        assert!(!second.is_cancelled() && !choice.connected("b:1").is_cancelled());
        assert_eq!(choice.servers(), ["b:1", "a:1"]);
    }

    #[test]
    fn one_slow_connection_must_not_move_the_others() {
        let mut choice = Choice::new("a:1".into());
        choice.know(vec!["a:1".into(), "b:1".into()]);
        let (ours, stray) = (choice.connected("a:1"), choice.connected("b:1"));
        assert_eq!(choice.servers()[0], "a:1");
        choice.end_strays();
        assert!(stray.is_cancelled() && !ours.is_cancelled(), "nobody is left where nobody looks");
        let stray = choice.connected("b:1");
        choice.use_server("b:1");
        assert!(stray.is_cancelled() && ours.is_cancelled());
        assert!(!choice.connected("b:1").is_cancelled());
    }

    #[test]
    fn an_old_look_at_the_servers_must_not_undo_a_move() {
        let mut choice = Choice::new("a:1".into());
        choice.know(vec!["a:1".into(), "b:1".into(), "c:1".into()]);
        // One that found `a` in use, and went on to `c`, is late: all are at `b` by now.
        assert!(choice.leave("a:1", "b:1"));
        let held = choice.connected("b:1");
        assert!(!choice.leave("a:1", "c:1") && !choice.leave("a:1", "a:1") && !choice.leave("b:1", "b:1"));
        assert!(!held.is_cancelled());
        assert_eq!(choice.servers()[0], "b:1");
    }

    #[test]
    fn a_server_must_not_be_left_for_one_that_is_no_better() {
        assert_eq!(better(Unready, &[("a", Unready), ("b", Dead)]), None, "all have lost their store");
        assert_eq!(better(Dead, &[("a", Dead)]), None);
        assert_eq!(better(Dead, &[("a", Unready), ("b", Dead)]), Some("a"));
        assert_eq!(better(Unready, &[("a", Unready), ("b", Ready), ("c", Ready)]), Some("b"));
        assert_eq!(better(Dead, &[]), None);
    }

    #[test]
    fn the_configured_server_must_not_be_used_again_before_it_is_steady() {
        let mut choice = Choice::new("a:1".into());
        assert_eq!(choice.preferred(), None);
        choice.use_server("b:1");
        assert_eq!(choice.preferred(), Some("a:1"));
        for health in [Ready, Unready, Dead] {
            for _ in 1..STEADY {
                assert!(!choice.may_return(Ready));
            }
            assert_eq!(choice.may_return(health), health == Ready);
            if health == Ready {
                choice.use_server("a:1");
                choice.use_server("b:1");
            }
        }
        assert!(!choice.may_return(Ready), "counted anew");
    }

    #[test]
    fn a_server_that_left_the_cluster_must_not_be_returned_to() {
        let mut choice = Choice::new("a:1".into());
        choice.know(vec!["a:1".into(), "b:1".into(), "c:1".into()]);
        choice.use_server("b:1");
        choice.know(vec!["b:1".into(), "c:1".into()]);
        assert_eq!(choice.preferred(), None);
        assert_eq!(choice.servers(), ["b:1", "c:1", "a:1"], "the last to be tried");
        choice.know(vec!["b:1".into()]);
        assert_eq!(choice.preferred(), None, "it is not there again");
        choice.know(vec!["a:1".into(), "b:1".into()]);
        assert_eq!(choice.preferred(), Some("a:1"), "now it is");
    }

    #[test]
    fn the_configured_server_must_not_be_forgotten() {
        let mut choice = Choice::new("balancer:443".into());
        choice.know(vec!["a:1".into(), "b:1".into()]);
        assert_eq!(choice.servers(), ["balancer:443", "a:1", "b:1"]);
        choice.use_server("b:1");
        choice.know(vec!["a:1".into()]);
        assert_eq!(choice.servers(), ["b:1", "balancer:443", "a:1"], "the one in use goes when it fails");
    }
}
