//! A claim on a machine's own disk.

use super::on_machines;
use crate::harness::cluster;
use anyhow::ensure;
use std::time::Duration;

#[test]
fn a_claim_on_a_local_disk_outlives_its_pod() {
    on_machines("a claim on a local disk", async |machines| {
        let namespace = cluster().namespace("vm-claim");
        let node = machines.steady();
        node.run("mkdir -p /var/lib/disk").await?;
        let pod = |name: &str, script: &str| {
            namespace.apply(&format!(
                "apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  restartPolicy: Never
  containers:
  - {{ name: c, image: 'lab.local/echo:1', command: [sh, -c, '{script}'], volumeMounts: [{{ name: disk, mountPath: /data }}] }}
  volumes: [{{ name: disk, persistentVolumeClaim: {{ claimName: disk }} }}]
"
            ));
            let succeeded = "--for=jsonpath={.status.phase}=Succeeded";
            namespace.kubectl(&["wait", succeeded, "--timeout=300s", &format!("pod/{name}")]);
        };
        namespace.apply(&format!(
            "apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{ name: vm-local }}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: v1
kind: PersistentVolume
metadata: {{ name: vm-disk }}
spec:
  capacity: {{ storage: 1Gi }}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: vm-local
  local: {{ path: /var/lib/disk }}
  nodeAffinity: {{ required: {{ nodeSelectorTerms: [{{ matchExpressions: [{{ key: kubernetes.io/hostname, operator: In, values: [{}] }}] }}] }} }}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{ name: disk }}
spec: {{ accessModes: [ReadWriteOnce], storageClassName: vm-local, resources: {{ requests: {{ storage: 1Gi }} }} }}
",
            node.name
        ));
        pod("writer", "echo kept > /data/it; sync");
        namespace.kubectl(&["delete", "pod", "writer"]);
        pod("reader", "cat /data/it");
        ensure!(namespace.kubectl(&["logs", "reader"]) == "kept\n", "what was written");
        ensure!(node.run("cat /var/lib/disk/it").await? == "kept\n", "it is on the disk");
        cluster().kubectl(&["delete", "namespace", "vm-claim", "--timeout=300s"]);
        cluster().kubectl(&["delete", "pv/vm-disk", "storageclass/vm-local"]);
        let unmounted = async || match node.run("grep local-volume /proc/mounts || true").await {
            Ok(mounts) if mounts.is_empty() => Ok(()),
            Ok(mounts) => Err(mounts),
            Err(error) => Err(format!("{error:#}")),
        };
        let patience = Duration::from_secs(120);
        lab::patience::eventually("the disk is unmounted", patience, unmounted)
            .await
            .map_err(anyhow::Error::msg)
    });
}
