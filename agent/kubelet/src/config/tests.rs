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
    assert_eq!(config.pulls, PullParallelism::Parallel(None));
    assert_eq!(config.max_container_restart_period, Duration::from_secs(60));
}

#[test]
fn wrong_values_name_their_field() {
    for (body, field) in [
        ("clusterDNS: [dns]", "clusterDNS"),
        ("maxPods: 0", "maxPods"),
        ("userNamespaces: {idsPerPod: 1000}", "userNamespaces.idsPerPod"),
        ("cgroupRoot: /a/../b", "cgroupRoot"),
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
