//! Resources and their storage: what lies between an authorised request and the store.

mod allocator;
pub mod hooks;
mod metadata;
mod page_token;
mod stored;
