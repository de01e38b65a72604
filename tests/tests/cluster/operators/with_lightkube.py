"""An operator on lightkube, through create, change, a stored-version migration and deletion with a finalizer.

with_lightkube.py KUBECONFIG NAMESPACE"""

import sys
import threading
import time

from lightkube import ApiError, Client, KubeConfig
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta, OwnerReference
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
from lightkube.resources.core_v1 import ConfigMap
from lightkube.types import PatchType, on_error_retry

KUBECONFIG, NAMESPACE = sys.argv[1:]
GROUP, PLURAL = "lightkube.windlass.dev", "gizmos"
NAME, FINALIZER = f"{PLURAL}.{GROUP}", f"{GROUP}/keep"
VERSIONS = {v: create_namespaced_resource(GROUP, v, "Gizmo", PLURAL) for v in ("v1", "v2")}
CONFIG = KubeConfig.from_file(KUBECONFIG)


def connect(manager):
    return Client(config=CONFIG, namespace=NAMESPACE, field_manager=manager)


def operate(gizmo, stop, failures):
    """Keeps a ConfigMap for each gizmo, and takes its finalizer off when it goes."""
    api = connect("operator")
    try:
        for event, seen in api.watch(gizmo, server_timeout=5, on_error=on_error_retry):
            if stop.is_set():
                return
            name = seen.metadata.name
            finalizers = seen.metadata.finalizers or []
            if event == "DELETED":
                continue
            if seen.metadata.deletionTimestamp:
                if FINALIZER in finalizers:
                    rest = [f for f in finalizers if f != FINALIZER]
                    api.patch(gizmo, name, {"metadata": {"finalizers": rest}}, patch_type=PatchType.MERGE)
                continue
            if FINALIZER not in finalizers:
                api.patch(gizmo, name, {"metadata": {"finalizers": [*finalizers, FINALIZER]}}, patch_type=PatchType.MERGE)
            owner = OwnerReference(apiVersion=seen.apiVersion, kind="Gizmo", name=name, uid=seen.metadata.uid)
            metadata = ObjectMeta(name=name, namespace=NAMESPACE, ownerReferences=[owner])
            api.apply(ConfigMap(metadata=metadata, data={"size": str(seen["spec"]["size"])}), force=True)
            if (seen.status or {}).get("size") != seen["spec"]["size"]:
                status = gizmo(metadata=ObjectMeta(name=name), status={"size": seen["spec"]["size"]})
                api.apply(gizmo.Status(status), force=True)
    except Exception as error:  # the story fails with it
        if not stop.is_set():
            failures.append(error)


def definition():
    size = {"type": "object", "properties": {"size": {"type": "integer"}, "colour": {"type": "string"}}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": size, "status": size}}}
    versions = [
        {"name": v, "served": True, "storage": v == "v1", "schema": schema, "subresources": {"status": {}}} for v in VERSIONS
    ]
    names = {"plural": PLURAL, "kind": "Gizmo", "singular": "gizmo"}
    return CustomResourceDefinition.from_dict({
        "metadata": {"name": NAME},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": versions},
    })


def until(what, probe, seconds=30, failures=()):
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        assert not failures, failures
        try:
            last = probe()
            if last:
                return last
        except ApiError as error:
            last = error
        time.sleep(0.1)
    raise AssertionError(f"{what}: {last}")


def gone(probe):
    try:
        probe()
    except ApiError as error:
        return error.status.code == 404
    return False


def story(api, failures):
    old, new = VERSIONS["v1"], VERSIONS["v2"]
    stop = threading.Event()
    threading.Thread(target=operate, args=(old, stop, failures), daemon=True).start()
    wait = lambda what, probe: until(what, probe, failures=failures)
    made = api.create(old(metadata=ObjectMeta(name="a", namespace=NAMESPACE), spec={"size": 2}))
    assert made["spec"] == {"size": 2} and made.metadata.generation == 1, made
    wait("the ConfigMap", lambda: api.get(ConfigMap, "a").data == {"size": "2"})
    wait("the status", lambda: (api.get(old, "a").status or {}).get("size") == 2)
    wait("the finalizer", lambda: api.get(old, "a").metadata.finalizers == [FINALIZER])
    stale = api.get(old, "a")
    api.patch(old, "a", {"spec": {"size": 5}}, patch_type=PatchType.MERGE)
    wait("the change", lambda: api.get(ConfigMap, "a").data == {"size": "5"})
    stale["spec"]["size"] = 9
    try:
        api.replace(stale)
        raise AssertionError("a stale write")
    except ApiError as error:
        assert error.status.code == 409, error
    # two appliers: the second owns nothing it did not say, and may not take what is another's
    other = connect("other")
    applied = other.apply(old(metadata=ObjectMeta(name="a", namespace=NAMESPACE), spec={"colour": "red"}))
    assert applied["spec"] == {"size": 5, "colour": "red"}, applied
    try:
        other.apply(old(metadata=ObjectMeta(name="a", namespace=NAMESPACE), spec={"colour": "red", "size": 6}))
        raise AssertionError("a field of another's")
    except ApiError as error:
        assert error.status.code == 409 and "spec.size" in str(error), error
    stop.set()

    definition = api.get(CustomResourceDefinition, NAME)
    for version in definition.spec.versions:
        version.storage = version.name == "v2"
    api.replace(definition)
    stored = api.get(CustomResourceDefinition, NAME).status.storedVersions
    assert stored == ["v1", "v2"], stored
    for item in api.list(new, chunk_size=1):
        item.apiVersion, item.kind = f"{GROUP}/v2", "Gizmo"
        wait("it is stored anew", lambda item=item: api.replace(item))
    api.patch(CustomResourceDefinition.Status, NAME, {"status": {"storedVersions": ["v2"]}}, patch_type=PatchType.MERGE)
    definition = api.get(CustomResourceDefinition, NAME)
    definition.spec.versions = [version for version in definition.spec.versions if version.name == "v2"]
    api.replace(definition)
    wait("the old version is gone", lambda: gone(lambda: list(api.list(old))))
    stop = threading.Event()
    threading.Thread(target=operate, args=(new, stop, failures), daemon=True).start()
    api.patch(new, "a", {"spec": {"size": 7}}, patch_type=PatchType.MERGE)
    wait("a change of the new version", lambda: api.get(ConfigMap, "a").data == {"size": "7"})
    api.delete(new, "a")
    wait("the gizmo is gone", lambda: gone(lambda: api.get(new, "a")))
    wait("its ConfigMap is gone", lambda: gone(lambda: api.get(ConfigMap, "a")))
    stop.set()


def main():
    api, failures = connect("story"), []
    gone(lambda: api.delete(CustomResourceDefinition, NAME))
    until("an earlier definition is gone", lambda: gone(lambda: api.get(CustomResourceDefinition, NAME)))
    api.create(definition())
    api.wait(CustomResourceDefinition, NAME, for_conditions=["Established"])
    try:
        story(api, failures)
        assert not failures, failures
    finally:
        api.delete(CustomResourceDefinition, NAME)
    print("done")


main()
