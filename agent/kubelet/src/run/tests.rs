//! Panics put into the kubelet's tasks and probes, one at a time; its runtime is away all the while.

use super::*;
use crate::probe::{self, Target, Verdicts};
use crate::until::until;
use cri_proto::client::Deadlines;
use k8s_openapi::api::core::v1::Container;
use serde_json::json;
use std::time::Instant;
use supervise::{Report, Supervisor};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

struct Parts {
    kubelet: Kubelet,
    scope: Arc<Scope>,
    supervisor: Supervisor,
    _dir: tempfile::TempDir,
}

fn parts() -> Parts {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::default();
    let scope = Arc::new(Scope::new(&supervisor, "kubelet/", &CancellationToken::new()));
    let mut config = Config::new("n1", Vec::new());
    config.root_dir = dir.path().to_owned();
    config.static_pod_path = Some(dir.path().to_owned());
    let socket = dir.path().join("nobody.sock");
    let runtime = Runtime::connect(&socket.to_string_lossy(), Deadlines::default()).unwrap();
    let (machine, cgroups) = (Machine::read(&config), Cgroups::new(&config));
    let kubelet =
        Kubelet::assemble(config, (runtime, "none".into()), (machine, cgroups), None, scope.clone());
    Parts { kubelet, scope, supervisor, _dir: dir }
}

#[test]
fn cgroups_must_not_be_made_in_another_way_than_the_runtime_makes_them() {
    let told = |driver: i32| v1::RuntimeConfigResponse {
        linux: Some(v1::LinuxRuntimeConfiguration { cgroup_driver: driver }),
    };
    let (systemd, cgroupfs) = (v1::CgroupDriver::Systemd as i32, v1::CgroupDriver::Cgroupfs as i32);
    assert_eq!(chosen(Some(&told(systemd)), CgroupDriver::Cgroupfs), CgroupDriver::Systemd);
    assert_eq!(chosen(Some(&told(cgroupfs)), CgroupDriver::Systemd), CgroupDriver::Cgroupfs);
    let silent = v1::RuntimeConfigResponse { linux: None };
    for old in [None, Some(&silent), Some(&told(77))] {
        assert_eq!(chosen(old, CgroupDriver::Systemd), CgroupDriver::Systemd);
    }
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_fails_once_must_not_keep_the_kubelet_from_starting() {
    let (mut asked, began) = (0, tokio::time::Instant::now());
    let answer = patiently("it", || {
        asked += 1;
        std::future::ready(if asked < 3 { Err("not yet") } else { Ok(asked) })
    });
    assert_eq!(answer.await, Ok(3));
    let took = began.elapsed();
    assert!((2 * ASKS.1..3 * ASKS.1).contains(&took), "{took:?}");
    let mut asked = 0;
    let never = patiently("it", || {
        asked += 1;
        std::future::ready(Err::<(), _>("never"))
    });
    assert_eq!(never.await, Err("never"));
    assert_eq!(asked, 3);
}

#[tokio::test]
async fn a_service_that_panics_must_not_be_noticed_by_the_others() {
    let Parts { kubelet, scope, supervisor, _dir } = parts();
    let look = async {
        let names = [
            "events",
            "image-garbage",
            "log-rotation",
            "plugins",
            "runtime-health",
            "static-pods",
            "syncloop",
        ];
        let task = |name: &str| supervisor.report(&format!("kubelet/{name}"));
        until("they run", || names.iter().all(|name| task(name).is_some_and(|report| report.running == 1)))
            .await;
        for name in names {
            assert!(supervisor.inject_panic(&format!("kubelet/{name}")));
            until(name, || task(name).is_some_and(|report| report.panics == 1)).await;
            let panicked = Instant::now();
            until(name, || task(name).is_some_and(|report| report.restarts == 1 && report.down.is_none()))
                .await;
            assert!(panicked.elapsed() < Duration::from_secs(5), "{name}: {:?}", panicked.elapsed());
        }
        let once = |report: &Report| (report.panics, report.restarts, report.running) == (1, 1, 1);
        assert!(
            names.iter().all(|name| task(name).is_some_and(|report| once(&report))),
            "{:?}",
            scope.reports()
        );
        scope.stop().cancel();
    };
    tokio::join!(Box::pin(kubelet.run()), look);
}

#[tokio::test]
async fn a_probe_that_panics_must_not_be_noticed_by_the_others() {
    let Parts { kubelet, supervisor, _dir, .. } = parts();
    let answers = async |count: usize, listener: &tokio::net::TcpListener| {
        for _ in 0..count {
            tokio::time::timeout(Duration::from_secs(10), listener.accept()).await.unwrap().unwrap();
        }
    };
    let mut targets = Vec::new();
    let mut listeners = Vec::new();
    let verdicts = Verdicts::default();
    for id in ["a", "b"] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let probe = json!({"tcpSocket": {"port": port}, "periodSeconds": 1});
        let container: Container =
            serde_json::from_value(json!({"name": id, "readinessProbe": probe})).unwrap();
        verdicts.begin(&container, id, None);
        targets.push(Arc::new(Target {
            pod: Arc::new(serde_json::from_value(json!({"metadata": {"name": "p"}})).unwrap()),
            container,
            id: id.to_owned(),
            ips: vec!["127.0.0.1".to_owned()],
            started_at: None,
            ending: false,
        }));
        listeners.push(listener);
    }
    let (_tell, targets) = watch::channel(targets);
    let wake = Arc::new(Notify::new());
    let driving = probe::drive(kubelet.context.probes.clone(), targets, verdicts.clone(), wake);
    let look = async {
        tokio::join!(answers(1, &listeners[0]), answers(1, &listeners[1]));
        until("both are ready", || verdicts.all().values().all(|verdict| verdict.ready)).await;
        assert!(supervisor.inject_panic("kubelet/probes"));
        until("one panics", || supervisor.report("kubelet/probes").unwrap().panics == 1).await;
        let panicked = Instant::now();
        assert!(supervisor.report("kubelet/probes").unwrap().down.is_some(), "it is shown");
        until("both run", || supervisor.report("kubelet/probes").unwrap().running == 2).await;
        assert!(panicked.elapsed() < Duration::from_secs(5));
        tokio::join!(answers(2, &listeners[0]), answers(2, &listeners[1]));
        assert!(verdicts.all().values().all(|verdict| verdict.ready), "a verdict stays meanwhile");
    };
    tokio::select! {
        () = Box::pin(driving) => {}
        () = look => {}
    }
    assert_eq!(supervisor.report("kubelet/probes").unwrap().panics, 1);
}
