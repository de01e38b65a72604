//! The systemd driver: cgroups as slices, which systemd makes when asked over D-Bus. Upstream: `opencontainers/cgroups/systemd`, as its kubelet uses it.
//!
//! A slice is a transient unit without processes; its limits are the unit's properties, too, so that systemd does not put its own in their place when it
//! reloads. The files are written all the same: systemd has no property for huge pages, and does not realize a slice before something runs in it.
//! `cgroups-rs` is not used: its client starts no unit without processes, and knows neither v2's root nor removal of what others left inside.

#[cfg(test)]
pub(crate) mod fake;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::Error;
use super::limits::Limits;
use super::tree::weight;
use crate::config::host::cpus;
use crate::dbus::message::Message;
use crate::dbus::wire::Value;
use crate::dbus::{self, Connection, Signal};
use crate::pod::spec::resources::shares;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// Another job of the same name takes the place of one that waits.
const MODE: &str = "replace";
/// How long systemd may take for a slice.
const PATIENCE: Duration = Duration::from_secs(30);
/// The ends of all jobs.
const JOBS: Signal = Signal { sender: SYSTEMD, path: PATH, interface: MANAGER, member: "JobRemoved" };
/// Quotas are whole percents of a processor: microseconds a second.
const QUOTA_STEP: i64 = 10_000;

/// `kubepods-burstable-pod1_2.slice`: a slice's name holds its parents', so dashes inside a name become underscores.
pub fn slice(names: &[String]) -> String {
    if names.is_empty() {
        return "-.slice".to_owned();
    }
    let parts: Vec<String> = names.iter().map(|name| name.replace('-', "_")).collect();
    format!("{}.slice", parts.join("-"))
}

/// Where systemd puts that slice: each ancestor slice is a directory.
pub fn path(names: &[String]) -> PathBuf {
    (1..=names.len()).map(|depth| slice(&names[..depth])).collect()
}

/// The names of a slice that is configured (`/system.slice`). Upstream: `ParseSystemdToCgroupName`.
pub fn names(configured: &str) -> Vec<String> {
    let base = configured.rsplit('/').next().unwrap_or_default();
    let name = base.strip_suffix(".slice").unwrap_or(base);
    name.split('-').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// A quota as systemd can have it, rounded up; and its period.
pub fn rounded((quota, period): (i64, i64)) -> (i64, i64) {
    match (quota, period) {
        (1.., 1..) => (per_second(quota, period).saturating_mul(period) / 1_000_000, period),
        other => other,
    }
}

/// Microseconds a second of a quota, in whole percents of a processor.
fn per_second(quota: i64, period: i64) -> i64 {
    let exact = quota.saturating_mul(1_000_000) / period;
    exact.saturating_add(QUOTA_STEP - 1) / QUOTA_STEP * QUOTA_STEP
}

type Property = (&'static str, Value);

/// Limits as a unit's properties.
fn properties(limits: &Limits, unified: bool) -> Vec<Property> {
    let amount = |value: i64| Value::U64(u64::try_from(value).unwrap_or(u64::MAX));
    let named = |v2: &'static str, v1: &'static str| if unified { v2 } else { v1 };
    let mut out = Vec::new();
    if let Some(milli) = limits.cpu_milli {
        let shares = shares(milli);
        out.push((named("CPUWeight", "CPUShares"), amount(if unified { weight(shares) } else { shares })));
    }
    if let Some((quota @ 1.., period @ 1..)) = limits.cpu_quota {
        // Its own period needs no word.
        if period != 100_000 {
            out.push(("CPUQuotaPeriodUSec", amount(period)));
        }
        out.push(("CPUQuotaPerSecUSec", amount(per_second(quota, period))));
    }
    let cpus = limits.cpus.as_deref().and_then(|list| cpus(list).ok()).filter(|cpus| !cpus.is_empty());
    out.extend(cpus.map(|cpus| ("AllowedCPUs", mask(&cpus))));
    out.extend(limits.memory.map(|bytes| (named("MemoryMax", "MemoryLimit"), amount(bytes))));
    // It takes no zero.
    out.extend(limits.pids.map(|count| ("TasksMax", amount(count.max(1)))));
    out
}

/// Processors as the bits of bytes, the first one's the lowest of the first byte.
fn mask(cpus: &BTreeSet<u32>) -> Value {
    let mut bytes = Vec::new();
    for (byte, bit) in cpus.iter().filter_map(|cpu| Some((usize::try_from(cpu / 8).ok()?, cpu % 8))) {
        bytes.resize(bytes.len().max(byte + 1), 0_u8);
        bytes[byte] |= 1_u8 << bit;
    }
    Value::Array("y".to_owned(), bytes.into_iter().map(Value::Byte).collect())
}

/// Properties that older ones do not know, and since when they are known. One that is unknown has all others refused.
const YOUNG: [(&str, u32); 2] = [("CPUQuotaPeriodUSec", 242), ("AllowedCPUs", 244)];

/// Since when a property is known, if that is of interest.
fn known_since(property: &Property) -> Option<u32> {
    YOUNG.iter().find(|(name, _)| *name == property.0).map(|(_, since)| *since)
}

/// The number of a version (`v252.22-1~deb12u1`); zero where it has none.
fn number(version: &str) -> u32 {
    let digits = version.trim_start_matches(['"', 'v']).split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// What a slice is when it is started.
fn unit(slice: &str, parent: &str, unified: bool) -> Vec<Property> {
    let io = if unified { "IOAccounting" } else { "BlockIOAccounting" };
    let accounts = ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"];
    let mut out = vec![
        ("Description", Value::Text(format!("cgroup of pods {slice}"))),
        ("Wants", Value::texts([parent])),
        ("DefaultDependencies", Value::Bool(false)),
    ];
    out.extend(accounts.map(|name| (name, Value::Bool(true))));
    out
}

fn list(properties: Vec<Property>) -> Value {
    let one =
        |(name, value): Property| Value::Struct(vec![Value::text(name), Value::Variant(Box::new(value))]);
    Value::Array("(sv)".to_owned(), properties.into_iter().map(one).collect())
}

fn call(method: &str, body: Vec<Value>) -> Message {
    Message::call(SYSTEMD, PATH, MANAGER, method, body)
}

/// systemd, and what it was told. Its methods block.
#[derive(Debug)]
pub struct Systemd {
    bus: PathBuf,
    /// Limits of the slices that were made.
    told: Mutex<BTreeMap<String, Limits>>,
    /// The bus takes so many connections of one user.
    turns: tokio::sync::Semaphore,
}

/// Connections to the bus at once.
const CONNECTIONS: usize = 8;

impl Systemd {
    /// The systemd that is asked over the bus at `bus`.
    pub fn new(bus: &Path) -> Self {
        Self {
            bus: bus.to_owned(),
            told: Mutex::default(),
            turns: tokio::sync::Semaphore::const_new(CONNECTIONS),
        }
    }

    /// Starts a slice below its parent's unless it is there, and gives it its limits. `here`: its cgroup is the one of which it was told.
    pub fn ensure(&self, names: &[String], limits: &Limits, unified: bool, here: bool) -> Result<(), Error> {
        let parent = slice(names.get(..names.len().saturating_sub(1)).unwrap_or_default());
        let slice = slice(names);
        if here && self.told.lock().get(&slice) == Some(limits) {
            return Ok(());
        }
        let start = Some(unit(&slice, &parent, unified));
        self.run(&slice, bring(&self.bus, &slice, start, properties(limits, unified)))?;
        self.told.lock().insert(slice, limits.clone());
        Ok(())
    }

    /// Gives a slice of others its limits.
    pub fn limit(&self, names: &[String], limits: &Limits, unified: bool) -> Result<(), Error> {
        let slice = slice(names);
        self.run(&slice, bring(&self.bus, &slice, None, properties(limits, unified)))
    }

    /// Stops a slice, with all that is in it; fine where there is none.
    pub fn stop(&self, names: &[String]) -> Result<(), Error> {
        self.forget(names);
        let slice = slice(names);
        self.run(&slice, stop(&self.bus, &slice))
    }

    #[cfg(test)]
    pub fn told_nothing(&self) -> bool {
        self.told.lock().is_empty()
    }

    /// Forgets what was told of a slice.
    pub fn forget(&self, names: &[String]) {
        self.told.lock().remove(&slice(names));
    }

    fn run(&self, slice: &str, work: impl Future<Output = Result<(), dbus::Error>>) -> Result<(), Error> {
        let failed = |reason: String| Error::Systemd { slice: slice.to_owned(), reason };
        let runtime = Handle::try_current().map_err(|error| failed(error.to_string()))?;
        let late = || failed(format!("no end of it within {PATIENCE:?}"));
        let work = async {
            let _turn = self.turns.acquire().await;
            work.await
        };
        let done = runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await });
        done.map_err(|_| late())?.map_err(|error| failed(error.to_string()))
    }
}

async fn bring(
    bus: &Path,
    slice: &str,
    start: Option<Vec<Property>>,
    limits: Vec<Property>,
) -> Result<(), dbus::Error> {
    let mut bus = Connection::open(bus).await?;
    if let Some(unit) = start {
        let aux = Value::Array("(sa(sv))".to_owned(), Vec::new());
        let body = vec![Value::text(slice), Value::text(MODE), list(unit), aux];
        match job(&mut bus, call("StartTransientUnit", body)).await {
            Err(error) if error.name() == Some(EXISTS) => {}
            Err(error) => {
                reset(&mut bus, slice).await;
                return Err(error);
            }
            Ok(()) => {}
        }
    }
    let mut limits = limits;
    if limits.iter().any(|property| known_since(property).is_some()) {
        let version = bus.property(SYSTEMD, PATH, MANAGER, "Version").await?;
        let version = number(version.as_text().unwrap_or_default());
        limits.retain(|property| known_since(property).is_none_or(|since| since <= version));
    }
    if !limits.is_empty() {
        // For as long as the machine runs: the next kubelet says it again.
        let body = vec![Value::text(slice), Value::Bool(true), list(limits)];
        bus.call(call("SetUnitProperties", body)).await?;
    }
    Ok(())
}

async fn stop(bus: &Path, slice: &str) -> Result<(), dbus::Error> {
    let mut bus = Connection::open(bus).await?;
    let stopped = job(&mut bus, call("StopUnit", vec![Value::text(slice), Value::text(MODE)])).await;
    reset(&mut bus, slice).await;
    match stopped {
        Err(error) if error.name() == Some(NO_UNIT) => Ok(()),
        other => other,
    }
}

/// A failed unit stays until it is reset; one that did not fail cannot be.
async fn reset(bus: &mut Connection, slice: &str) {
    if let Err(error) = bus.call(call("ResetFailedUnit", vec![Value::text(slice)])).await {
        tracing::trace!(%error, slice, "nothing to reset");
    }
}

/// Calls what makes a job of it, and waits for the job's end.
async fn job(bus: &mut Connection, call: Message) -> Result<(), dbus::Error> {
    let member = call.member.clone();
    // Before the call: the job may be done before its answer is here.
    bus.listen(&JOBS).await?;
    let answer = bus.call(call).await?;
    let Some(Value::Path(own)) = answer.body.into_iter().next() else {
        return Err(dbus::Error::Unexpected("a job's path"));
    };
    loop {
        let signal = bus.signal(&JOBS).await?;
        let [_, Value::Path(job), _, Value::Text(result)] = signal.body.as_slice() else { continue };
        if *job != own {
            continue;
        }
        return match result.as_str() {
            "done" => Ok(()),
            other => Err(dbus::Error::Failed {
                member,
                name: other.to_owned(),
                text: "the job did not succeed".to_owned(),
            }),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::fake::{Jobs, set, systemd, systemd_of};
    use super::*;
    use std::sync::Arc;

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn slices_hold_their_parents_names() {
        let pod = owned(&["kubepods", "burstable", "pod1-2"]);
        assert_eq!(slice(&pod), "kubepods-burstable-pod1_2.slice");
        assert_eq!(
            path(&pod).to_string_lossy(),
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"
        );
        assert_eq!(names("/system.slice"), ["system"]);
        assert_eq!(names("/a.slice/a-b.slice"), ["a", "b"]);
    }

    #[test]
    fn limits_are_properties_so_that_a_reload_must_not_undo_them() {
        let limits = Limits {
            cpu_milli: Some(1000),
            cpu_quota: Some((12_345, 100_000)),
            memory: Some(1 << 20),
            pids: Some(0),
            ..Limits::default()
        };
        let number = Value::U64;
        let quota = [("CPUQuotaPerSecUSec", number(130_000))];
        let both = |cpu, memory: &'static str| {
            let mut want = vec![cpu];
            want.extend(quota.clone());
            want.extend([(memory, number(1 << 20)), ("TasksMax", number(1))]);
            want
        };
        assert_eq!(properties(&limits, true), both(("CPUWeight", number(39)), "MemoryMax"));
        assert_eq!(properties(&limits, false), both(("CPUShares", number(1024)), "MemoryLimit"));
        assert!(properties(&Limits::default(), true).is_empty());
        let other = Limits { cpu_quota: Some((12_500, 50_000)), ..Limits::default() };
        let of_its_own = [("CPUQuotaPeriodUSec", number(50_000)), ("CPUQuotaPerSecUSec", number(250_000))];
        assert_eq!(properties(&other, true), of_its_own);
        assert_eq!(rounded((12_345, 100_000)), (13_000, 100_000), "what the file says is what the unit says");
        assert_eq!(rounded((50_000, 100_000)), (50_000, 100_000));
        assert_eq!(rounded((-1, 100_000)), (-1, 100_000));
    }

    #[test]
    fn processors_are_bits_of_bytes() {
        let of = |list: &str| {
            let limits = Limits { cpus: Some(list.to_owned()), ..Limits::default() };
            properties(&limits, true)
        };
        let bytes = |bytes: &[u8]| {
            let bytes = bytes.iter().copied().map(Value::Byte).collect();
            vec![("AllowedCPUs", Value::Array("y".to_owned(), bytes))]
        };
        assert_eq!(of("0-3"), bytes(&[0b1111]));
        assert_eq!(of("1,9-10"), bytes(&[0b10, 0b110]));
        assert!(of("").is_empty() && of("x").is_empty(), "systemd takes no empty mask");
        for (text, want) in [("252.22-1~deb12u1", 252), ("v245", 245), ("\"v249.4-1.fc35\"", 249), ("x", 0)] {
            assert_eq!(number(text), want, "{text}");
        }
    }

    #[tokio::test]
    async fn a_property_that_systemd_does_not_know_yet_must_not_have_the_others_refused() {
        for (version, want) in [("243", vec!["TasksMax"]), ("244.1", vec!["AllowedCPUs", "TasksMax"])] {
            let bus = systemd_of(Jobs::Succeed, version);
            let driver = Systemd::new(bus.path());
            let limits = Limits { cpus: Some("0-1".into()), pids: Some(5), ..Limits::default() };
            blocking(move || driver.limit(&owned(&["system"]), &limits, true)).await.unwrap();
            let told = set(&bus.calls("SetUnitProperties").remove(0));
            let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, want, "{version}");
        }
    }

    async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        tokio::task::spawn_blocking(work).await.unwrap()
    }

    #[tokio::test]
    async fn a_slice_is_started_once_and_told_its_limits_when_they_change() {
        let bus = systemd(Jobs::Succeed);
        let driver = Arc::new(Systemd::new(bus.path()));
        let ensure = |pids: i64, here: bool| {
            let driver = Arc::clone(&driver);
            let limits = Limits { pids: Some(pids), ..Limits::default() };
            blocking(move || driver.ensure(&owned(&["kubepods", "podx"]), &limits, true, here))
        };
        ensure(5, false).await.unwrap();
        ensure(5, true).await.unwrap();
        let called = ["Hello", "AddMatch", "StartTransientUnit", "GetNameOwner", "SetUnitProperties"];
        assert_eq!(bus.members(), called);
        let started = bus.calls("StartTransientUnit").remove(0).body;
        assert_eq!(started[..2], [Value::text("kubepods-podx.slice"), Value::text("replace")]);
        let Value::Array(_, properties) = &started[2] else { panic!("{started:?}") };
        let wants = Value::Struct(vec![
            Value::text("Wants"),
            Value::Variant(Box::new(Value::texts(["kubepods.slice"]))),
        ]);
        assert!(properties.contains(&wants));
        ensure(6, true).await.unwrap();
        assert_eq!(bus.calls("SetUnitProperties").len(), 2);
        // somebody else removed it
        ensure(6, false).await.unwrap();
        assert_eq!(bus.calls("SetUnitProperties").len(), 3);
    }

    #[tokio::test]
    async fn a_slice_that_is_there_or_is_gone_must_not_be_an_error() {
        let exists = systemd(Jobs::Exists);
        let driver = Systemd::new(exists.path());
        let limits = Limits { memory: Some(1), ..Limits::default() };
        blocking(move || driver.ensure(&owned(&["kubepods"]), &limits, true, true)).await.unwrap();
        assert_eq!(
            exists.calls("SetUnitProperties").len(),
            1,
            "one that is there gets its limits all the same"
        );
        let none = systemd(Jobs::None);
        let driver = Systemd::new(none.path());
        blocking(move || driver.stop(&owned(&["kubepods", "podx"]))).await.unwrap();
    }

    #[tokio::test]
    async fn a_stranger_must_not_say_how_a_job_ended() {
        let bus = systemd(Jobs::FailBehindAStranger);
        let driver = Systemd::new(bus.path());
        let failed = blocking(move || driver.ensure(&owned(&["kubepods"]), &Limits::default(), true, false));
        assert!(failed.await.is_err());
    }

    #[tokio::test]
    async fn a_job_that_failed_must_not_be_taken_for_a_slice() {
        let bus = systemd(Jobs::Fail);
        let driver = Systemd::new(bus.path());
        let failed = blocking(move || driver.ensure(&owned(&["kubepods"]), &Limits::default(), true, false));
        let error = failed.await.unwrap_err().to_string();
        assert!(
            error.contains("systemd slice kubepods.slice: StartTransientUnit") && error.contains("failed")
        );
        assert_eq!(bus.calls("ResetFailedUnit").len(), 1);
    }
}
