//! Upstream's flags of its controllers, to their options. Upstream: `cmd/kube-controller-manager/app/options`.

use crate::flags::Flags;
use anyhow::bail;
use controllers::{Autoscaling, EndpointWrites, LoadBalancing, NodeHealth, Options, Volumes, Workers};
use jiff::SignedDuration;
use std::time::Duration;

/// What the flags say; what they do not say is upstream's default.
pub(super) fn of(flags: &Flags) -> anyhow::Result<Options> {
    cloud(flags)?;
    let mut options = Options {
        workers: workers(flags)?,
        nodes: nodes(flags),
        autoscaling: autoscaling(flags),
        endpoints: endpoints(flags)?,
        volumes: volumes(flags)?,
        load_balancing: LoadBalancing {
            external: flags.text("cloud-provider") == Some("external"),
            pools: Vec::new(),
        },
        ..Options::default()
    };
    for (name, span) in [
        ("controller-start-interval", &mut options.start_interval),
        ("resource-quota-sync-period", &mut options.quota_period),
        ("namespace-sync-period", &mut options.namespace_period),
    ] {
        set(flags.duration(name), span);
    }
    for (name, span) in [
        ("cluster-signing-duration", &mut options.certificate_life),
        ("legacy-service-account-token-clean-up-period", &mut options.unused_tokens),
    ] {
        set(flags.duration(name).and_then(|span| SignedDuration::try_from(span).ok()), span);
    }
    if options.unused_tokens.is_zero() {
        bail!("failed to init the legacy service account token cleaner: invalid CleanUpPeriod: 0s");
    }
    if let Some(threshold) = flags.int("terminated-pod-gc-threshold") {
        options.ended_pods = usize::try_from(threshold).ok().filter(|kept| *kept > 0);
    }
    set(flags.bool("enable-garbage-collector"), &mut options.collects_garbage);
    Ok(options)
}

fn set<T>(given: Option<T>, field: &mut T) {
    if let Some(given) = given {
        *field = given;
    }
}

/// Clouds' controllers are programs of their own; what they would do is refused or said as upstream does.
fn cloud(flags: &Flags) -> anyhow::Result<()> {
    if let Some(name) = flags.text("cloud-provider").filter(|name| *name != "external") {
        bail!(
            "cloud provider {name:?} was specified, but built-in cloud providers are disabled. Please set --cloud-provider=external and migrate to an external cloud provider"
        );
    }
    if let Some(kind) = flags.text("cidr-allocator-type").filter(|kind| *kind != "RangeAllocator") {
        bail!("built-in cloud providers are disabled. The ipam {kind} is not available");
    }
    Ok(())
}

fn workers(flags: &Flags) -> anyhow::Result<Workers> {
    let mut workers = Workers::default();
    for name in Workers::flags() {
        if let Some(number) = flags.int(name) {
            workers.set(name, number)?;
        }
    }
    Ok(workers)
}

fn nodes(flags: &Flags) -> NodeHealth {
    let mut nodes = NodeHealth::default();
    for (name, span) in [
        ("node-monitor-period", &mut nodes.period),
        ("node-monitor-grace-period", &mut nodes.grace),
        ("node-startup-grace-period", &mut nodes.startup),
    ] {
        set(flags.duration(name), span);
    }
    for (name, rate) in [
        ("node-eviction-rate", &mut nodes.rate),
        ("secondary-node-eviction-rate", &mut nodes.slow_rate),
        ("unhealthy-zone-threshold", &mut nodes.unhealthy),
    ] {
        // Upstream reads them as of 32 bits.
        set(flags.float(name).map(|rate| rate as f32), rate);
    }
    set(flags.int("large-cluster-size-threshold"), &mut nodes.large);
    nodes
}

fn autoscaling(flags: &Flags) -> Autoscaling {
    let mut autoscaling = Autoscaling::default();
    for (name, span) in [
        ("sync-period", &mut autoscaling.period),
        ("downscale-stabilization", &mut autoscaling.steady),
        ("cpu-initialization-period", &mut autoscaling.cpu_start),
        ("initial-readiness-delay", &mut autoscaling.first_readiness),
    ] {
        set(flags.duration(&format!("horizontal-pod-autoscaler-{name}")), span);
    }
    set(flags.float("horizontal-pod-autoscaler-tolerance"), &mut autoscaling.tolerance);
    autoscaling
}

fn endpoints(flags: &Flags) -> anyhow::Result<EndpointWrites> {
    let mut endpoints = EndpointWrites::default();
    for (name, most) in [
        ("max-endpoints-per-slice", &mut endpoints.per_slice),
        ("mirroring-max-endpoints-per-subset", &mut endpoints.mirrored),
    ] {
        match flags.int(name) {
            None => {}
            Some(given) if given < 1 => bail!("{name} must not be less than 1, but got {given}"),
            Some(given) if given > 1000 => bail!("{name} must not be more than 1000, but got {given}"),
            Some(given) => *most = usize::try_from(given)?,
        }
    }
    for (name, span) in [
        ("endpointslice-updates-batch-period", &mut endpoints.slices_gather),
        ("endpoint-updates-batch-period", &mut endpoints.endpoints_gather),
        ("mirroring-endpointslice-updates-batch-period", &mut endpoints.mirror_gather),
    ] {
        set(flags.duration(name), span);
    }
    Ok(endpoints)
}

fn volumes(flags: &Flags) -> anyhow::Result<Volumes> {
    let mut volumes = Volumes::default();
    set(flags.duration("pvclaimbinder-sync-period"), &mut volumes.bind_period);
    set(flags.bool("enable-dynamic-provisioning"), &mut volumes.provisions);
    set(flags.bool("disable-force-detach-on-timeout").map(|disabled| !disabled), &mut volumes.force_detach);
    if let Some(period) = flags.duration("attach-detach-reconcile-sync-period") {
        if period < Duration::from_secs(1) {
            bail!(
                "duration time must be greater than one second as set via command line option reconcile-sync-loop-period"
            );
        }
        volumes.attach_period = Some(period);
    }
    if flags.bool("disable-attach-detach-reconcile-sync") == Some(true) {
        volumes.attach_period = None;
    }
    Ok(volumes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;

    fn read(line: &str) -> anyhow::Result<Options> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let flags = Component::named(super::super::NAME).unwrap().table().parse(&arguments)?;
        assert!(flags.unused().is_empty(), "{line}: it says that it has no effect");
        of(&flags)
    }

    #[test]
    fn every_flag_sets_its_option_and_no_other() {
        let default = read("").unwrap();
        assert_eq!(default, Options::default());
        type Change = fn(&mut Options);
        let second = Duration::from_secs;
        let flags: [(&str, Change); 30] = [
            ("--controller-start-interval=2s", |o| o.start_interval = Duration::from_secs(2)),
            ("--resource-quota-sync-period=2s", |o| o.quota_period = Duration::from_secs(2)),
            ("--namespace-sync-period=2s", |o| o.namespace_period = Duration::from_secs(2)),
            ("--cluster-signing-duration=2h", |o| o.certificate_life = SignedDuration::from_hours(2)),
            ("--legacy-service-account-token-clean-up-period=48h", |o| {
                o.unused_tokens = SignedDuration::from_hours(48)
            }),
            ("--terminated-pod-gc-threshold=7", |o| o.ended_pods = Some(7)),
            ("--terminated-pod-gc-threshold=0", |o| o.ended_pods = None),
            ("--terminated-pod-gc-threshold=-1", |o| o.ended_pods = None),
            ("--enable-garbage-collector=false", |o| o.collects_garbage = false),
            ("--node-monitor-period=2s", |o| o.nodes.period = Duration::from_secs(2)),
            ("--node-monitor-grace-period=2s", |o| o.nodes.grace = Duration::from_secs(2)),
            ("--node-startup-grace-period=2s", |o| o.nodes.startup = Duration::from_secs(2)),
            ("--node-eviction-rate=0.5", |o| o.nodes.rate = 0.5),
            ("--secondary-node-eviction-rate=0.5", |o| o.nodes.slow_rate = 0.5),
            ("--unhealthy-zone-threshold=0.3", |o| o.nodes.unhealthy = 0.3),
            ("--large-cluster-size-threshold=7", |o| o.nodes.large = 7),
            ("--horizontal-pod-autoscaler-sync-period=2s", |o| o.autoscaling.period = Duration::from_secs(2)),
            ("--horizontal-pod-autoscaler-downscale-stabilization=2s", |o| {
                o.autoscaling.steady = Duration::from_secs(2)
            }),
            ("--horizontal-pod-autoscaler-cpu-initialization-period=2s", |o| {
                o.autoscaling.cpu_start = Duration::from_secs(2)
            }),
            ("--horizontal-pod-autoscaler-initial-readiness-delay=2s", |o| {
                o.autoscaling.first_readiness = Duration::from_secs(2)
            }),
            ("--horizontal-pod-autoscaler-tolerance=0.25", |o| o.autoscaling.tolerance = 0.25),
            ("--max-endpoints-per-slice=7", |o| o.endpoints.per_slice = 7),
            ("--mirroring-max-endpoints-per-subset=7", |o| o.endpoints.mirrored = 7),
            ("--endpointslice-updates-batch-period=2s", |o| {
                o.endpoints.slices_gather = Duration::from_secs(2)
            }),
            ("--endpoint-updates-batch-period=2s", |o| o.endpoints.endpoints_gather = Duration::from_secs(2)),
            ("--mirroring-endpointslice-updates-batch-period=2s", |o| {
                o.endpoints.mirror_gather = Duration::from_secs(2)
            }),
            ("--pvclaimbinder-sync-period=2s", |o| o.volumes.bind_period = Duration::from_secs(2)),
            ("--enable-dynamic-provisioning=false", |o| o.volumes.provisions = false),
            ("--cloud-provider=external", |o| o.load_balancing.external = true),
            ("--disable-force-detach-on-timeout", |o| o.volumes.force_detach = false),
        ];
        for (flag, change) in flags {
            let mut expected = Options::default();
            change(&mut expected);
            assert_ne!(expected, default, "{flag}: the default already");
            assert_eq!(read(flag).unwrap(), expected, "{flag}");
        }
        let attach = |line: &str| read(line).unwrap().volumes.attach_period;
        assert_eq!(attach("--attach-detach-reconcile-sync-period=7s"), Some(second(7)));
        let off = "--disable-attach-detach-reconcile-sync --attach-detach-reconcile-sync-period=7s";
        assert_eq!(attach(off), None);
        for flag in Workers::flags() {
            let mut workers = Workers::default();
            workers.set(flag, 33).unwrap();
            assert_ne!(workers, Workers::default());
            assert_eq!(read(&format!("--{flag}=33")).unwrap(), Options { workers, ..Options::default() });
        }
    }

    #[test]
    fn what_upstream_refuses_is_refused_in_its_words() {
        for (line, words) in [
            ("--max-endpoints-per-slice=0", "max-endpoints-per-slice must not be less than 1, but got 0"),
            (
                "--max-endpoints-per-slice=1001",
                "max-endpoints-per-slice must not be more than 1000, but got 1001",
            ),
            (
                "--mirroring-max-endpoints-per-subset=-1",
                "mirroring-max-endpoints-per-subset must not be less than 1, but got -1",
            ),
            ("--concurrent-job-syncs=0", "concurrent-job-syncs must be greater than 0, but got 0"),
            (
                "--attach-detach-reconcile-sync-period=999ms",
                "duration time must be greater than one second as set via command line option reconcile-sync-loop-period",
            ),
            ("--legacy-service-account-token-clean-up-period=0s", "invalid CleanUpPeriod: 0s"),
            (
                "--cidr-allocator-type=CloudAllocator",
                "built-in cloud providers are disabled. The ipam CloudAllocator is not available",
            ),
            (
                "--cloud-provider=aws",
                "cloud provider \"aws\" was specified, but built-in cloud providers are disabled",
            ),
        ] {
            let Err(error) = read(line) else { panic!("{line}") };
            let error = error.to_string();
            assert!(error.contains(words), "{line}: {error}");
        }
        for line in ["--cidr-allocator-type=RangeAllocator", "--cloud-provider="] {
            assert_eq!(read(line).unwrap(), Options::default(), "{line}");
        }
    }
}
