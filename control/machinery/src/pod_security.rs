//! PodSecurity: how much a namespace's labels let its pods ask of their node ([`policy`]), and what of a pod goes beyond that
//! ([`checks`]); what holds where no label says anything ([`configuration`]). Upstream: `k8s.io/pod-security-admission`.

pub mod checks;
pub mod configuration;
pub mod policy;
