use super::*;

fn parse(body: &str) -> Result<Config, Error> {
    Config::parse(&format!("apiVersion: {API_VERSION}\nkind: KubeletConfiguration\n{body}"), "node", vec![])
}

#[test]
fn an_empty_file_holds_upstreams_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.max_pods, 110);
    assert_eq!(config.runtime_request_timeout, Duration::from_secs(120));
    assert_eq!(config.pulls, PullParallelism::Serial);
    assert!(config.cgroups_per_qos);
    assert!(config.unsupported.is_empty());
}

#[test]
fn unknown_fields_are_refused_and_unsupported_ones_named() {
    let error = parse("maxPodz: 3").unwrap_err().to_string();
    assert!(error.contains("unknown field \"maxPodz\""), "{error}");
    assert_eq!(parse("hairpinMode: none").unwrap().unsupported, ["hairpinMode"]);
}

#[test]
fn values_are_read_as_upstream_spells_them() {
    let config = parse(
        "clusterDNS: [10.96.0.10]\nclusterDomain: cluster.local\nruntimeRequestTimeout: 1m30s\n\
         cgroupDriver: systemd\ncpuCFSQuotaPeriod: 50ms\nserializeImagePulls: false\n\
         crashLoopBackOff: {maxContainerRestartPeriod: 60s}\n",
    )
    .unwrap();
    assert_eq!(config.cluster_dns, ["10.96.0.10"]);
    assert_eq!(config.runtime_request_timeout, Duration::from_secs(90));
    assert_eq!(config.cgroup_driver, CgroupDriver::Systemd);
    assert_eq!(config.cpu_cfs_quota_period, Duration::from_millis(50));
    assert!(
        !config.single_process_oom_kill
            && parse("singleProcessOOMKill: true").unwrap().single_process_oom_kill
    );
    assert_eq!(config.memory_throttling, None);
    let throttling =
        |more: &str| parse(&format!("featureGates: {{MemoryQoS: true}}\n{more}")).unwrap().memory_throttling;
    assert_eq!((throttling(""), throttling("memoryThrottlingFactor: 0.5")), (Some(0.9), Some(0.5)));
    assert_eq!(config.pulls, PullParallelism::Parallel(None));
    assert_eq!(config.max_container_restart_period, Duration::from_secs(60));
}

#[test]
fn wrong_values_name_their_field() {
    for (body, field) in [
        ("clusterDNS: [dns]", "clusterDNS"),
        ("maxPods: -1", "maxPods"),
        ("userNamespaces: {idsPerPod: 1000}", "userNamespaces.idsPerPod"),
        ("cgroupRoot: /a/../b", "cgroupRoot"),
        ("memoryThrottlingFactor: 1.5", "memoryThrottlingFactor"),
        ("syncFrequency: 10", "duration"),
        ("evictionHard: {memory.free: 1Gi}", "unsupported eviction signal memory.free"),
    ] {
        let error = parse(body).unwrap_err().to_string();
        assert!(error.contains(field), "{body}: {error}");
    }
    assert!(Config::parse("kind: Pod", "n", vec![]).is_err());
}

#[test]
fn soft_thresholds_need_their_grace_and_old_logs_their_number() {
    let alone = parse("evictionSoft: {memory.available: 100Mi}").unwrap_err().to_string();
    assert!(alone.contains("grace period must be specified"), "{alone}");
    let both = "evictionSoft: {memory.available: 100Mi}\nevictionSoftGracePeriod: {memory.available: 1m30s}\n\
                evictionMaxPodGracePeriod: 20\nevictionMinimumReclaim: {nodefs.available: 1Gi}\n";
    let policy = parse(both).unwrap().eviction;
    assert_eq!(policy.soft_grace.values().copied().collect::<Vec<_>>(), [Duration::from_secs(90)]);
    assert_eq!(policy.longest_grace, 20);
    assert!(parse("containerLogMaxFiles: 1").is_err());
    assert!(parse("imageGCHighThresholdPercent: 70").is_err(), "not above the low one");
    assert_eq!(parse("containerLogMaxSize: 1Mi").unwrap().container_log_max_bytes, Some(1 << 20));
}

#[test]
fn what_says_nothing_or_asks_for_what_is_done_must_not_be_warned_of() {
    let quiet = parse(
        "logging: {flushFrequency: 0, options: {json: {infoBufferSize: '0'}}, verbosity: 0}\nmemorySwap: {}\n\
         cpuManagerPolicy: none\ntopologyManagerScope: container\nshutdownGracePeriod: 0s\nstreamingConnectionIdleTimeout: 0s\n",
    );
    assert!(quiet.unwrap().unsupported.is_empty());
    let loud = parse("cpuManagerPolicy: static\nmemoryManagerPolicy: Static\n");
    assert_eq!(loud.unwrap().unsupported, ["cpuManagerPolicy", "memoryManagerPolicy"]);
}

#[test]
fn swap_is_shared_only_where_the_file_says_so() {
    assert!(!parse("").unwrap().limited_swap);
    assert!(!parse("memorySwap: {swapBehavior: NoSwap}").unwrap().limited_swap);
    assert!(parse("memorySwap: {swapBehavior: LimitedSwap}").unwrap().limited_swap);
    let error = parse("memorySwap: {swapBehavior: Unlimited}").unwrap_err().to_string();
    assert!(error.contains("swapBehavior \"Unlimited\" must be one of"), "{error}");
}

#[test]
fn pods_have_their_time_when_the_machine_shuts_down() {
    let of = |body: &str| parse(body).map(|config| config.shutdown);
    assert!(of("").unwrap().is_empty());
    let periods = of("shutdownGracePeriod: 1m\nshutdownGracePeriodCriticalPods: 20s\n").unwrap();
    assert_eq!(periods.iter().map(|period| period.seconds).collect::<Vec<_>>(), [40, 20]);
    let listed = "shutdownGracePeriodByPodPriority:\n- {priority: 100, shutdownGracePeriodSeconds: 5}\n\
                  - {priority: 0, shutdownGracePeriodSeconds: 7}\n";
    assert_eq!(of(listed).unwrap()[0].seconds, 7, "the lowest first");
    assert!(of("shutdownGracePeriodCriticalPods: 20s").is_err());
}

#[test]
fn ports_and_what_they_are_for_are_as_configured() {
    let usual = parse("").unwrap();
    assert_eq!(usual.healthz, Some("127.0.0.1:10248".parse().unwrap()));
    assert!(usual.serve && usual.read_only.is_none() && !usual.rotate_client && !usual.rotate_serving);
    let other =
        parse("healthzBindAddress: '::1'\nhealthzPort: 1\nreadOnlyPort: 10255\nenableServer: false\n")
            .unwrap();
    assert_eq!(other.healthz, Some("[::1]:1".parse().unwrap()));
    assert_eq!((other.serve, other.read_only), (false, Some(10255)));
    assert_eq!(parse("healthzPort: 0").unwrap().healthz, None);
    assert!(parse("healthzBindAddress: host").is_err());
    assert_eq!(parse("volumeStatsAggPeriod: -1s").unwrap().volume_stats_period, None);
    assert_eq!(
        parse("volumeStatsAggPeriod: 2m").unwrap().volume_stats_period,
        Some(Duration::from_secs(120))
    );
}

#[test]
fn what_is_empty_or_zero_must_not_be_taken_for_a_value() {
    let config = parse(
        "address: ''\nport: 0\ncgroupDriver: ''\ncontainerLogMaxSize: ''\ncontainerRuntimeEndpoint: ''\npodLogsDir: ''\nmaxPods: 0\n",
    )
    .unwrap();
    let usual = parse("").unwrap();
    assert_eq!((config.address, config.port, config.max_pods), (usual.address, 10250, 110));
    assert_eq!((config.cgroup_driver, &config.pod_logs_dir), (usual.cgroup_driver, &usual.pod_logs_dir));
    assert_eq!(config.container_log_max_bytes, Some(10 << 20), "its logs would grow for ever");
    assert_eq!(config.container_runtime_endpoint, usual.container_runtime_endpoint);
}

#[test]
fn a_status_is_told_as_often_as_it_is_looked_at_unless_said_otherwise() {
    let of = |body: &str| parse(body).unwrap().node_status_report_frequency.as_secs();
    assert_eq!(of(""), 300);
    assert_eq!(of("nodeStatusUpdateFrequency: 4s"), 4);
    assert_eq!(of("nodeStatusUpdateFrequency: 4s\nnodeStatusReportFrequency: 1m"), 60);
}

#[test]
fn what_upstream_refuses_must_not_be_taken_in_silence() {
    for (body, words) in [
        (
            "cpuCFSQuotaPeriod: 2s",
            "cpuCFSQuotaPeriod (--cpu-cfs-quota-period) 2s must be between 1ms and 1sec, inclusive",
        ),
        ("containerLogMaxSize: lots", "failed to parse container log max size \"lots\": "),
        ("systemCgroups: /system", "systemCgroups (--system-cgroups) was specified and cgroupRoot"),
        ("registerWithTaints: [{key: 'a b', effect: NoSchedule}]", "invalid taint: {a b  NoSchedule <nil>}"),
        ("registerWithTaints: [{key: a, effect: Never}]", "invalid taint: {a  Never <nil>}"),
        ("podLogsDir: logs", "pod logs path \"logs\" must be absolute path"),
        ("podLogsDir: /var/log/../pods", "pod logs path \"/var/log/../pods\" must be normalized"),
        ("podLogsDir: /var/log/", "must be normalized"),
        ("podLogsDir: /var/lög", "ASCII characters only"),
        (
            "imageGCHighThresholdPercent: 80",
            "imageGCLowThresholdPercent (--image-gc-low-threshold) 80 must be less than",
        ),
        (
            "hairpinMode: often",
            "option \"often\" specified for hairpinMode (--hairpin-mode). Valid options are \"none\", \"hairpin-veth\" or \"promiscuous-bridge\"",
        ),
        (
            "topologyManagerScope: node",
            "topologyManagerScope (--topology-manager-scope) \"node\" must be one of: \"container\", or \"pod\"",
        ),
        (
            "topologyManagerPolicy: best",
            "must be one of: [\"none\" \"best-effort\" \"restricted\" \"single-numa-node\"]",
        ),
    ] {
        let error = parse(body).unwrap_err().to_string();
        assert!(error.contains(words), "{body}: {error}");
    }
    parse("registerWithTaints: [{key: a.b/c, value: d, effect: NoExecute}]\npodLogsDir: /var/log/pods\n")
        .unwrap();
    parse("systemCgroups: /system\ncgroupRoot: /\ncpuCFSQuotaPeriod: 1ms").unwrap();
}

#[test]
fn a_feature_that_is_off_must_not_be_configured() {
    for (gate, body) in [
        ("RotateKubeletServerCertificate", "serverTLSBootstrap: true"),
        ("GracefulNodeShutdown", "shutdownGracePeriod: 30s"),
        (
            "GracefulNodeShutdownBasedOnPodPriority",
            "shutdownGracePeriodByPodPriority: [{priority: 1, shutdownGracePeriodSeconds: 2}]",
        ),
        ("KubeletCrashLoopBackOffMax", "crashLoopBackOff: {maxContainerRestartPeriod: 60s}"),
    ] {
        parse(body).unwrap();
        for gates in [format!("{gate}: false"), "AllBeta: false".to_owned()] {
            let error = parse(&format!("{body}\nfeatureGates: {{{gates}}}")).unwrap_err().to_string();
            assert!(error.contains(gate), "{gates}: {error}");
            parse(&format!("featureGates: {{{gates}}}")).unwrap();
        }
        parse(&format!("{body}\nfeatureGates: {{AllBeta: false, {gate}: true}}")).unwrap();
    }
}
