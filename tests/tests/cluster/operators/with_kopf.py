"""An operator on kopf, with mutating and validating webhooks, through create, change, a stored-version migration and deletion.

with_kopf.py KUBECONFIG NAMESPACE; runs where the API server reaches the loopback that it listens on."""

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time

import kopf
from kubernetes import client, config
from kubernetes.client.rest import ApiException

KUBECONFIG, NAMESPACE = sys.argv[1:]
os.environ["KUBECONFIG"] = KUBECONFIG
GROUP, PLURAL = "kopf.windlass.dev", "widgets"
NAME = f"{PLURAL}.{GROUP}"
forgotten = []


@kopf.on.startup()
def startup(settings, **_):
    # kopf's own certificates need a library that does not read OpenSSL's version any more
    place = tempfile.mkdtemp()
    certificate, key = f"{place}/certificate", f"{place}/key"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    name = ["-subj", "/CN=kopf", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*new, *name, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    settings.admission.server = kopf.WebhookServer(
        addr="127.0.0.1", host="127.0.0.1", port=9444, certfile=certificate, pkeyfile=key, cafile=certificate
    )
    settings.admission.managed = GROUP
    settings.posting.enabled = False


@kopf.on.login()
def login(**kwargs):
    return kopf.login_with_kubeconfig(**kwargs)


@kopf.on.mutate(GROUP, PLURAL)
def colour(spec, patch, **_):
    if not spec.get("colour"):
        patch.spec["colour"] = "red"


@kopf.on.validate(GROUP, PLURAL)
def size(spec, warnings, **_):
    warnings.append("looked at")
    if spec.get("size", 0) < 0:
        raise kopf.AdmissionError("a size is not negative", code=422)


@kopf.on.create(GROUP, PLURAL)
@kopf.on.update(GROUP, PLURAL, field="spec.size")
def keep(name, spec, patch, **_):
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"size": str(spec["size"])}}
    kopf.adopt(body)
    core = client.CoreV1Api()
    try:
        core.create_namespaced_config_map(NAMESPACE, body)
    except ApiException as error:
        if error.status != 409:
            raise
        # the owner too: an owner of a version that is served no more is nobody's
        owners = {"ownerReferences": body["metadata"]["ownerReferences"]}
        core.patch_namespaced_config_map(name, NAMESPACE, {"metadata": owners, "data": body["data"]})
    patch.status["size"] = spec["size"]


@kopf.on.delete(GROUP, PLURAL)
def forget(name, **_):
    forgotten.append(name)


def definition():
    loose = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    spec = {"type": "object", "properties": {"size": {"type": "integer"}, "colour": {"type": "string"}}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": loose}}}
    versions = [
        {"name": v, "served": True, "storage": v == "v1", "schema": schema, "subresources": {"status": {}}} for v in ("v1", "v2")
    ]
    names = {"plural": PLURAL, "kind": "Widget", "singular": "widget"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": versions},
    }


def until(what, probe, seconds=30):
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            last = probe()
            if last:
                return last
        except ApiException as error:
            last = error
        time.sleep(0.1)
    raise AssertionError(f"{what}: {last}")


def gone(probe):
    try:
        probe()
    except ApiException as error:
        return error.status == 404
    return False


def widget(name, size):
    return {"apiVersion": f"{GROUP}/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"size": size}}


def story():
    core, crds, api = client.CoreV1Api(), client.ApiextensionsV1Api(), client.CustomObjectsApi()
    hooks = client.AdmissionregistrationV1Api()
    at = lambda version: (GROUP, version, NAMESPACE, PLURAL)

    def managed():
        both = hooks.list_mutating_webhook_configuration().items + hooks.list_validating_webhook_configuration().items
        ours = [c for c in both if c.metadata.name == GROUP]
        return len(ours) == 2 and all(c.webhooks for c in ours)

    until("kopf's webhooks", managed)
    # a webhook that was just made is asked a moment later
    until("admission", lambda: api.create_namespaced_custom_object(*at("v1"), widget("probe", 1), dry_run="All")["spec"].get("colour"))
    made = api.create_namespaced_custom_object(*at("v1"), widget("a", 2))
    assert made["spec"] == {"size": 2, "colour": "red"}, made
    try:
        api.create_namespaced_custom_object(*at("v1"), widget("b", -1))
        raise AssertionError("a negative size")
    except ApiException as error:
        assert error.status == 422 and "a size is not negative" in error.body, error
    until("the ConfigMap", lambda: core.read_namespaced_config_map("a", NAMESPACE).data == {"size": "2"})
    until("the status", lambda: api.get_namespaced_custom_object(*at("v1"), "a").get("status", {}).get("size") == 2)
    assert api.get_namespaced_custom_object(*at("v2"), "a")["metadata"]["finalizers"], "kopf keeps it"
    api.patch_namespaced_custom_object(*at("v1"), "a", {"spec": {"size": 5}})
    until("the change", lambda: core.read_namespaced_config_map("a", NAMESPACE).data == {"size": "5"})

    crd = crds.read_custom_resource_definition(NAME)
    for version in crd.spec.versions:
        version.storage = version.name == "v2"
    crds.replace_custom_resource_definition(NAME, crd)
    stored = crds.read_custom_resource_definition(NAME).status.stored_versions
    assert stored == ["v1", "v2"], stored
    def rewrite():
        items = api.list_namespaced_custom_object(*at("v2"))["items"]
        for item in items:
            item.setdefault("apiVersion", f"{GROUP}/v2")
            item.setdefault("kind", "Widget")
            api.replace_namespaced_custom_object(*at("v2"), item["metadata"]["name"], item)
        return True
    until("every widget is stored anew", rewrite)
    crds.patch_custom_resource_definition_status(NAME, {"status": {"storedVersions": ["v2"]}})
    crd = crds.read_custom_resource_definition(NAME)
    crd.spec.versions = [version for version in crd.spec.versions if version.name == "v2"]
    crds.replace_custom_resource_definition(NAME, crd)
    until("the old version is gone", lambda: gone(lambda: api.list_namespaced_custom_object(*at("v1"))))
    api.patch_namespaced_custom_object(*at("v2"), "a", {"spec": {"size": 7}})
    until("a change of the new version", lambda: core.read_namespaced_config_map("a", NAMESPACE).data == {"size": "7"}, 60)

    api.delete_namespaced_custom_object(*at("v2"), "a")
    until("the widget is gone", lambda: gone(lambda: api.get_namespaced_custom_object(*at("v2"), "a")))
    assert forgotten == ["a"], forgotten
    until("its ConfigMap is gone", lambda: gone(lambda: core.read_namespaced_config_map("a", NAMESPACE)))


def clean():
    hooks = client.AdmissionregistrationV1Api()
    calls = (
        lambda: hooks.delete_mutating_webhook_configuration(GROUP),
        lambda: hooks.delete_validating_webhook_configuration(GROUP),
        lambda: client.ApiextensionsV1Api().delete_custom_resource_definition(NAME),
    )
    for call in calls:
        try:
            call()
        except ApiException as error:
            if error.status != 404:
                raise


def main():
    config.load_kube_config(KUBECONFIG)
    clean()
    until("an earlier definition is gone", lambda: gone(lambda: client.ApiextensionsV1Api().read_custom_resource_definition(NAME)))
    client.ApiextensionsV1Api().create_custom_resource_definition(definition())
    ready, stop = threading.Event(), threading.Event()
    run = kopf.operator(namespaces=[NAMESPACE], standalone=True, ready_flag=ready, stop_flag=stop)
    thread = threading.Thread(target=lambda: asyncio.run(run), daemon=True)
    thread.start()
    assert ready.wait(30), "kopf does not start"
    try:
        story()
    finally:
        stop.set()
        thread.join(20)
        clean()
    print("done")


main()
