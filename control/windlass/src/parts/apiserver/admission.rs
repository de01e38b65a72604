//! Upstream's admission plugins, as `--enable-admission-plugins` and `--disable-admission-plugins` name them, and what they are told
//! ([`configuration`], [`credentials`]).

mod configuration;
mod credentials;

pub(crate) use configuration::Configured;

use crate::flags::Flags;
use anyhow::bail;

/// Each plugin of upstream's, and whether it is here: those that are always work.
const PLUGINS: [(&str, bool); 41] = [
    ("AlwaysAdmit", false),
    ("AlwaysDeny", false),
    ("AlwaysPullImages", false),
    ("CertificateApproval", true),
    ("CertificateSigning", true),
    ("CertificateSubjectRestriction", true),
    ("ClusterTrustBundleAttest", false),
    ("DefaultIngressClass", true),
    ("DefaultStorageClass", true),
    ("DefaultTolerationSeconds", true),
    ("DenyServiceExternalIPs", false),
    ("EventRateLimit", false),
    ("ExtendedResourceToleration", false),
    ("ImagePolicyWebhook", false),
    ("JobValidation", false),
    ("LimitPodHardAntiAffinityTopology", false),
    ("LimitRanger", true),
    ("MutatingAdmissionPolicy", true),
    ("MutatingAdmissionWebhook", true),
    ("NamespaceAutoProvision", false),
    ("NamespaceExists", false),
    ("NamespaceLifecycle", true),
    ("NodeDeclaredFeatureValidator", false),
    ("NodeRestriction", true),
    ("OwnerReferencesPermissionEnforcement", false),
    ("PersistentVolumeClaimResize", true),
    ("PodGroupProtection", false),
    ("PodGroupWorkloadExists", false),
    ("PodNodeSelector", false),
    ("PodResizeValidator", true),
    ("PodSecurity", true),
    ("PodTolerationRestriction", false),
    ("PodTopologyLabels", true),
    ("Priority", true),
    ("ResourceQuota", true),
    ("RuntimeClass", true),
    ("ServiceAccount", true),
    ("StorageObjectInUseProtection", true),
    ("TaintNodesByCondition", true),
    ("ValidatingAdmissionPolicy", true),
    ("ValidatingAdmissionWebhook", true),
];

/// Warns of what is wanted and not done; an unknown plugin is refused by name.
pub(super) fn check(flags: &Flags) -> anyhow::Result<()> {
    for (flag, wanted) in [("enable-admission-plugins", true), ("disable-admission-plugins", false)] {
        for name in flags.list(flag).unwrap_or_default() {
            let Some((_, here)) = PLUGINS.iter().find(|(known, _)| known == name) else {
                bail!("{flag} plugin {name:?} is unknown");
            };
            if *here != wanted {
                tracing::warn!("--{flag}={name} has no effect here");
            }
        }
    }
    Ok(())
}
