//! Logins to registries: [`keyring`] says which are tried for an image, [`provider`] asks programs for them.

pub(crate) mod keyring;
pub mod provider;
