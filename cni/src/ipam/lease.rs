//! What a lease file says.

use crate::call::Owner;

/// Who holds an address, and since which boot of the machine.
///
/// The first two lines are upstream host-local's. The third is ours: a network namespace does not outlive a boot,
/// so neither does a lease, even if nobody was there to release it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) container: String,
    /// Absent in files of very old versions of upstream.
    pub(crate) interface: Option<String>,
    /// Absent in upstream's files.
    pub(crate) boot: Option<String>,
}

impl Lease {
    pub(crate) fn new(owner: &Owner, boot: &str) -> Self {
        Self {
            container: owner.container.clone(),
            interface: Some(owner.interface.clone()),
            boot: Some(boot.to_owned()),
        }
    }

    /// `None` for an empty file: a power cut took its content, and with it the boot it belonged to; or upstream
    /// was killed between creating and writing it.
    pub(crate) fn parse(content: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(content);
        let mut lines = text.split('\n').map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned);
        Some(Self { container: lines.next()?, interface: lines.next(), boot: lines.next() })
    }

    pub(crate) fn render(&self) -> String {
        let lines = [Some(&self.container), self.interface.as_ref(), self.boot.as_ref()];
        lines.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join("\r\n")
    }

    pub(crate) fn is_held_by(&self, owner: &Owner) -> bool {
        self.container == owner.container
            && self.interface.as_ref().is_none_or(|interface| *interface == owner.interface)
    }

    pub(crate) fn is_of_another_boot(&self, boot: &str) -> bool {
        self.boot.as_ref().is_some_and(|own| own != boot)
    }
}
