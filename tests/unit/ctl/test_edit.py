"""patch and label: one object changed where it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from calipy.ctl import editing
from calipy.ctl.selection import one
from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import Conflict, Stored
from calipy.resources import ip_pools, network_policies, nodes
from calipy.resources.metadata import Kind

Ctl = Callable[..., Result]
Read = Callable[..., Any]

OBJECTS = """
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: a, labels: {tier: gold}}
spec: {cidr: 10.1.0.0/16, natOutgoing: true, allowedUses: [Workload]}
---
{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: t}}
---
{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: p}, spec: {egress: [{action: Allow}]}}
---
apiVersion: v1
kind: Node
metadata:
  name: n1
  annotations: {projectcalico.org/ASNumber: "64512", projectcalico.org/RouteReflectorClusterID: 1.2.3.4}
spec: {podCIDRs: [10.9.0.0/24]}
"""
AS, CLUSTER = "projectcalico.org/ASNumber", "projectcalico.org/RouteReflectorClusterID"


@pytest.fixture
def full(ctl: Ctl) -> Ctl:
    """pycalicoctl on a store with objects."""
    assert ctl("apply", "-f", "-", stdin=OBJECTS).exit_code == 0
    return ctl


@pytest.mark.parametrize("form", [[], ["-t", "strategic"], ["-t", "merge"], ["--type", "json"]], ids=str)
def test_a_patch_changes_what_it_names_and_nothing_else(full: Ctl, stored: Read, form: list[str]) -> None:
    patch = '{"spec": {"disabled": true, "natOutgoing": null, "allowedUses": ["Tunnel"]}}'
    result = full("patch", "ippool", "a", "-p", patch, *form)
    assert (result.exit_code, result.stdout) == (0, "Successfully patched 1 'IPPool' resource\n")
    pool = stored(ip_pools.KIND, "a").value
    assert (pool.spec.cidr, pool.spec.disabled, pool.spec.nat_outgoing) == ("10.1.0.0/16", True, False)
    assert pool.spec.allowed_uses == ("Tunnel",)
    assert pool.metadata.labels == {"tier": "gold"}


def test_a_patch_may_be_yaml(full: Ctl, stored: Read) -> None:
    assert full("patch", "pools", "a", "--patch", "metadata: {labels: {a: b}}").exit_code == 0
    assert stored(ip_pools.KIND, "a").value.metadata.labels == {"tier": "gold", "a": "b"}


# patch of Node n1 | its annotations AS and CLUSTER afterwards
NODES: list[tuple[str, str | None, str | None]] = [
    ('{"spec": {"bgp": {"routeReflectorClusterID": "244.0.0.1"}}}', "64512", "244.0.0.1"),
    ('{"spec": {"bgp": {"asNumber": "1.10"}}}', "65546", "1.2.3.4"),
    ('{"spec": {"bgp": {"asNumber": null}}}', None, "1.2.3.4"),
    ('{"spec": {"bgp": null}}', None, None),
    ('{"metadata": {"annotations": {"projectcalico.org/ASNumber": "7"}}}', "7", "1.2.3.4"),
    ('{"spec": {"podCIDRs": ["10.9.0.0/24"], "bgp": {"asNumber": 7}}}', "7", "1.2.3.4"),
]


@pytest.mark.parametrize(("patch", "as_number", "cluster"), NODES, ids=[row[0] for row in NODES])
def test_a_patch_of_calicos_node_changes_annotations(
    full: Ctl, stored: Read, patch: str, as_number: str | None, cluster: str | None
) -> None:
    assert full("patch", "node", "n1", "-p", patch).exit_code == 0
    node = stored(nodes.KIND, "n1").value
    assert (node.metadata.annotations.get(AS), node.metadata.annotations.get(CLUSTER)) == (as_number, cluster)
    assert node.spec.pod_cidrs == ("10.9.0.0/24",)


def test_a_patched_policy_is_completed(full: Ctl, stored: Read) -> None:
    assert full("patch", "np", "default.p", "-p", '{"spec": {"tier": "t", "types": null}}').exit_code == 0
    policy = stored(network_policies.KIND, "p", "default").value
    assert (policy.spec.tier, policy.spec.types) == ("t", ("Egress",))
    assert policy.metadata.labels == {"projectcalico.org/tier": "t"}


# arguments of patch | what is said
REFUSED = [
    ("ippool a -p {]", "error: --patch is refused:\n  line 1, column 2: is not YAML: "),
    ("ippool a -p 7", "error: --patch '7': is no object; write one, "),
    ("ippool a -p [{}] -t json", "error: --patch: is a list of operations (RFC 6902), which this program doesn't know"),
    (
        'ippool a -p {"spec":{"$patch":"replace"}}',
        "error: --patch is refused:\n  spec.$patch 'replace': is a directive, which this program doesn't know; ",
    ),
    (
        'ippool a -p {"spec":{"natOutgoin":true}}',
        "error: IPPool/a is refused:\n  spec.natOutgoin True: is not known; did you mean natOutgoing?\n",
    ),
    (
        'ippool a -p {"spec":{"natOutgoing":"yes"}}',
        "error: IPPool/a is refused:\n  spec.natOutgoing 'yes': Expected `bool`, got `str`; see the schema of ",
    ),
    (
        'ippool a -p {"spec":{"cidr":"10.2.0.0/16"}}',
        "error: IPPool/a is refused:\n  spec.cidr '10.2.0.0/16': was 10.1.0.0/16 and can't change; ",
    ),
    (
        'ippool a -p {"spec":{"vxlanMode":"Always","ipipMode":"Always"}}',
        "error: IPPool/a is refused:\n  spec.vxlanMode 'Always': can't be combined with ipipMode; ",
    ),
    (
        'ippool a -p {"status":{}}',
        "error: IPPool/a is refused:\n  status {}: is written by who watches the object, and by nobody else; ",
    ),
    (
        'ippool a -p {"metadata":{"name":"b"}}',
        "error: IPPool/a is refused:\n  metadata.name 'b': was 'a' and can't change; make a new object\n",
    ),
    (
        'np p -p {"spec":{"tier":"nowhere"}}',
        "error: NetworkPolicy/default/p is refused:\n  spec.tier 'nowhere': does not exist; make the Tier first",
    ),
    (
        'node n1 -p {"spec":{"bgp":{"asNo":7}}}',
        "error: Node/n1 is refused:\n  spec.bgp.asNo 7: is no field of Node; see the Node resource in ",
    ),
    ("ippool nope -p {}", "error: IPPool/nope does not exist"),
    ("gateways a -p {}", "error: kind 'gateways': is not known; known are "),
]


@pytest.mark.parametrize(("line", "said"), REFUSED, ids=[line for line, _ in REFUSED])
def test_a_patch_that_can_not_be_is_explained_and_changes_nothing(full: Ctl, line: str, said: str) -> None:
    before = full("get", "ippools,np,nodes", "-o", "json").stdout
    result = full("patch", *line.split(" "))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(said)
    assert full("get", "ippools,np,nodes", "-o", "json").stdout == before


# arguments of label | what is said | labels afterwards
LABELS: list[tuple[str, str, Mapping[str, str]]] = [
    ("ippools a rack=r1", "Successfully set label rack on ippools a\n", {"tier": "gold", "rack": "r1"}),
    ("ippool a tier=gold", "Successfully updated label tier on ippool a\n", {"tier": "gold"}),
    ("ippool a tier=lead --overwrite", "Successfully updated label tier on ippool a\n", {"tier": "lead"}),
    ("ippool a rack=r1 --overwrite", "Successfully set label rack on ippool a\n", {"tier": "gold", "rack": "r1"}),
    ("ippool a rack=", "Successfully set label rack on ippool a\n", {"tier": "gold", "rack": ""}),
    ("ippool a tier --remove", "Successfully removed label tier from ippool a\n", {}),
]


@pytest.mark.parametrize(("line", "said", "labels"), LABELS, ids=[line for line, _, _ in LABELS])
def test_labels_are_set_and_removed(full: Ctl, stored: Read, line: str, said: str, labels: Mapping[str, str]) -> None:
    result = full("label", *line.split(" "))
    assert (result.exit_code, result.stderr, result.stdout) == (0, "", said)
    assert stored(ip_pools.KIND, "a").value.metadata.labels == labels


NO_LABELS = [
    (
        "ippool a tier=lead",
        "error: label of ippool a 'tier': is there already, and its value is 'gold'; give --overwrite to put another",
    ),
    ("ippool a rack --remove", "error: label of ippool a 'rack': is not there; see `get -o yaml` for those that are"),
    ("ippool a rack", "error: label 'rack': can't be understood; write key=value, or key and --remove"),
    ("ippool a tier=gold --remove", "error: label 'tier=gold': can't be understood; write key, to remove it"),
    ("ippool a =gold", "error: label '=gold': can't be understood; write key=value, or key and --remove"),
    ("ippool a a=b --remove --overwrite", "error: label: --overwrite and --remove contradict each other; give one"),
    ("ippool a a=!", "error: IPPool/a is refused:\n  metadata.labels[a] '!': can't be the value of a label; "),
    ("ippool nope a=b", "error: IPPool/nope does not exist"),
]


@pytest.mark.parametrize(("line", "said"), NO_LABELS, ids=[line for line, _ in NO_LABELS])
def test_a_label_that_can_not_be_is_explained(full: Ctl, stored: Read, line: str, said: str) -> None:
    result = full("label", *line.split(" "))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(said)
    assert stored(ip_pools.KIND, "a").value.metadata.labels == {"tier": "gold"}


async def test_a_change_by_somebody_else_meanwhile_is_not_lost(full: Ctl, store_path: Path) -> None:
    store = await SQLiteStore.open(store_path)
    real, calls = store.update, 0

    async def late(kind: Kind[Any], old: Stored[Any], new: Any) -> Stored[Any]:
        nonlocal calls
        calls += 1
        if calls == 1:
            fresh = await store.get(kind, "a")
            await real(kind, fresh, editing.patched(ip_pools.KIND, fresh.value, {"spec": {"disabled": True}}))
        return await real(kind, old, new)

    store.update = late  # type: ignore[method-assign, assignment]
    said: list[str] = []
    try:
        await editing.patch(store, one("ippool/a", ""), {"spec": {"natOutgoing": False}}, said.append)
        spec = (await store.get(ip_pools.KIND, "a")).value.spec
        assert (calls, spec.disabled, spec.nat_outgoing) == (2, True, False)

        async def beaten(kind: Kind[Any], old: Stored[Any], new: Any) -> Stored[Any]:
            raise Conflict("somebody was quicker")

        store.update = beaten  # type: ignore[method-assign]
        with pytest.raises(Conflict):
            await editing.patch(store, one("ippool/a", ""), {"spec": {"natOutgoing": True}}, said.append)
    finally:
        await store.close()
    assert said == ["Successfully patched 1 'IPPool' resource"]
