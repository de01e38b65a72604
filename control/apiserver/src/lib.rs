//! Request to authentication, authorisation, admission, store and watch.

pub mod authz;
pub mod context;
pub mod objects;
pub mod query;
pub mod registry;
pub mod request;
