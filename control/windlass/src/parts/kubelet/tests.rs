use super::*;
use crate::parts::component::Component;

fn of(line: &str) -> anyhow::Result<(node::Config, Credentials)> {
    let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    settings(&Component::named("kubelet").unwrap().table().parse(&arguments)?)
}

#[test]
fn what_a_unit_of_kubeadms_says_is_done() {
    let line = "--bootstrap-kubeconfig=/b --kubeconfig=/k --config=/c --hostname-override=N1 --node-ip=192.0.2.1 \
        --container-runtime-endpoint=unix:///run/x --node-labels=a=b,c= \
        --register-with-taints=node-role.kubernetes.io/control-plane=:NoSchedule";
    let (config, credentials) = of(line).unwrap();
    assert_eq!((config.node_name.as_str(), config.node_ips.len()), ("n1", 1));
    assert_eq!(config.kubelet_config.as_deref(), Some("/c".as_ref()));
    assert_eq!(config.runtime_endpoint.as_deref(), Some("unix:///run/x"));
    assert_eq!((config.labels.len(), config.taints.len()), (2, 1));
    assert_eq!(credentials.kubeconfig.as_deref(), Some("/k".as_ref()));
    assert_eq!(credentials.certificates.as_path(), std::path::Path::new("/var/lib/kubelet/pki"));
    assert!(config.static_pod_path.is_none(), "the file names it");
    assert_eq!(config.register, None, "the file says it");
    let (config, _) = of("--register-node=false --node-ip=192.0.2.1").unwrap();
    assert_eq!(config.register, Some(false));
}

/// What the kubelet of a command line is told, by way of the kubelet's own reading.
fn kubelet(line: &str) -> anyhow::Result<kubelet::Config> {
    let (config, _) = of(&format!("--node-ip=192.0.2.1 {line}"))?;
    let (file, drop_ins) = (config.kubelet_config, config.kubelet_drop_ins);
    let sources = kubelet::Sources { file, drop_ins, flags: config.kubelet_flags };
    Ok(kubelet::Config::read(&sources, "n1", config.node_ips)?)
}

/// Every flag that is a field: its value on the line, and the same in a file. Their effect is the same, and not the default's.
#[test]
fn a_flag_must_not_do_nothing_nor_other_than_its_field() {
    let cases = [
        ("--address=127.0.0.1", "address: 127.0.0.1"),
        ("--allowed-unsafe-sysctls=net.*,kernel.x", "allowedUnsafeSysctls: [net.*, kernel.x]"),
        ("--anonymous-auth", "authentication: {anonymous: {enabled: true}}"),
        ("--authentication-token-webhook=false", "authentication: {webhook: {enabled: false}}"),
        ("--authentication-token-webhook-cache-ttl=3m", "authentication: {webhook: {cacheTTL: 3m}}"),
        ("--authorization-mode=AlwaysAllow", "authorization: {mode: AlwaysAllow}"),
        (
            "--authorization-webhook-cache-authorized-ttl=1m",
            "authorization: {webhook: {cacheAuthorizedTTL: 1m}}",
        ),
        (
            "--authorization-webhook-cache-unauthorized-ttl=1m",
            "authorization: {webhook: {cacheUnauthorizedTTL: 1m}}",
        ),
        ("--cgroup-driver=systemd", "cgroupDriver: systemd"),
        ("--cgroup-root=/x", "cgroupRoot: /x"),
        (
            "--cgroups-per-qos=false --enforce-node-allocatable=none",
            "cgroupsPerQOS: false\nenforceNodeAllocatable: [none]",
        ),
        ("--client-ca-file=/ca", "authentication: {x509: {clientCAFile: /ca}}"),
        ("--cluster-dns=10.0.0.1", "clusterDNS: [10.0.0.1]"),
        ("--cluster-domain=x.test", "clusterDomain: x.test"),
        ("--container-log-max-files=3", "containerLogMaxFiles: 3"),
        ("--container-log-max-size=1Mi", "containerLogMaxSize: 1Mi"),
        ("--container-runtime-endpoint=unix:///x", "containerRuntimeEndpoint: unix:///x"),
        ("--cpu-cfs-quota=false", "cpuCFSQuota: false"),
        ("--cpu-cfs-quota-period=50ms", "cpuCFSQuotaPeriod: 50ms"),
        ("--enable-debugging-handlers=false", "enableDebuggingHandlers: false"),
        ("--enable-server=false", "enableServer: false"),
        ("--enforce-node-allocatable=none", "enforceNodeAllocatable: [none]"),
        ("--event-burst=3", "eventBurst: 3"),
        ("--event-qps=3", "eventRecordQPS: 3"),
        (
            "--eviction-hard=memory.available<1Gi,nodefs.available<7%",
            "evictionHard: {memory.available: 1Gi, nodefs.available: 7%}",
        ),
        ("--eviction-max-pod-grace-period=3", "evictionMaxPodGracePeriod: 3"),
        (
            "--eviction-minimum-reclaim=nodefs.available=1Gi",
            "evictionMinimumReclaim: {nodefs.available: 1Gi}",
        ),
        ("--eviction-pressure-transition-period=1m", "evictionPressureTransitionPeriod: 1m"),
        (
            "--eviction-soft=memory.available<2Gi --eviction-soft-grace-period=memory.available=1m",
            "evictionSoft: {memory.available: 2Gi}\nevictionSoftGracePeriod: {memory.available: 1m}",
        ),
        ("--fail-cgroupv1", "failCgroupV1: true"),
        ("--fail-swap-on", "failSwapOn: true"),
        ("--feature-gates=ContainerCheckpoint=true", "featureGates: {ContainerCheckpoint: true}"),
        ("--file-check-frequency=1m", "fileCheckFrequency: 1m"),
        ("--healthz-bind-address=127.0.0.2", "healthzBindAddress: 127.0.0.2"),
        ("--healthz-port=0", "healthzPort: 0"),
        ("--image-gc-high-threshold=90", "imageGCHighThresholdPercent: 90"),
        ("--image-gc-low-threshold=70", "imageGCLowThresholdPercent: 70"),
        ("--image-service-endpoint=unix:///i", "imageServiceEndpoint: unix:///i"),
        ("--kube-api-qps=3", "kubeAPIQPS: 3"),
        ("--kube-api-burst=3", "kubeAPIBurst: 3"),
        ("--kube-reserved=cpu=100m,memory=1Gi", "kubeReserved: {cpu: 100m, memory: 1Gi}"),
        (
            "--enforce-node-allocatable=pods,kube-reserved --kube-reserved-cgroup=/k",
            "enforceNodeAllocatable: [pods, kube-reserved]\nkubeReservedCgroup: /k",
        ),
        ("--kubelet-cgroups=/k --cgroup-root=/", "kubeletCgroups: /k\ncgroupRoot: /"),
        ("--local-storage-capacity-isolation=false", "localStorageCapacityIsolation: false"),
        ("--manifest-url=http://m/", "staticPodURL: http://m/"),
        (
            "--manifest-url=http://m/ --manifest-url-header=a:x,a:w,b:z --http-check-frequency=3s",
            "staticPodURL: http://m/\nstaticPodURLHeader: {a: [x, w], b: [z]}\nhttpCheckFrequency: 3s",
        ),
        ("--max-open-files=5", "maxOpenFiles: 5"),
        ("--max-pods=5", "maxPods: 5"),
        ("--minimum-image-ttl-duration=1m", "imageMinimumGCAge: 1m"),
        ("--node-status-max-images=-1", "nodeStatusMaxImages: -1"),
        ("--node-status-update-frequency=1m", "nodeStatusUpdateFrequency: 1m\nnodeStatusReportFrequency: 5m"),
        ("--oom-score-adj=1", "oomScoreAdj: 1"),
        ("--pod-cidr=10.0.0.0/24", "podCIDR: 10.0.0.0/24"),
        ("--pod-manifest-path=/m", "staticPodPath: /m"),
        ("--pod-max-pids=100", "podPidsLimit: 100"),
        ("--pods-per-core=3", "podsPerCore: 3"),
        ("--port=1", "port: 1"),
        ("--protect-kernel-defaults", "protectKernelDefaults: true"),
        ("--provider-id=x://1", "providerID: x://1"),
        ("--read-only-port=10255", "readOnlyPort: 10255"),
        ("--register-node=false", "registerNode: false"),
        ("--registry-burst=3", "registryBurst: 3"),
        ("--registry-qps=3", "registryPullQPS: 3"),
        ("--reserved-cpus=0", "reservedSystemCPUs: '0'"),
        ("--resolv-conf=/r", "resolvConf: /r"),
        ("--rotate-certificates", "rotateCertificates: true"),
        ("--rotate-server-certificates", "serverTLSBootstrap: true"),
        ("--runtime-request-timeout=1m", "runtimeRequestTimeout: 1m"),
        ("--seccomp-default", "seccompDefault: true"),
        ("--serialize-image-pulls=false", "serializeImagePulls: false"),
        ("--sync-frequency=3m", "syncFrequency: 3m"),
        ("--system-cgroups=/s --cgroup-root=/", "systemCgroups: /s\ncgroupRoot: /"),
        ("--system-reserved=pid=100", "systemReserved: {pid: '100'}"),
        (
            "--enforce-node-allocatable=system-reserved-compressible --system-reserved-cgroup=/s",
            "enforceNodeAllocatable: [system-reserved-compressible]\nsystemReservedCgroup: /s",
        ),
        ("--tls-cert-file=/c", "tlsCertFile: /c"),
        (
            "--tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "tlsCipherSuites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]",
        ),
        ("--tls-min-version=VersionTLS13", "tlsMinVersion: VersionTLS13"),
        ("--tls-private-key-file=/k", "tlsPrivateKeyFile: /k"),
        ("--volume-stats-agg-period=-1s", "volumeStatsAggPeriod: -1s"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubelet.yaml");
    let shown = |config: anyhow::Result<kubelet::Config>| format!("{:?}", config.unwrap());
    let written = |body: &str| {
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        std::fs::write(&path, format!("{head}{body}\n")).unwrap();
        format!("--config={}", path.display())
    };
    let usual = shown(kubelet(""));
    for (line, body) in cases {
        let flag = shown(kubelet(line));
        assert_eq!(flag, shown(kubelet(&written(body))), "{line}");
        assert_ne!(flag, usual, "{line}");
        // A flag goes before the file.
        let both = format!("{} {line}", written("syncFrequency: 7m\nmaxPods: 9\nclusterDomain: other.test"));
        let both = shown(kubelet(&both));
        assert_ne!(
            both,
            shown(kubelet(&written("syncFrequency: 7m\nmaxPods: 9\nclusterDomain: other.test"))),
            "{line}"
        );
    }
    let tested: String = cases.iter().map(|(line, _)| format!("{line} ")).collect();
    let fields = include_str!("../../../data/flags/kubelet.txt").lines().filter_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        matches!(words[..], [name, _, field] if !name.starts_with('#') && field != "unused").then(|| words[0])
    });
    // One is refused; one is of iptables, which are not used; one has no effect in upstream's either.
    let aside = ["runonce", "make-iptables-util-chains", "streaming-connection-idle-timeout"];
    for name in fields.filter(|name| !aside.contains(name)) {
        assert!(tested.contains(&format!("--{name}")), "--{name} is not tested");
    }
}

#[test]
fn values_upstream_refuses_are_refused_in_its_words() {
    for (line, words) in [
        ("--runonce", "Runonce mode has been deprecated and should not be set"),
        ("--max-pods=-1", "maxPods (--max-pods) -1 must not be a negative number"),
        (
            "--oom-score-adj=1001",
            "oomScoreAdj (--oom-score-adj) 1001 must be between -1000 and 1000, inclusive",
        ),
        ("--port=0", "port (--port) 0 must be between 1 and 65535, inclusive"),
        ("--read-only-port=70000", "readOnlyPort (--read-only-port) 70000"),
        ("--image-gc-high-threshold=101", "must be between 0 and 100, inclusive"),
        ("--enforce-node-allocatable=none,pods", "may not contain additional enforcements when \"none\""),
        (
            "--enforce-node-allocatable=kube-reserved",
            "kubeReservedCgroup (--kube-reserved-cgroup) must be specified",
        ),
        ("--enforce-node-allocatable=all", "option \"all\" specified for enforceNodeAllocatable"),
        ("--cgroups-per-qos=false", "cgroupsPerQOS (--cgroups-per-qos) must be set to true when \"pods\""),
        ("--reserved-cpus=1-0", "unable to parse reservedSystemCPUs (--reserved-cpus)"),
        ("--reserved-cpus=0 --system-reserved-cgroup=/s", "can't use reservedSystemCPUs"),
        ("--tls-min-version=SSL3", "unknown tls version"),
        ("--tls-cipher-suites=NONE", "not supported or doesn't exist"),
        ("--feature-gates=APIServerTracing=false", "feature is locked to true"),
        ("--eviction-hard=x<1Gi", "unsupported eviction signal x"),
    ] {
        let error = kubelet(line).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains(words), "{line}: {text}");
    }
}

#[test]
fn flags_without_a_field_are_heard() {
    let (config, _) =
        of("--node-ip=192.0.2.1 --cloud-provider=external --machine-id-file=/a,/b --boot-id-file=/c \
        --config-dir=/d --experimental-allocatable-ignore-eviction")
        .unwrap();
    assert!(config.cloud_external && config.node_ips_given && config.ignore_eviction);
    assert_eq!((config.machine_id_files.len(), config.boot_id_files.len()), (2, 1));
    assert_eq!(config.kubelet_drop_ins.as_deref(), Some("/d".as_ref()));
    assert!(of("--node-ip=192.0.2.1 --cloud-provider=aws").unwrap_err().to_string().contains("built-in"));
    let alone = of("--node-ip=192.0.2.1 --exit-on-lock-contention").unwrap_err().to_string();
    assert_eq!(alone, "cannot exit on lock file contention: no lock file specified");
}

#[test]
fn what_cannot_be_is_refused() {
    for line in [
        "--node-ip=192.0.2.1,192.0.2.2",
        "--node-ip=x",
        "--bootstrap-kubeconfig=/b --node-ip=192.0.2.1",
        "--node-ip=192.0.2.1 --register-with-taints=a",
        "--node-ip=192.0.2.1 --node-labels=x",
    ] {
        assert!(of(line).is_err(), "{line}");
    }
}
