//! Request to authentication, authorisation, admission, store and watch.

pub mod context;
pub mod registry;
