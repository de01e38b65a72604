//! What to do about a claim or a volume. Pure; the order of the questions is upstream's (`pv_controller.go`).

use super::migration;
use crate::recorder::Severity;
use machinery::binding::{Claim, NO_PROVISIONER, Volume, best_for_binder};
use machinery::goformat::go_quote;

/// Something to be said about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// How grave it is.
    pub severity: Severity,
    pub reason: &'static str,
    pub message: String,
}

fn word(severity: Severity, reason: &'static str, message: impl Into<String>) -> Word {
    Word { severity, reason, message: message.into() }
}

/// A StorageClass as the binder sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Class {
    /// `metadata.name`.
    pub name: String,
    pub provisioner: String,
    /// It binds when the first pod is scheduled.
    pub late: bool,
    /// It is marked as the default.
    pub default: bool,
    /// Creation, in nanoseconds since the epoch.
    pub created: i128,
}

/// What to do about a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ForClaim {
    /// Bind it to this volume, or finish a binding.
    Bind(String),
    /// It has no volume; the word is said each time.
    Pending(Option<Word>),
    /// Its volume is gone for good; the word is said once.
    Lost(Word),
    /// Give it this class.
    Assign(String),
    /// Ask this provisioner for a volume; the word is said each time.
    Provision(String, Word),
    /// Only this is to be said.
    Say(Word),
}

/// What the binder knows beside a claim.
pub(crate) struct Around<'a> {
    /// Every volume, in order of name.
    pub volumes: &'a [&'a Volume],
    pub classes: &'a [Class],
    /// Pods that name the claim and have no node yet, in order of name.
    pub waiting: &'a [String],
    /// Whether provisioners are asked at all.
    pub provisions: bool,
}

impl Around<'_> {
    fn class(&self, name: &str) -> Option<&Class> {
        self.classes.iter().find(|c| c.name == name)
    }

    /// The newest of the default classes, the first by name among equally old ones.
    fn default_class(&self) -> Option<&Class> {
        let order = |a: &&Class, b: &&Class| b.created.cmp(&a.created).then_with(|| a.name.cmp(&b.name));
        self.classes.iter().filter(|c| c.default).min_by(order)
    }
}

/// What to do about a claim.
#[must_use]
pub(crate) fn for_claim(claim: &Claim, around: &Around<'_>) -> ForClaim {
    if claim.completed { completed(claim, around) } else { incomplete(claim, around) }
}

fn completed(claim: &Claim, around: &Around<'_>) -> ForClaim {
    let lost = |reason, message: &str| ForClaim::Lost(word(Severity::Warning, reason, message));
    if claim.volume.is_empty() {
        return lost(
            "ClaimLost",
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
        );
    }
    let Some(volume) = around.volumes.iter().find(|v| v.name == claim.volume) else {
        return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    };
    match &volume.claim {
        Some(holder) if holder.uid != claim.uid => {
            lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
        }
        _ => ForClaim::Bind(volume.name.clone()),
    }
}

fn incomplete(claim: &Claim, around: &Around<'_>) -> ForClaim {
    if claim.volume.is_empty() {
        return unnamed(claim, around);
    }
    let Some(volume) = around.volumes.iter().find(|v| v.name == claim.volume) else {
        return ForClaim::Pending(None);
    };
    if volume.claim.is_none() {
        return match volume.satisfies(claim) {
            Ok(()) => ForClaim::Bind(volume.name.clone()),
            Err(why) => {
                let text = format!("Cannot bind to requested volume {}: {why}", go_quote(&volume.name));
                ForClaim::Pending(Some(word(Severity::Warning, "VolumeMismatch", text)))
            }
        };
    }
    if volume.is_of(claim) {
        return ForClaim::Bind(volume.name.clone());
    }
    let text = format!("volume {} already bound to a different claim.", go_quote(&volume.name));
    ForClaim::Pending(Some(word(Severity::Warning, "FailedBinding", text)))
}

/// A claim that does not say which volume it wants.
fn unnamed(claim: &Claim, around: &Around<'_>) -> ForClaim {
    let class = around.class(claim.class());
    let late = class.is_some_and(|c| c.late);
    if let Some(volume) = best_for_binder(claim, around.volumes, late) {
        return ForClaim::Bind(volume.name.clone());
    }
    if claim.class.is_none()
        && let Some(default) = around.default_class()
    {
        return ForClaim::Assign(default.name.clone());
    }
    if late && claim.node.is_none() {
        return ForClaim::Pending(Some(waits_for_a_pod(around.waiting)));
    }
    if claim.class().is_empty() {
        let text = "no persistent volumes available for this claim and no storage class is set";
        return ForClaim::Pending(Some(word(Severity::Normal, "FailedBinding", text)));
    }
    if !around.provisions {
        return ForClaim::Pending(None);
    }
    let failed = |text: String| ForClaim::Say(word(Severity::Warning, "ProvisioningFailed", text));
    let Some(class) = class else {
        return failed(format!("storageclass.storage.k8s.io {} not found", go_quote(claim.class())));
    };
    let provisioner = match migration::driver_of(&class.provisioner) {
        Some(driver) => driver,
        None if class.provisioner == NO_PROVISIONER || class.provisioner.starts_with("kubernetes.io/") => {
            return failed(format!("no volume plugin matched name: {}", class.provisioner));
        }
        None => class.provisioner.as_str(),
    };
    let text = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system \
         administrator. If volume creation is delayed, please verify that the provisioner is running and correctly \
         registered."
    );
    ForClaim::Provision(provisioner.to_owned(), word(Severity::Normal, "ExternalProvisioning", text))
}

fn waits_for_a_pod(waiting: &[String]) -> Word {
    let (reason, text) = match waiting {
        [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
        [pod] => ("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
        pods => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", pods.join(","))),
    };
    word(Severity::Normal, reason, text)
}

/// What to do about a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ForVolume {
    /// It has this phase.
    Phase(&'static str),
    /// Its claim is gone: do as its policy says.
    Reclaim,
    /// Its claim is to be looked at.
    Wake,
    /// The claim wants another kind of volume: said about the volume, and about the claim.
    Mismatch(Word, Word),
    /// Its claim has another volume: it is free again.
    Unbind,
}

/// What to do about a volume. `claim` is the claim of the name it is bound to, as the API server has it; `provisioned`: it was made for its claim
/// and is to be deleted with it.
#[must_use]
pub(crate) fn for_volume(volume: &Volume, claim: Option<&Claim>, provisioned: bool) -> ForVolume {
    let Some(holder) = volume.claim.as_ref().filter(|holder| !holder.uid.is_empty()) else {
        return ForVolume::Phase("Available");
    };
    let Some(claim) = claim.filter(|claim| claim.uid == holder.uid) else { return ForVolume::Reclaim };
    if claim.volume == volume.name {
        return ForVolume::Phase("Bound");
    }
    if claim.volume.is_empty() {
        if claim.block == volume.block {
            return ForVolume::Wake;
        }
        let mismatch = |text| word(Severity::Warning, "VolumeMismatch", text);
        return ForVolume::Mismatch(
            mismatch(format!(
                "Cannot bind PersistentVolume to requested PersistentVolumeClaim {} due to incompatible volumeMode.",
                go_quote(&claim.name)
            )),
            mismatch(format!(
                "Cannot bind PersistentVolume {} to requested PersistentVolumeClaim due to incompatible volumeMode.",
                go_quote(&volume.name)
            )),
        );
    }
    if provisioned { ForVolume::Reclaim } else { ForVolume::Unbind }
}

#[cfg(test)]
mod tests;
