//! What is kept from pods, and in which cgroups (`enforceNodeAllocatable`).

use super::{Config, Error};

/// Pods are limited to what is allocatable.
const PODS: &str = "pods";
/// Nothing is limited.
const NONE: &str = "none";

/// As messages name the field.
const FLAG: &str = "enforceNodeAllocatable (--enforce-node-allocatable)";

/// What of the reservations is enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enforcement {
    pub(super) wanted: Vec<String>,
    /// `kubeReservedCgroup`
    pub(super) kube: String,
    /// `systemReservedCgroup`
    pub(super) system: String,
}

impl Default for Enforcement {
    fn default() -> Self {
        Self { wanted: vec![PODS.to_owned()], kube: String::new(), system: String::new() }
    }
}

/// A cgroup that others made, limited to what is reserved for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reserved {
    /// `Kube` or `System`, as messages have it.
    pub(crate) title: &'static str,
    pub(crate) cgroup: String,
    /// Only processor time is limited, not memory and process ids.
    pub(crate) compressible: bool,
}

/// Each kind of enforcement: its word, whose cgroup it is, whether it is of compressible resources only.
const KINDS: [(&str, bool, bool); 4] = [
    ("system-reserved", false, false),
    ("kube-reserved", true, false),
    ("system-reserved-compressible", false, true),
    ("kube-reserved-compressible", true, true),
];

impl Enforcement {
    /// Pods are limited to what is allocatable, not only to what there is.
    pub(crate) fn limits_pods(&self) -> bool {
        self.wanted.iter().any(|word| word == PODS)
    }

    /// As configured.
    pub(crate) fn wanted(&self) -> &[String] {
        &self.wanted
    }

    /// The cgroups of reserved resources, in the order in which they are limited.
    pub(crate) fn reserved(&self) -> Vec<Reserved> {
        let kinds = KINDS.iter().filter(|(word, ..)| self.wanted.iter().any(|wanted| wanted == word));
        let of = |&(_, kube, compressible): &(&str, bool, bool)| Reserved {
            title: if kube { "Kube" } else { "System" },
            cgroup: if kube { self.kube.clone() } else { self.system.clone() },
            compressible,
        };
        kinds.map(of).collect()
    }
}

/// What upstream refuses.
pub(super) fn check(config: &Config) -> Result<(), Error> {
    let refused = |words: String| Err(Error::Bounds(words));
    let Enforcement { wanted, kube, system } = &config.enforcement;
    for owner in ["system-reserved", "kube-reserved"] {
        let both = format!("{owner}-compressible");
        if wanted.iter().any(|w| w == owner) && wanted.contains(&both) {
            return refused(format!("both {both:?} and {owner:?} cannot be specified together in {FLAG}"));
        }
    }
    for (index, word) in wanted.iter().enumerate() {
        if wanted[..index].contains(word) {
            return refused(format!("duplicated enforcements {word:?} in {FLAG}"));
        }
        match (word.as_str(), KINDS.iter().find(|(known, ..)| known == word)) {
            (NONE, _) if wanted.len() > 1 => {
                return refused(format!(
                    "{FLAG} may not contain additional enforcements when {NONE:?} is specified"
                ));
            }
            (NONE, _) => continue,
            (PODS, _) => {}
            (_, Some((_, is_kube, _))) => {
                let (cgroup, field, flag, title) = match is_kube {
                    true => (kube, "kubeReservedCgroup", "kube-reserved-cgroup", "kube-reserved"),
                    false => (system, "systemReservedCgroup", "system-reserved-cgroup", "system-reserved"),
                };
                if cgroup.is_empty() {
                    return refused(format!(
                        "{field} (--{flag}) must be specified when {title:?} or \"{title}-compressible\" included in {FLAG}"
                    ));
                }
            }
            _ => {
                return refused(format!(
                    "option {word:?} specified for {FLAG}. Valid options are \"pods\", \"system-reserved\", \
                     \"system-reserved-compressible\", \"kube-reserved\", \"kube-reserved-compressible\" or \"none\""
                ));
            }
        }
        if !config.cgroups_per_qos {
            return refused(format!(
                "cgroupsPerQOS (--cgroups-per-qos) must be set to true when {word:?} contained in {FLAG}"
            ));
        }
    }
    let groups = !kube.is_empty() || !system.is_empty();
    if groups && !config.host.reserved_cpus.is_empty() {
        return refused(
            "can't use reservedSystemCPUs (--reserved-cpus) with systemReservedCgroup (--system-reserved-cgroup) or kubeReservedCgroup (--kube-reserved-cgroup)"
                .to_owned(),
        );
    }
    Ok(())
}
