//! Commands that change nothing.

use super::{fails, group, has, is, warns, works};

const MAPS: &str = "apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: a, labels: {tier: x, app: one}}, data: {k: '2'}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: b, labels: {tier: why}}, data: {k: '1', l: '3'}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: c, labels: {tier: why, app: two}}, data: {k: '3'}}
";

#[test]
fn kubectl_get_shows_selects_and_sorts() {
    group(
        "get",
        &[
            is("create -f -", "configmap/a created\nconfigmap/b created\nconfigmap/c created").input(MAPS),
            is("get cm -l tier -o name", "configmap/a\nconfigmap/b\nconfigmap/c"),
            is("get cm -l tier=why,app -o name", "configmap/c"),
            is("get cm -l 'tier in (x,z)' -o name", "configmap/a"),
            is("get cm -l tier,!app -o name", "configmap/b"),
            is("get cm -l tier!=why,tier -o jsonpath={.items[*].metadata.name}", "a"),
            is("get cm --field-selector=metadata.name=b -o name", "configmap/b"),
            is("get cm -l tier --sort-by=.data.k -o name", "configmap/b\nconfigmap/a\nconfigmap/c"),
            is("get cm -l tier --chunk-size=1 -o name", "configmap/a\nconfigmap/b\nconfigmap/c"),
            is(
                "get cm -l tier -o custom-columns=NAME:.metadata.name,L:.data.l",
                "NAME   L\na      <none>\nb      3\nc      <none>",
            ),
            is("get cm a b -o jsonpath={range.items[*]}{.data.k}{end}", "21"),
            is("get cm a -o go-template={{.kind}}/{{.apiVersion}}", "ConfigMap/v1"),
            has("get cm b", &["NAME   DATA   AGE\nb      2      "]),
            has("get cm a --show-labels", &["LABELS\na      1", "app=one,tier=x"]),
            has("get cm a -L tier,app", &["TIER   APP\n", "x      one"]),
            has(
                "get cm a -o yaml",
                &["apiVersion: v1\ndata:\n  k: \"2\"\nkind: ConfigMap\n", "\n  namespace: {ns}\n"],
            ),
            has(
                "get cm a -o json",
                &["{\n    \"apiVersion\": \"v1\",\n    \"data\": {\n        \"k\": \"2\"\n    },\n"],
            ),
            has("get cm -A -l tier", &["NAMESPACE", "{ns}"]),
            has("get cm/a ns/{ns} --no-headers", &["configmap/a   1", "namespace/{ns}   Active"]),
            is("get -f - -o name", "configmap/a\nconfigmap/b\nconfigmap/c").input(MAPS),
            fails("get cm nope", "Error from server (NotFound): configmaps \"nope\" not found"),
            is("get cm nope --ignore-not-found", ""),
            fails("get nopes", "error: the server doesn't have a resource type \"nopes\""),
            fails(
                "get pods -l ==",
                "Error from server (BadRequest): Unable to find \"/v1, Resource=pods\" that match label selector \"==\", field selector \"\": found '==', expected: !, identifier, or 'end of string'",
            ),
            fails(
                "get pods --field-selector=foo=bar",
                "Error from server (BadRequest): Unable to find \"/v1, Resource=pods\" that match label selector \"\", field selector \"foo=bar\": field label not supported: foo",
            ),
            warns("get pods", "No resources found in {ns} namespace."),
            warns(
                "get endpoints kubernetes -n default",
                "Warning: v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
            ),
            is("get --raw /healthz", "ok"),
            fails(
                "get --raw /nope",
                "Error from server (NotFound): the server could not find the requested resource",
            ),
            is("get cm -l tier -w --request-timeout=1s -o name", "configmap/a\nconfigmap/b\nconfigmap/c"),
        ],
    );
}

#[test]
fn kubectl_discovers_and_explains() {
    group(
        "discover",
        &[
            has("api-versions", &["admissionregistration.k8s.io/v1\n", "apps/v1\n", "batch/v1\n", "\nv1\n"]),
            is(
                "api-resources --api-group=apps -o name",
                "controllerrevisions.apps\ndaemonsets.apps\ndeployments.apps\nreplicasets.apps\nstatefulsets.apps",
            ),
            has(
                "api-resources --api-group=batch",
                &["cronjobs   cj           batch/v1     true         CronJob"],
            ),
            has("api-resources --namespaced=false -o name", &["namespaces\nnodes\npersistentvolumes\n"]),
            has(
                "explain deploy.spec.strategy --recursive",
                &["VERSION:", "rollingUpdate\t<", "maxSurge\t<", "type\t<string>"],
            ),
            has(
                "explain pods.spec.containers.livenessProbe",
                &[
                    "periodSeconds\t<integer>",
                    "httpGet\t<",
                    "Seconds between checks.",
                    "Says whether the container lives",
                ],
            ),
            has(
                "explain cm",
                &["Settings for pods.", "Name of the schema this object", "Keys and their texts."],
            ),
            has("explain cm.metadata.labels", &["Labels, by which selectors find the object."]),
            has("get cs --no-headers", &["controller-manager   Healthy   ok", "etcd-0 ", "scheduler "]),
            fails("explain pods.nope", "error: field \"nope\" does not exist"),
            has("version -o json", &["\"serverVersion\": {", "\"gitVersion\": \"v1.36."]),
            has("cluster-info", &[" is running at ", "kubectl cluster-info dump"]),
            has(
                "config view --minify",
                &["certificate-authority-data: DATA+OMITTED", "current-context: kubernetes-admin@kubernetes"],
            ),
            fails("top node", "error: Metrics API not available"),
            fails("top pod", "error: Metrics API not available"),
            works(
                "get all,cm,secrets,sa,pvc,ingress,networkpolicy,role,rolebinding,limits,quota,ep,events,endpointslices,leases,pdb",
            ),
            works(
                "get nodes,pv,clusterroles,clusterrolebindings,sc,csidrivers,csinodes,csr,pc,runtimeclasses,ingressclasses,crd,apiservices,validatingwebhookconfigurations,mutatingwebhookconfigurations",
            ),
        ],
    );
}

#[test]
fn kubectl_knows_who_may() {
    group(
        "auth",
        &[
            is("auth can-i delete nodes", "yes"),
            has(
                "auth can-i --list",
                &[
                    "*.*                                             []                  []               [*]\n                                                [*]                 []               [*]\nself",
                ],
            ),
            is(
                "create role r --verb=get,list --resource=pods,deployments.apps",
                "role.rbac.authorization.k8s.io/r created",
            ),
            is(
                "create rolebinding r --role=r --serviceaccount={ns}:default",
                "rolebinding.rbac.authorization.k8s.io/r created",
            ),
            is("auth can-i list pods --as=system:serviceaccount:{ns}:default", "yes"),
            fails(
                "get secrets --as=system:serviceaccount:{ns}:default",
                "Error from server (Forbidden): secrets is forbidden: User \"system:serviceaccount:{ns}:default\" cannot list resource \"secrets\" in API group \"\" in the namespace \"{ns}\"",
            ),
            is(
                "create rolebinding v --clusterrole=view --user=jane",
                "rolebinding.rbac.authorization.k8s.io/v created",
            ),
            is("auth can-i get deployments.apps --as=jane", "yes"),
            has("describe clusterrole view", &["configmaps", "deployments.apps", "[get list watch]"]),
            has("create token default", &["eyJ"]).current(),
            has("auth whoami", &["Username", "kubernetes-admin"]).current(),
            fails(
                "certificate approve nope",
                "Error from server (NotFound): certificatesigningrequests.certificates.k8s.io \"nope\" not found",
            ),
        ],
    );
}
