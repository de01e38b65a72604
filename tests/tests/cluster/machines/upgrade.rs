//! Another release and back, under load: no container is restarted, no connection is lost.

use super::{Machines, answers, each, of_pods, on_machines, spread};
use crate::harness::{Namespace, cluster, eventually};
use anyhow::{Result, ensure};
use lab::vm::Vm;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A release, and one that is another byte for byte, works as the first, and brings one file more. Without our own image and papers, which would be
/// packed for minutes.
const RELEASES: &str = "cd ~vagrant && rm -rf this other && mkdir -p this/images && cp -a windlass/bin windlass/lib windlass/systemd windlass/install.sh windlass/FILES this && \
    cp -a windlass/images/pause.tar this/images && \
    cp -a this other && for program in other/bin/*; do echo other >>$program; done && \
    for unit in other/systemd/*; do echo '# other' >>$unit; done && echo other >other/lib/other && echo 'lib/other @LIB@/other 644' >>other/FILES && \
    for release in this other; do \
        (cd $release && find . -type f -printf '%P\\n' | xargs sha256sum >../sums && mv ../sums SHA256SUMS) && \
        tar -I 'gzip -1' -cf $release.tar.gz $release || exit 1; \
    done";

/// How many units and other files of the other release are in place.
const BROUGHT: &str = "{ grep -lx '# other' /etc/systemd/system/windlass-server.service; ls /usr/local/lib/windlass/other; } 2>/dev/null | wc -l";

#[test]
fn an_upgrade_and_a_downgrade_must_not_touch_pods_or_connections() {
    on_machines("upgrade and downgrade under load", async |machines| {
        let namespace = cluster().namespace("vm-upgrade");
        let count = machines.all.len() * 2;
        spread(&namespace, "web", u32::try_from(count)?);
        let port = namespace.path("service/web", "{.spec.ports[0].nodePort}");
        long_connection(&namespace, machines);
        futures::future::try_join_all(machines.all.iter().map(|vm| vm.run(RELEASES))).await?;
        let look = || (of_pods(&namespace, "web", CONTAINERS), of_pods(&namespace, "long", CONTAINERS));
        let before = look();
        let stop = CancellationToken::new();
        let loads = machines.addresses.iter().map(|address| load(address, &port, &stop));
        let upgrades = async {
            let done = async {
                for release in ["other", "this"] {
                    let upgrade = async |vm: &Vm| -> Result<()> {
                        let said =
                            vm.run(&format!("windlass upgrade --dist ~vagrant/{release}.tar.gz")).await?;
                        ensure!(said.contains(&machines.unit(vm)), "{said}");
                        let brought = vm.run(BROUGHT).await?;
                        let wanted = if release == "other" { "2\n" } else { "0\n" };
                        ensure!(brought == wanted, "{release} has brought {brought} of its own");
                        Ok(())
                    };
                    // servers first, one after another
                    for vm in machines.servers() {
                        upgrade(vm).await?;
                    }
                    each(machines.workers(), upgrade).await?;
                }
                Ok(())
            };
            let done = done.await;
            stop.cancel();
            done
        };
        let (asked, done) = tokio::join!(futures::future::try_join_all(loads), upgrades);
        done?;
        println!("{} requests answered meanwhile", asked?.iter().sum::<u32>());
        super::all_ready(300);
        ensure!(look() == before, "containers are others: {before:?} and then {:?}", look());
        // the kubelet that was restarted last is asked before it listens
        let heard = || {
            eventually("exec", 120, || {
                let out = namespace.kubectl_output(&["exec", "talker", "--", "cat", "/tmp/heard"]);
                let said = String::from_utf8_lossy(&out.stdout).lines().count();
                if out.status.success() {
                    Ok(said)
                } else {
                    Err(String::from_utf8_lossy(&out.stderr).into_owned())
                }
            })
        };
        let (one, other) = (heard(), {
            tokio::time::sleep(Duration::from_secs(5)).await;
            heard()
        });
        ensure!(other > one, "the connection that was there before is cut: {one} lines, and then {other}");
        Ok(())
    });
}

const CONTAINERS: &str =
    "{.metadata.name} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}";

/// One connection, through a Service and over two machines, that goes on for as long as its pods do.
fn long_connection(namespace: &Namespace<'_>, machines: &Machines) {
    let [listener, talker] = [&machines.workers()[0].name, &machines.victim().name];
    namespace.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: listener, labels: {{ app: long, part: listener }} }}
spec:
  nodeName: {listener}
  terminationGracePeriodSeconds: 1
  containers: [{{ name: c, image: 'lab.local/echo:1', command: [nc, -ll, -p, '9000', -e, cat], readinessProbe: {{ tcpSocket: {{ port: 9000 }} }} }}]
---
apiVersion: v1
kind: Service
metadata: {{ name: long }}
spec: {{ selector: {{ part: listener }}, ports: [{{ port: 9000 }}] }}
"
    ));
    namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=300s", "pod/listener"]);
    namespace.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: talker, labels: {{ app: long }} }}
spec:
  nodeName: {talker}
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers: [{{ name: c, image: 'lab.local/echo:1', command: [sh, -c, 'sleep 3; (while :; do echo word; sleep 1; done) | nc long 9000 >/tmp/heard'] }}]
"
    ));
    namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=300s", "pod/talker"]);
}

/// Asks by a node's address, over and over; how often.
async fn load(address: &str, port: &str, stop: &CancellationToken) -> Result<u32> {
    let mut asked = 0;
    while !stop.is_cancelled() {
        answers(address, port, 1).await?;
        asked += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(asked)
}
