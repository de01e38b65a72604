//! What the kernel says about the machine. Everything is read again each time: CPUs and memory come and go.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Facts of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub cpus: u64,
    /// Memory in bytes.
    pub memory: u64,
    /// Swap in bytes.
    pub swap: u64,
    /// Bytes of the filesystem that holds the kubelet's root; `None` when it cannot be asked.
    pub storage: Option<u64>,
    /// How many processes and threads it takes; `None` when it does not say.
    pub pids: Option<u64>,
    /// Reserved huge pages: page size in bytes to bytes reserved.
    pub huge_pages: BTreeMap<u64, u64>,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// The firmware's UUID, or the machine id where there is none.
    pub system_uuid: String,
    /// Changes with every boot.
    pub boot_id: String,
    pub kernel: String,
    /// `PRETTY_NAME` of os-release.
    pub os_image: String,
}

/// A folder for each size of huge pages.
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";
/// The machine id lives at one of these.
const MACHINE_ID: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
/// The firmware's UUID lives at one of these.
const SYSTEM_UUID: [&str; 4] = [
    "/sys/class/dmi/id/product_uuid",
    "/proc/device-tree/system-id",
    "/proc/device-tree/vm,uuid",
    "/etc/machine-id",
];

/// Reads the machine. What cannot be read is left empty; the caller reports what is missing.
#[must_use]
pub fn read(root_dir: &Path) -> Machine {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Machine {
        cpus: cpus(),
        memory: kibibytes(&meminfo, "MemTotal:").unwrap_or(0),
        swap: kibibytes(&meminfo, "SwapTotal:").unwrap_or(0),
        storage: storage(root_dir),
        pids: most_pids(),
        huge_pages: huge_pages(Path::new(HUGE_PAGES)),
        machine_id: first_line(&MACHINE_ID),
        system_uuid: first_line(&SYSTEM_UUID),
        boot_id: first_line(&["/proc/sys/kernel/random/boot_id"]),
        kernel: first_line(&["/proc/sys/kernel/osrelease"]),
        os_image: fs::read_to_string("/etc/os-release")
            .ok()
            .and_then(|t| pretty_name(&t))
            .unwrap_or("Linux".into()),
    }
}

/// `GOARCH` of this build.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn cpus() -> u64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN)
        .ok()
        .flatten()
        .and_then(|n| u64::try_from(n).ok())
        .unwrap_or(0)
}

/// Most process ids: the smaller of the kernel's two limits. Upstream: `pidlimit.Stats`.
pub(crate) fn most_pids() -> Option<u64> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"].into_iter().filter_map(number).min()
}

/// Threads there are, of `/proc/loadavg`: `total` of its fourth column, `runnable/total`.
pub(crate) fn threads(loadavg: &str) -> Option<u64> {
    loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

/// The processors that are on, as the kernel lists them (`0-3,8`); empty where it does not say.
pub(crate) fn online() -> String {
    first_line(&["/sys/devices/system/cpu/online"])
}

fn storage(root_dir: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(root_dir).ok()?;
    #[allow(clippy::useless_conversion, reason = "the types differ between architectures")]
    let (blocks, size) = (u64::from(stat.blocks()), u64::from(stat.fragment_size()));
    blocks.checked_mul(size)
}

/// A line of `/proc/meminfo`, in bytes.
pub(crate) fn kibibytes(meminfo: &str, field: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The sizes of the machine's huge pages, in bytes.
pub(crate) fn page_sizes() -> Vec<i64> {
    huge_pages(Path::new(HUGE_PAGES)).into_keys().filter_map(|size| i64::try_from(size).ok()).collect()
}

fn huge_pages(dir: &Path) -> BTreeMap<u64, u64> {
    let Ok(entries) = fs::read_dir(dir) else { return BTreeMap::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let size = name
                .strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse::<u64>()
                .ok()?
                .checked_mul(1024)?;
            let count = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
            Some((size, count.trim().parse::<u64>().ok()?.checked_mul(size)?))
        })
        .collect()
}

/// Content of the first file that is there and not empty; empty without one.
pub(crate) fn first_line<P: AsRef<Path>>(paths: &[P]) -> String {
    let read = |path: &P| fs::read_to_string(path).ok();
    let clean = |text: String| text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned();
    paths.iter().filter_map(read).map(clean).find(|text| !text.is_empty()).unwrap_or_default()
}

fn pretty_name(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    let value = value.trim().trim_matches(|c| c == '"' || c == '\'');
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_kernel_are_read() {
        let text = "MemTotal:       16393244 kB\nMemFree: 1 kB\nSwapTotal:             0 kB\n";
        assert_eq!(kibibytes(text, "MemTotal:"), Some(16_393_244 * 1024));
        assert_eq!(kibibytes(text, "SwapTotal:"), Some(0));
        assert_eq!(kibibytes("MemTotal: lots", "MemTotal:"), None);
        let release = "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
        assert_eq!(pretty_name(release).as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!(pretty_name("NAME=x"), None);
    }

    #[test]
    fn this_machine_has_what_a_node_needs() {
        let machine = read(Path::new("/"));
        assert!(machine.cpus > 0 && machine.memory > 0 && machine.storage.is_some_and(|s| s > 0));
        assert!(!machine.boot_id.is_empty() && !machine.kernel.is_empty());
    }
}
