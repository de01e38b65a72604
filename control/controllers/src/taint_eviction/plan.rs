//! Whether a pod must leave a node for its taints, and when. Pure.

use k8s_openapi::api::core::v1::{Taint, Toleration};
use machinery::taints::tolerates;
use std::time::Duration;

/// When a pod must leave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Eviction {
    /// It tolerates every taint forever.
    Never,
    /// It tolerates them for so long.
    After(Duration),
    /// It does not tolerate one.
    Now,
}

/// Decides for a pod's tolerations, given the NoExecute taints of its node. For each taint the first toleration that fits counts; of these
/// the shortest.
pub(super) fn eviction(tolerations: &[Toleration], taints: &[Taint]) -> Eviction {
    let mut least: Option<i64> = None;
    for taint in taints {
        let Some(fitting) = tolerations.iter().find(|t| tolerates(t, taint)) else { return Eviction::Now };
        if let Some(seconds) = fitting.toleration_seconds {
            least = Some(least.map_or(seconds, |least| least.min(seconds)));
        }
    }
    match least.map(u64::try_from) {
        None => Eviction::Never,
        Some(Ok(seconds)) if seconds > 0 => Eviction::After(Duration::from_secs(seconds)),
        Some(_) => Eviction::Now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "node.kubernetes.io/unreachable";

    fn taint(key: &str) -> Taint {
        Taint { key: key.into(), effect: "NoExecute".into(), value: Some("5".into()), ..Taint::default() }
    }

    fn toleration(seconds: Option<i64>, operator: &str, value: Option<&str>) -> Toleration {
        Toleration {
            key: Some(KEY.into()),
            operator: Some(operator.into()),
            value: value.map(str::to_owned),
            toleration_seconds: seconds,
            ..Toleration::default()
        }
    }

    #[test]
    fn the_first_fitting_toleration_counts() {
        let after = |seconds| Eviction::After(Duration::from_secs(seconds));
        let exists = |seconds| toleration(seconds, "Exists", None);
        let taints = [taint(KEY)];
        assert_eq!(eviction(&[exists(Some(300)), exists(Some(10))], &taints), after(300));
        assert_eq!(eviction(&[exists(None), exists(Some(10))], &taints), Eviction::Never);
        assert_eq!(eviction(&[exists(Some(0))], &taints), Eviction::Now);
        assert_eq!(eviction(&[exists(Some(-1))], &taints), Eviction::Now);
        assert_eq!(eviction(&[], &taints), Eviction::Now);
        assert_eq!(eviction(&[], &[]), Eviction::Never);
        assert_eq!(eviction(&[exists(Some(10))], &[taint(KEY), taint("other")]), Eviction::Now);
    }

    #[test]
    fn values_are_compared_by_the_operator() {
        let taints = [taint(KEY)];
        let one = |operator, value| eviction(&[toleration(None, operator, Some(value))], &taints);
        assert_eq!(one("Equal", "5"), Eviction::Never);
        assert_eq!(one("Equal", "6"), Eviction::Now);
        assert_eq!(one("Lt", "6"), Eviction::Never);
        assert_eq!(one("Gt", "6"), Eviction::Now);
    }
}
