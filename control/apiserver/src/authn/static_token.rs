//! Tokens of a fixed list: `token,user,uid,"group1,group2"` lines, upstream's `--token-auth-file`.

use crate::context::User;
use rustc_hash::FxHashMap;
use sha2::{Digest as _, Sha256};

/// The users behind fixed tokens, kept by the tokens' hashes.
#[derive(Clone, Default)]
pub struct StaticTokens(FxHashMap<[u8; 32], User>);

impl StaticTokens {
    /// Whoever shows `token` is `user` from now on.
    pub fn add(&mut self, token: &str, user: User) {
        self.0.insert(Sha256::digest(token).into(), user);
    }

    /// Whose token it is. Looking up a hash tells nothing of a guess by its timing.
    #[must_use]
    pub fn user(&self, token: &str) -> Option<User> {
        if self.0.is_empty() {
            return None;
        }
        let hash: [u8; 32] = Sha256::digest(token).into();
        self.0.get(&hash).cloned()
    }
}

impl std::fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StaticTokens({})", self.0.len())
    }
}
