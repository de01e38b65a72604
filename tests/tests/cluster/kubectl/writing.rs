//! Commands that make, change and delete objects nobody acts on.

use super::{fails, group, has, is, warns};

const MAP: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, labels: {a: b}}\ndata: {x: '1', z: '2'}\n";
const LESS: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {x: '3'}\n";
const MORE: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {x: '4'}\n";
const UNKNOWN: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: u}\nbogus: 1\n";

#[test]
fn kubectl_apply_merges_three_ways() {
    group(
        "apply",
        &[
            is("apply -f -", "configmap/m created").input(MAP),
            is("apply -f -", "configmap/m unchanged").input(MAP),
            is("patch cm m -p '{\"data\":{\"theirs\":\"kept\"}}'", "configmap/m patched"),
            is("apply -f -", "configmap/m configured").input(LESS),
            is("get cm m -o jsonpath={.data}{.metadata.labels}", "{\"theirs\":\"kept\",\"x\":\"3\"}"),
            is("apply -f - --dry-run=server", "configmap/m configured (server dry run)").input(MORE),
            is("apply -f - --dry-run=client", "configmap/m configured (dry run)").input(MORE),
            is("get cm m -o jsonpath={.data.x}", "3"),
            is("apply -f - --server-side", "configmap/m serverside-applied").input(LESS),
            is("apply -f - --server-side --field-manager=other", "configmap/m serverside-applied").input(LESS).current(),
            // entries of one second are in no telling order
            is("get cm m --show-managed-fields -o 'jsonpath={.metadata.managedFields[?(@.manager==\"kubectl-client-side-apply\")].operation}'", "").current(),
            is("get cm m --show-managed-fields -o 'jsonpath={.metadata.managedFields[?(@.manager==\"kubectl\")].operation}'", "Apply").current(),
            is("get cm m --show-managed-fields -o 'jsonpath={.metadata.managedFields[?(@.manager==\"other\")].operation}'", "Apply").current(),
            fails("apply -f -", "error: error validating \"STDIN\": error validating data: ValidationError(ConfigMap): unknown field \"bogus\" in io.k8s.api.core.v1.ConfigMap; if you choose to ignore these errors, turn validation off with --validate=false").input(UNKNOWN).debian(),
            fails("apply -f -", "Error from server (BadRequest): error when creating \"STDIN\": ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"bogus\"").input(UNKNOWN).current(),
            warns("apply -f - --validate=warn", "Warning: unknown field \"bogus\"").input(UNKNOWN).current(),
            fails("create -f -", "Error from server (AlreadyExists): error when creating \"STDIN\": configmaps \"m\" already exists").input(LESS),
            // renewed by the server at kubectl's own server-side apply (upstream: `lastAppliedUpdater`)
            is("apply view-last-applied cm/m -o json", "{\n  \"apiVersion\": \"v1\",\n  \"data\": {\n    \"x\": \"3\"\n  },\n  \"kind\": \"ConfigMap\",\n  \"metadata\": {\n    \"name\": \"m\",\n    \"namespace\": \"{ns}\"\n  }\n}").debian(),
            is("replace -f -", "configmap/m replaced").input(MORE),
            is("get cm m -o jsonpath={.data}", "{\"x\":\"4\"}"),
            is("delete -f -", "configmap \"m\" deleted").input(MORE),
            fails("delete -f -", "Error from server (NotFound): error when deleting \"STDIN\": configmaps \"m\" not found").input(MORE),
        ],
    );
}

#[test]
fn kubectl_create_makes_each_kind() {
    group(
        "create",
        &[
            is("create configmap c --from-literal=a=b", "configmap/c created"),
            fails("create configmap c", "error: failed to create configmap: configmaps \"c\" already exists").current(),
            is("create secret generic s --from-literal=x=y", "secret/s created"),
            is("get secret s -o jsonpath={.type}{.data.x}", "OpaqueeQ=="),
            is("create secret docker-registry d --docker-server=r --docker-username=u --docker-password=p", "secret/d created"),
            is("create sa one", "serviceaccount/one created"),
            is("create quota q --hard=pods=10,cpu=4", "resourcequota/q created"),
            is("create pdb p --selector=app=x --min-available=1", "poddisruptionbudget.policy/p created").current(),
            is("create ingress i --rule=foo.com/bar=web:80,tls=t", "ingress.networking.k8s.io/i created"),
            has("get ingress i", &["NAME   CLASS    HOSTS     ADDRESS   PORTS     AGE\ni      <none>   foo.com             80, 443   "]),
            is("create service clusterip a --tcp=80:8080", "service/a created"),
            is("create service nodeport b --tcp=80:8080", "service/b created"),
            is("create service externalname e --external-name=foo.com", "service/e created"),
            is("create service loadbalancer l --tcp=80", "service/l created"),
            has("get svc e", &["NAME   TYPE           CLUSTER-IP   EXTERNAL-IP   PORT(S)   AGE\ne      ExternalName   <none>       foo.com       <none>    "]),
            has("get svc l", &["<pending>     80:3"]),
            is("create cronjob j --image=lab.local/echo:1 --schedule='0 0 1 1 *' -- date", "cronjob.batch/j created").current(),
            has("get cronjob j", &["NAME   SCHEDULE    TIMEZONE   SUSPEND   ACTIVE   LAST SCHEDULE   AGE\nj      0 0 1 1 *   <none>     False     0        <none>"]).current(),
            fails("create -f -", "The Service \"bad\" is invalid: spec.ports[0].nodePort: Invalid value: 99: provided port is not in the valid range. The range of valid ports is 30000-32767")
                .input("apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {type: NodePort, ports: [{port: 80, nodePort: 99}]}\n"),
            fails("create namespace {ns}", "Error from server (AlreadyExists): namespaces \"{ns}\" already exists").debian(),
            fails("create namespace {ns}", "Error from server (AlreadyExists): namespaces \"{ns}\" already exists").current(),
        ],
    );
}

#[test]
fn kubectl_patch_label_annotate_and_edit() {
    group(
        "change",
        &[
            is("create configmap c --from-literal=a=b", "configmap/c created"),
            is("patch cm c -p '{\"data\":{\"p\":\"1\"}}'", "configmap/c patched"),
            is("patch cm c -p '{\"data\":{\"p\":\"1\"}}'", "configmap/c patched (no change)"),
            is("patch cm c --type=merge -p '{\"data\":{\"p\":null}}'", "configmap/c patched"),
            is("patch cm c --type=json -p '[{\"op\":\"add\",\"path\":\"/data/j\",\"value\":\"2\"}]'", "configmap/c patched"),
            is("get cm c -o jsonpath={.data}", "{\"a\":\"b\",\"j\":\"2\"}"),
            fails("patch cm c --type=json -p '[{\"op\":\"remove\",\"path\":\"/data/nope\"}]'", "The request is invalid: the server rejected our request due to an error in our request").current(),
            is("label cm c tier=x", "configmap/c labeled"),
            fails("label cm c tier=y", "error: 'tier' already has a value (x), and --overwrite is false"),
            is("label cm c tier=y --overwrite", "configmap/c labeled"),
            is("label cm c tier-", "configmap/c labeled").debian(),
            is("label cm c tier-", "configmap/c unlabeled").current(),
            is("annotate cm c note='hello there'", "configmap/c annotated"),
            is("annotate cm c note-", "configmap/c annotated"),
            is("edit cm c", "configmap/c edited").editor("sed -i 's/a: b/a: edited/'"),
            is("get cm c -o jsonpath={.data.a}", "edited"),
            is("delete cm c --wait=true", "configmap \"c\" deleted"),
            fails("delete cm c", "Error from server (NotFound): configmaps \"c\" not found"),
            is("delete cm c --ignore-not-found", ""),
            is("create configmap d", "configmap/d created"),
            is("label cm d x=y", "configmap/d labeled"),
            is("delete cm -l x=y", "configmap \"d\" deleted"),
            has("create -f - -o name", &["persistentvolumeclaim/v"])
                .input("apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: v}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n"),
            has("describe pvc v", &["Status:        Pending", "Finalizers:    [kubernetes.io/pvc-protection]", "Used By:       <none>"]),
            is("delete pvc v --timeout=20s", "persistentvolumeclaim \"v\" deleted"),
        ],
    );
}
