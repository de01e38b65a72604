//! Fields a write cannot set, because the server puts back what was there: applying them makes nobody their owner
//! (upstream: `GetResetFields` of each strategy).

use crate::resources::Resource;

/// What a write of a status resets beyond, or instead of, the spec.
const STATUS: &[(&str, &[&str])] = &[
    ("APIService", METADATA_AND_SPEC),
    ("CertificateSigningRequest", &["spec", "status.conditions"]),
    ("Deployment", &["spec", "metadata.labels"]),
    ("DeviceTaintRule", METADATA_AND_SPEC),
    ("FlowSchema", METADATA_AND_SPEC),
    ("Pod", &["spec", "metadata.deletionTimestamp", "metadata.ownerReferences"]),
    ("PodGroup", METADATA_AND_SPEC),
    ("PriorityLevelConfiguration", METADATA_AND_SPEC),
    ("ResourceClaim", METADATA_AND_SPEC),
    ("ResourcePoolStatusRequest", METADATA_AND_SPEC),
    ("ServiceCIDR", METADATA_AND_SPEC),
    ("StorageVersion", METADATA_AND_SPEC),
    ("StorageVersionMigration", METADATA_AND_SPEC),
    ("ValidatingAdmissionPolicy", METADATA_AND_SPEC),
    ("VolumeAttachment", METADATA_AND_SPEC),
];

const METADATA_AND_SPEC: &[&str] = &["metadata", "spec"];
const SPEC: &[&str] = &["spec"];
const STATUS_ONLY: &[&str] = &["status"];

/// The fields a write of `subresource` (the object itself where empty) resets.
pub fn reset_fields(resource: &Resource, subresource: &str) -> &'static [&'static str] {
    match (resource.kind, subresource) {
        ("CertificateSigningRequest", "") => &["spec", "status"],
        ("CertificateSigningRequest", "approval") => &["spec", "status.certificate"],
        // Upstream's strategy of the object itself names none.
        ("PodCertificateRequest", "") => &[],
        ("Namespace", "finalize") => STATUS_ONLY,
        (_, "") if resource.has_status() => STATUS_ONLY,
        (kind, "status") => STATUS.iter().find(|(name, _)| *name == kind).map_or(SPEC, |(_, fields)| fields),
        _ => &[],
    }
}

/// The same of a custom resource with or without a status subresource.
#[must_use]
pub fn reset_fields_of_custom(has_status: bool, subresource: &str) -> &'static [&'static str] {
    match subresource {
        "" if has_status => STATUS_ONLY,
        "status" => METADATA_AND_SPEC,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::by_group_resource;

    #[test]
    fn each_write_resets_what_its_strategy_says() {
        for (group, plural, subresource, want) in [
            ("", "pods", "", &["status"][..]),
            ("", "configmaps", "", &[]),
            ("apps", "deployments", "status", &["spec", "metadata.labels"]),
            ("apps", "statefulsets", "status", &["spec"]),
            (
                "certificates.k8s.io",
                "certificatesigningrequests",
                "approval",
                &["spec", "status.certificate"],
            ),
            ("storage.k8s.io", "volumeattachments", "status", &["metadata", "spec"]),
            ("", "pods", "ephemeralcontainers", &[]),
        ] {
            let resource = by_group_resource(group, plural).unwrap();
            assert_eq!(reset_fields(resource, subresource), want, "{plural}/{subresource}");
        }
        assert_eq!(reset_fields_of_custom(true, ""), ["status"]);
        assert_eq!(reset_fields_of_custom(false, ""), [""; 0]);
    }
}
