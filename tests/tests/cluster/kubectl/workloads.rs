//! Deployments by command: made, scaled, rolled out and back, exposed, taken away.

use super::{fails, group, has, is, works};

#[test]
fn kubectl_rolls_deployments_out_and_back() {
    group(
        "rollout",
        &[
            is(
                "create deployment d --image=lab.local/echo:1 --replicas=2 --port=8080",
                "deployment.apps/d created",
            ),
            has("rollout status deploy/d --timeout=60s", &["deployment \"d\" successfully rolled out"]),
            has(
                "get deploy d",
                &["NAME   READY   UP-TO-DATE   AVAILABLE   AGE\nd      2/2     2            2           "],
            ),
            has(
                "get deploy d -o wide",
                &["CONTAINERS   IMAGES             SELECTOR", "echo         lab.local/echo:1   app=d"],
            ),
            has(
                "describe deploy d",
                &[
                    "Replicas:               2 desired | 2 updated | 2 total | 2 available | 0 unavailable",
                    "Available      True    MinimumReplicasAvailable",
                    "Scaled up replica set d-",
                    "RollingUpdateStrategy:  25% max unavailable, 25% max surge",
                ],
            ),
            is("set env deploy/d X=1", "deployment.apps/d env updated"),
            has("rollout status deploy/d --timeout=60s", &["successfully rolled out"]),
            is(
                "set resources deploy/d --requests=cpu=10m",
                "deployment.apps/d resource requirements updated",
            ),
            is("set image deploy/d echo=lab.local/echo:1", ""),
            fails("set image deploy/d nope=x", "error: unable to find container named \"nope\""),
            has("rollout status deploy/d --timeout=60s", &["successfully rolled out"]),
            is(
                "rollout history deploy/d",
                "deployment.apps/d \nREVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n3         <none>",
            ),
            has(
                "rollout history deploy/d --revision=2",
                &["deployment.apps/d with revision #2\nPod Template:\n", "X:\t1"],
            ),
            is("rollout undo deploy/d --to-revision=1", "deployment.apps/d rolled back"),
            has("rollout status deploy/d --timeout=60s", &["successfully rolled out"]),
            is(
                "rollout history deploy/d",
                "deployment.apps/d \nREVISION  CHANGE-CAUSE\n2         <none>\n3         <none>\n4         <none>",
            ),
            fails(
                "rollout undo deploy/d --to-revision=9",
                "error: unable to find specified revision 9 in history",
            ),
            is("rollout pause deploy/d", "deployment.apps/d paused"),
            fails("rollout pause deploy/d", "error: deployments.apps \"d\" is already paused"),
            fails(
                "rollout restart deploy/d",
                "error: deployments.apps \"d\" can't restart paused deployment (run rollout resume first)",
            ),
            is("rollout resume deploy/d", "deployment.apps/d resumed"),
            is("rollout restart deploy/d", "deployment.apps/d restarted"),
            has("rollout status deploy/d --timeout=60s", &["successfully rolled out"]),
            is("delete deploy d --cascade=foreground", "deployment.apps \"d\" deleted"),
            is("get rs -o name", ""),
        ],
    );
}

#[test]
fn kubectl_scales_exposes_and_deletes() {
    group(
        "scale",
        &[
            is("create deployment d --image=lab.local/echo:1", "deployment.apps/d created"),
            is("scale deploy d --replicas=2", "deployment.apps/d scaled"),
            fails(
                "scale deploy d --current-replicas=5 --replicas=1",
                "error: Expected replicas to be 5, was 2",
            ),
            has("rollout status deploy/d --timeout=60s", &["successfully rolled out"]),
            is(
                "autoscale deploy d --min=1 --max=3 --cpu-percent=50",
                "horizontalpodautoscaler.autoscaling/d autoscaled",
            ),
            has("get hpa d", &["Deployment/d", "<unknown>/50%   1         3  "]),
            is("delete hpa d", "horizontalpodautoscaler.autoscaling \"d\" deleted"),
            is("expose deploy d --port=90 --target-port=8080 --name=x", "service/x exposed"),
            is(
                "get svc x -o jsonpath={.spec.selector}{.spec.ports[0].port}{.spec.ports[0].targetPort}",
                "{\"app\":\"d\"}908080",
            ),
            has(
                "describe svc x",
                &[
                    "Type:                     ClusterIP",
                    "TargetPort:               8080/TCP",
                    "Endpoints:                10.244.",
                ],
            )
            .current(),
            has("get all", &["pod/d-", "service/x", "deployment.apps/d", "replicaset.apps/d-"]),
            is("get deploy d -o jsonpath={.status.readyReplicas}", "2"),
            is(
                "patch deploy d -p '{\"spec\":{\"replicas\":1,\"template\":{\"spec\":{\"containers\":[{\"name\":\"echo\",\"env\":[{\"name\":\"Q\",\"value\":\"z\"}]}]}}}}'",
                "deployment.apps/d patched",
            ),
            is(
                "get deploy d -o jsonpath={.spec.template.spec.containers[*].image}{.spec.template.spec.containers[0].env}",
                "lab.local/echo:1[{\"name\":\"Q\",\"value\":\"z\"}]",
            ),
            has("rollout status deploy/d --timeout=60s", &["successfully rolled out"]),
            is("delete deploy d --cascade=orphan", "deployment.apps \"d\" deleted"),
            has("get rs", &["DESIRED   CURRENT   READY"]),
            has("get pods -l app=d", &["1/1     Running"]),
            works("delete rs --all --cascade=foreground"),
            is("get pods -l app=d -o name --field-selector=status.phase=Running", ""),
        ],
    );
}
