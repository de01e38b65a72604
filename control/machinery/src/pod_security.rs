//! PodSecurity: how much a namespace's labels let its pods ask of their node ([`policy`]), and what of a pod goes beyond that
//! ([`checks`]). Upstream: `k8s.io/pod-security-admission`.

pub mod checks;
pub mod policy;
