"""What manifests/ says against what there is: names, mounts, commands, environment, and the API server's verbs one by
one, derived from the code that asks for them."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from calipy.__main__ import calipy
from calipy.agent.feed import watched
from calipy.bgp.sidecar import liveness_command
from calipy.node import probe
from calipy.node.bootstrap import _KUBEADM
from calipy.resources.metadata import Kind
from calipy.settings import Settings, known, read
from image.__main__ import NAME
from tests.netns.test_agent_contained import CAPABILITIES

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
FILES = sorted(MANIFESTS.rglob("*.yaml"))
Grant = tuple[str, str, str]
"""API group, resource, verb."""
EMBEDDED = {("", "nodes", "create"), ("", "pods", "create"), ("", "pods", "delete")}
"""What is asked of the embedded store alone: elsewhere kubelet and the scheduler make Nodes and Pods."""
OF_COMMANDS = ("snapshot.py",)
"""What `pycalicoctl ipam` uses and no agent does."""
SECRETS = {("", "secrets", "get")}
"""For those who use BGP passwords: a component."""


def documents(path: Path) -> list[Any]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def base() -> Iterator[Any]:
    for name in documents(MANIFESTS / "base/kustomization.yaml")[0]["resources"]:
        yield from documents(MANIFESTS / "base" / name)


OBJECTS = {(found["kind"], found["metadata"]["name"]): found for found in base()}
POD = OBJECTS["DaemonSet", "calipy-node"]["spec"]["template"]["spec"]
CONTAINERS = {found["name"]: found for found in POD["initContainers"] + POD["containers"]}


def environment(container: Any) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container.get("env", ())}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(MANIFESTS)))
def test_every_manifest_is_one_and_part_of_something(path: Path) -> None:
    assert all({"apiVersion", "kind"} <= document.keys() for document in documents(path))
    if path.name == "kustomization.yaml":
        (found,) = documents(path)
        named = [*found.get("resources", ()), *(patch["path"] for patch in found.get("patches", ()))]
        assert [name for name in named if not (path.parent / name).exists()] == []
    else:
        (found,) = documents(path.parent / "kustomization.yaml")
        assert path.name in [*found.get("resources", ()), *(patch["path"] for patch in found.get("patches", ()))]


def test_what_refers_to_something_finds_it() -> None:
    labels = OBJECTS["DaemonSet", "calipy-node"]["spec"]["selector"]["matchLabels"]
    assert OBJECTS["DaemonSet", "calipy-node"]["spec"]["template"]["metadata"]["labels"] == labels
    assert ("ServiceAccount", POD["serviceAccountName"]) in OBJECTS
    for kind in ("ClusterRole", "Role"):
        binding = OBJECTS[f"{kind}Binding", "calipy-node"]
        assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == (kind, "calipy-node")
        assert [subject["name"] for subject in binding["subjects"]] == ["calipy-node"]
        assert (kind, "calipy-node") in OBJECTS
    assert OBJECTS["Role", "calipy-node"]["rules"][0]["resourceNames"] == [_KUBEADM[0]]
    assert OBJECTS["Role", "calipy-node"]["metadata"]["namespace"] == _KUBEADM[1]
    volumes = {volume["name"] for volume in POD["volumes"]}
    mounted = {mount["name"] for container in CONTAINERS.values() for mount in container["volumeMounts"]}
    assert mounted == volumes


def test_the_image_is_the_one_that_is_made_here_and_it_may_be_loaded_or_pulled() -> None:
    (image,) = documents(MANIFESTS / "base/kustomization.yaml")[0]["images"]
    assert f"{image['newName']}:{image['newTag']}" == NAME
    for container in CONTAINERS.values():
        assert (container["image"], container["imagePullPolicy"]) == (image["name"], "IfNotPresent")


def patched() -> Iterator[Any]:
    """Containers of overlays and components."""
    for path in MANIFESTS.glob("*/*/node.yaml"):
        (document,) = documents(path)
        assert (document["kind"], document["metadata"]["name"]) in OBJECTS
        yield from document["spec"]["template"]["spec"]["containers"]


@pytest.mark.parametrize("container", [*CONTAINERS.values(), *patched()], ids=lambda found: found["name"])
def test_every_variable_has_an_effect_and_every_command_exists(container: Any) -> None:
    assert container["name"] in CONTAINERS
    variables = environment(container)
    assert [name for name in variables if name not in known() and not name.startswith("FELIX_")] == []
    variables |= {name: "n1" for name in ("NODENAME", "NAMESPACE") if name in variables}
    read({"NODENAME": "n1", **{name: text for name, text in variables.items() if name != "CALIPY_DATASTORE"}})
    for command in commands(container):
        program, verb, *options = command
        assert program == "calipy"
        assert verb in calipy.list_commands(None)  # type: ignore[arg-type]
        if verb == "health":
            assert set(options) <= {*probe._QUESTIONS, "--bgp-live"}


def commands(container: Any) -> Iterator[list[str]]:
    if "command" in container:
        yield container["command"]
    for name in ("readinessProbe", "livenessProbe"):
        command = container.get(name, {}).get("exec", {}).get("command", ["/bin/sh"])
        if command[0] != "/bin/sh":
            yield command


def test_the_sidecars_probe_is_its_own() -> None:
    settings = read({"NODENAME": "n1", **environment(CONTAINERS["bgp"])})
    said = CONTAINERS["bgp"]["livenessProbe"]["exec"]["command"]
    assert tuple(said) == liveness_command(settings.bgp_folder)


def folders(name: str) -> dict[str, str]:
    """Where a container has which of the host's folders, or what else."""
    places = {
        volume["name"]: volume.get("hostPath", {}).get("path") or next(key for key in volume if key != "name")
        for volume in POD["volumes"]
    }
    return {mount["mountPath"]: places[mount["name"]] for mount in CONTAINERS[name]["volumeMounts"]}


def test_each_folder_that_is_written_is_mounted_and_no_other() -> None:
    variables = {**environment(CONTAINERS["agent"]), "NODENAME": "n1", "CALIPY_DATASTORE": "", "NAMESPACE": ""}
    settings: Settings = read(variables)
    token = "/var/run/secrets/kubernetes.io/serviceaccount"
    assert folders("agent") == {
        str(settings.run_folder): "/run/calipy",
        str(settings.bgp_folder): "emptyDir",
        str(settings.state_folder): "/var/lib/calico",
        str(settings.cni_configuration_folder): "/etc/cni/net.d",
        str(settings.sysctl_folder): "/proc/sys/net",
        "/tmp": "emptyDir",
        token: "projected",
    }
    assert folders("bgp") == {str(settings.bgp_folder): "emptyDir", "/tmp": "emptyDir"}
    assert folders("install-cni") == {CONTAINERS["install-cni"]["command"][2]: "/opt/cni/bin"}


def test_containers_have_what_they_need_and_no_more() -> None:
    added = {name: found["securityContext"]["capabilities"].get("add", []) for name, found in CONTAINERS.items()}
    assert {name.lower() for name in added["agent"]} == set(CAPABILITIES)
    assert (added["bgp"], added["install-cni"]) == (["NET_BIND_SERVICE"], [])
    for container in CONTAINERS.values():
        context = container["securityContext"]
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context["readOnlyRootFilesystem"]
        assert "privileged" not in context
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert POD["automountServiceAccountToken"] is False
    assert not {"hostPID", "hostIPC", "shareProcessNamespace"} & POD.keys()
    assert "mountPropagation" not in str(POD)


# --- RBAC ---


def granted(*roles: Any) -> list[Grant]:
    return [
        (group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


def asked() -> Iterator[Grant]:
    """What the agent's code asks a store for."""
    for kind in watched():
        yield from ((kind.group, kind.resource, verb) for verb in ("list", "watch"))
    for shop in ("agent", "bgp", "cni", "felix", "ipam", "node"):
        for path in sorted((ROOT / "calipy" / shop).rglob("*.py")):
            if path.name in OF_COMMANDS:
                continue
            for call in ast.walk(ast.parse(path.read_text())):
                if isinstance(call, ast.Call):
                    yield from _asked(call)


def _asked(call: ast.Call) -> Iterator[Grant]:
    """`store.get(nodes.KIND, ...)`, `_create(store, tiers.KIND, ...)`."""
    verb = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func).removeprefix("_")
    kinds = [each for each in call.args[:2] if isinstance(each, ast.Attribute) and each.attr == "KIND"]
    if verb not in ("get", "list", "create", "update", "delete") or not kinds:
        return
    kind: Kind[Any] = importlib.import_module(f"calipy.resources.{ast.unparse(kinds[0].value)}").KIND
    if verb == "update":
        yield kind.group, f"{kind.resource}{'/status' if kind.name in STATUS_ALONE else ''}", "patch"
    else:
        yield kind.group, kind.resource, verb


STATUS_ALONE = ("Node", "Pod")
"""Of these an agent changes nothing but status and annotations, which go with it. A NodeReport's status is no part
apart."""


def test_the_agents_role_is_what_the_code_asks_for_verb_by_verb() -> None:
    roles = OBJECTS["ClusterRole", "calipy-node"], OBJECTS["Role", "calipy-node"]
    found = granted(*roles)
    assert len(found) == len(set(found)), "nothing is granted twice"
    assert {verb for _, _, verb in found} <= {"get", "list", "watch", "create", "patch", "delete"}
    assert set(found) == set(asked()) - EMBEDDED - SECRETS
    (role, _) = documents(MANIFESTS / "components/bgp-passwords/role.yaml")
    assert set(granted(role)) == SECRETS
