"""apply, create, replace: what is written, and what is said of documents that can't be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import Result

from calipy.ctl.documents import Wanted, wanted
from calipy.ctl.sources import Given
from calipy.ctl.writing import write
from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import Conflict, Stored
from calipy.resources import bgp_configurations, ip_pools, nodes, pods
from calipy.resources.metadata import Kind

Ctl = Callable[..., Result]

POOL = """\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: {name}
spec:
  cidr: {cidr}
"""


def pool(name: str = "a", cidr: str = "10.1.0.0/16", more: str = "") -> str:
    return POOL.format(name=name, cidr=cidr) + more


# The examples of Calico's reference, "Resource definitions", as they stand there.
DOCUMENTED = {
    "IPPool": """
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: my.ippool-1
spec:
  cidr: 10.1.0.0/16
  ipipMode: CrossSubnet
  natOutgoing: true
  disabled: false
  nodeSelector: all()
  allowedUses:
    - Workload
    - Tunnel
""",
    "BGPPeer": """
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata:
  name: some.name
spec:
  node: rack1-host1
  peerIP: 192.168.1.1
  asNumber: 63400
""",
    "BGPConfiguration": """
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata:
  name: default
spec:
  logSeverityScreen: Info
  nodeToNodeMeshEnabled: true
  nodeMeshMaxRestartTime: 120s
  asNumber: 63400
  serviceClusterIPs:
  - cidr: 10.96.0.0/12
  serviceExternalIPs:
  - cidr: 104.244.42.129/32
  - cidr: 172.217.3.0/24
  listenPort: 178
  bindMode: NodeIP
  communities:
  - name: bgp-large-community
    value: 63400:300:100
  prefixAdvertisements:
  - cidr: 172.218.4.0/26
    communities:
    - bgp-large-community
    - 63400:120
""",
    "FelixConfiguration": """
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata:
  name: default
spec:
  ipv6Support: false
  ipipMTU: 1400
  chainInsertMode: Append
""",
    "IPReservation": """
apiVersion: projectcalico.org/v3
kind: IPReservation
metadata:
  name: my-ipreservation-1
spec:
  reservedCIDRs:
  - 192.168.2.3
  - 10.0.2.3/32
  - cafe:f00d::/123
""",
    "IPAMConfiguration": """
apiVersion: projectcalico.org/v3
kind: IPAMConfiguration
metadata:
  name: default
spec:
  strictAffinity: false
  maxBlocksPerHost: 4
  kubeVirtVMAddressPersistence: Enabled
""",
    "Node": """
apiVersion: projectcalico.org/v3
kind: Node
metadata:
  name: node-hostname
spec:
  bgp:
    asNumber: 64512
    ipv4Address: 10.244.0.1/24
    ipv6Address: 2001:db8:85a3::8a2e:370:7334/120
    ipv4IPIPTunnelAddr: 192.168.0.1
""",
}


@pytest.mark.parametrize("kind", DOCUMENTED)
def test_calicos_documented_examples_apply_as_they_stand_and_a_second_time_change_nothing(ctl: Ctl, kind: str) -> None:
    first, second = ctl("apply", "-f", "-", stdin=DOCUMENTED[kind]), ctl("apply", "-f", "-", stdin=DOCUMENTED[kind])
    assert (first.exit_code, first.stderr) == (0, "")
    assert [line.split()[1] for line in first.stdout.splitlines()] == ["created"]
    assert [line.split()[1] for line in second.stdout.splitlines()] == ["unchanged"]


def test_what_is_printed_can_be_applied_again(ctl: Ctl) -> None:
    ctl("apply", "-f", "-", stdin="\n---\n".join(DOCUMENTED.values()))
    for output in ("yaml", "json"):
        printed = ctl("get", "ippools,bgppeers,bgpconfigs,felixconfigs,reservations,ipamconfigs,nodes", "-o", output)
        again = ctl("apply", "-f", "-", stdin=printed.stdout)
        assert [line.split()[1] for line in again.stdout.splitlines()] == ["unchanged"] * 7, again.stderr


def test_calicos_node_becomes_annotations_and_leaves_the_agents_own_alone(ctl: Ctl, stored: Callable[..., Any]) -> None:
    ctl(
        "apply", "-f", "-",
        stdin='{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "annotations":'
        ' {"projectcalico.org/IPv4VXLANTunnelAddr": "10.1.0.9"}}, "spec": {"podCIDRs": ["10.9.0.0/24"]}}',
    )  # fmt: skip
    ctl(
        "apply", "-f", "-",
        stdin="apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n1}\n"
        "spec: {bgp: {asNumber: '1.10', routeReflectorClusterID: 244.0.0.1}, orchRefs: [{nodeName: n1}]}\n",
    )  # fmt: skip
    node = stored(nodes.KIND, "n1").value
    assert node.metadata.annotations == {
        "projectcalico.org/IPv4VXLANTunnelAddr": "10.1.0.9",
        "projectcalico.org/ASNumber": str((1 << 16) + 10),
        "projectcalico.org/RouteReflectorClusterID": "244.0.0.1",
    }
    assert node.spec.pod_cidrs == ("10.9.0.0/24",)


WRONG: list[tuple[str, str, list[str]]] = [
    (
        "an address bit behind the prefix",
        pool(cidr="10.1.2.0/16"),
        [
            "error: standard input, document 1: IPPool/a is refused:",
            "  spec.cidr '10.1.2.0/16': has bits set behind its prefix; write 10.1.0.0/16",
        ],
    ),
    (
        "a mistyped field",
        pool(more="  natOutgoin: true\n"),
        [
            "error: standard input, document 1: IPPool/a is refused:",
            "  spec.natOutgoin True: is not known; did you mean natOutgoing?",
        ],
    ),
    (
        "two wrong types, an unknown field and a wrong value in one document",
        pool(cidr="10.1.0.0/99", more="  blockSize: big\n  natOutgoing: 'yes'\n  metric: 3\n"),
        [
            "error: standard input, document 1: IPPool/a is refused:",
            "  spec.metric 3: is not known; known are allowedUses, assignmentMode, blockSize, cidr, disableBGPExport,"
            " disabled, ipipMode, namespaceSelector, natOutgoing, nodeSelector, vxlanMode",
            "  spec.blockSize 'big': Expected `int`, got `str`; see the schema of projectcalico.org/v3 IPPool",
            "  spec.natOutgoing 'yes': Expected `bool`, got `str`; see the schema of projectcalico.org/v3 IPPool",
            "  spec.cidr '10.1.0.0/99': is not a CIDR; write an address and a prefix length, 10.244.0.0/16",
        ],
    ),
    (
        "a required field is missing",
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: a}\nspec: {natOutgoing: true}\n",
        [
            "error: standard input, document 1: IPPool/a is refused:",
            "  spec.cidr: is missing; see the schema of projectcalico.org/v3 IPPool",
        ],
    ),
    (
        "a wrong value deep in a list",
        "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: default}\n"
        "spec: {communities: [{name: a, value: 1:2}, {name: b, value: 7, valeu: x}]}\n",
        [
            "error: standard input, document 1: BGPConfiguration/default is refused:",
            "  spec.communities[1].valeu 'x': is not known; did you mean value?",
            "  spec.communities[1].value 7: Expected `str`, got `int`;"
            " see the schema of projectcalico.org/v3 BGPConfiguration",
        ],
    ),
    (
        "a mistyped parameter of Felix, and one out of range",
        "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\n"
        "spec: {vxlanMtu: 1400, vxlanPort: 70000}\n",
        [
            "error: standard input, document 1: FelixConfiguration/default is refused:",
            "  spec.vxlanMtu 1400: is not a parameter; did you mean vxlanMTU?",
            "  spec.vxlanPort 70000: is not allowed; write ",
        ],
    ),
    (
        "every document is judged",
        pool(cidr="10.1.2.0/16") + "---\n" + pool("b", "10.9.0.0/16") + "---\n" + pool("c", "no"),
        [
            "error: standard input, document 1: IPPool/a is refused:",
            "  spec.cidr '10.1.2.0/16': has bits set behind its prefix; write 10.1.0.0/16",
            "error: standard input, document 3: IPPool/c is refused:",
            "  spec.cidr 'no': is not a CIDR; write an address and a prefix length, 10.244.0.0/16",
        ],
    ),
    (
        "two of them overlap",
        pool("a", "10.1.0.0/16") + "---\n" + pool("b", "10.1.128.0/17"),
        [
            "error: standard input, document 2: IPPool/b is refused:",
            "  spec.cidr '10.1.128.0/17': overlaps 10.1.0.0/16 of IPPool/a; choose a range that no other pool has",
        ],
    ),
    (
        "one overlaps a stored one",
        pool("b", "10.200.64.0/20"),
        [
            "error: standard input, document 1: IPPool/b is refused:",
            "  spec.cidr '10.200.64.0/20': overlaps 10.200.0.0/16 of IPPool/old; choose a range that no other pool has",
        ],
    ),
    (
        "a pool's range can't change",
        pool("old", "10.201.0.0/16"),
        [
            "error: standard input, document 1: IPPool/old is refused:",
            "  spec.cidr '10.201.0.0/16': was 10.200.0.0/16 and can't change; make a new pool",
        ],
    ),
    (
        "a pool's block size can't change, not even from the default",
        pool("old", "10.200.0.0/16", "  blockSize: 28\n"),
        [
            "error: standard input, document 1: IPPool/old is refused:",
            "  spec.blockSize 28: was 26 and can't change; make a new pool, disable this one, and delete it",
        ],
    ),
    (
        "an object that was read long ago",
        pool("old", "10.200.0.0/16").replace("name: old", "name: old\n  resourceVersion: '1'"),
        [
            "error: standard input, document 1: IPPool/old is refused:",
            "  metadata.resourceVersion '1': is not the newest, 2: somebody has changed it since; get it again, or"
            " leave this field out",
        ],
    ),
    (
        "an object twice",
        pool() + "---\n" + pool(),
        [
            "error: standard input, document 2: IPPool/a is refused:",
            "  the object 'IPPool/a': stands in standard input, document 1 too; keep one of them",
        ],
    ),
    (
        "no kind",
        "apiVersion: projectcalico.org/v3\nmetadata: {name: a}\n",
        ["error: standard input, document 1 is refused:", "  kind: is missing; write one of "],
    ),
    (
        "an unknown kind in a list",
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: StorageClass, metadata: {name: a}}\n",
        ["error: standard input, document 1, item 1 is refused:", "  kind 'StorageClass': is not known; known are BGP"],
    ),
    (
        "the API version of another installation",
        pool().replace("projectcalico.org/v3", "crd.projectcalico.org/v1"),
        [
            "error: standard input, document 1: IPPool/a is refused:",
            "  apiVersion 'crd.projectcalico.org/v1': is not the one of IPPool; write projectcalico.org/v3",
        ],
    ),
    (
        "a name that no API server takes",
        pool("My_Pool"),
        [
            "error: standard input, document 1: IPPool/My_Pool is refused:",
            "  metadata.name 'My_Pool': can't be a name; lower-case letters, digits, dashes, dots;",
        ],
    ),
    (
        "no name",
        pool("''"),
        ["error: standard input, document 1: IPPool is refused:", "  metadata.name: is empty; name the object"],
    ),
    (
        "a namespace where there is none",
        pool().replace("name: a", "name: a\n  namespace: x"),
        [
            "error: standard input, document 1: IPPool/a is refused:",
            "  metadata.namespace 'x': a IPPool lives in none; leave it out",
        ],
    ),
    (
        "a label that isn't text",
        pool().replace("name: a", "name: a\n  labels: {tier: 3}"),
        [
            "error: standard input, document 1: IPPool/a is refused:",
            "  metadata.labels[...] {'tier': 3}: Expected `str`, got `int`",
        ],
    ),
    (
        "a label that no API server takes",
        pool().replace("name: a", "name: a\n  labels: {tier: b c}"),
        [
            "error: standard input, document 1: IPPool/a is refused:",
            "  metadata.labels[tier] 'b c': can't be the value of a label; letters, digits, -, _ and ., 63 at most,",
        ],
    ),
    (
        "Calico's Node with a field that it doesn't have",
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: a}\nspec: {bgp: {asnumber: 1}}\n",
        [
            "error: standard input, document 1: Node/a is refused:",
            "  spec.bgp.asnumber 1: is no field of Node; see the Node resource in Calico's reference",
        ],
    ),
    (
        "what isn't YAML",
        pool() + "---\nkind: [IPPool\nmetadata: x\n",
        ["error: standard input is refused:", "  line 9, column 9: is not YAML: "],
    ),
    (
        "a field twice",
        pool(more="  cidr: 10.2.0.0/16\n"),
        ["error: standard input is refused:", "  line 7, column 3: is not YAML: 'cidr' stands twice; mend it there"],
    ),
    (
        "a document that is a word",
        "IPPool\n",
        [
            "error: standard input, document 1 is refused:",
            "  the document 'IPPool': is not an object; write apiVersion, kind, metadata, spec",
        ],
    ),
    ("nothing at all", "---\n", ["error: -: holds no document; write one, or name another file"]),
]


@pytest.mark.parametrize(("text", "said"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_wrong_documents_are_named_and_nothing_is_written(ctl: Ctl, text: str, said: list[str]) -> None:
    assert ctl("create", "-f", "-", stdin=pool("old", "10.200.0.0/16")).exit_code == 0
    before = ctl("get", "ippools,bgpconfigs,nodes", "-o", "json").stdout
    result = ctl("apply", "-f", "-", stdin=text)
    assert result.exit_code == 1
    told = result.stderr.splitlines()
    assert len(told) == len(said), result.stderr
    for line, start in zip(told, said, strict=True):
        assert line.startswith(start), result.stderr
    assert result.stdout == ""
    assert ctl("get", "ippools,bgpconfigs,nodes", "-o", "json").stdout == before


def test_apply_replaces_the_spec_and_keeps_the_labels_of_others(ctl: Ctl, stored: Callable[..., Any]) -> None:
    ctl("apply", "-f", "-", stdin=pool(more="  natOutgoing: true\n").replace("name: a", "name: a\n  labels: {x: y}"))
    changed = ctl(
        "apply", "-f", "-", stdin=pool(more="  disabled: true\n").replace("name: a", "name: a\n  labels: {z: w}")
    )
    assert changed.stdout == "IPPool/a configured\n"
    value = stored(ip_pools.KIND, "a").value
    assert value.metadata.labels == {"x": "y", "z": "w"}
    assert (value.spec.disabled, value.spec.nat_outgoing) == (True, False)


def test_replace_puts_the_given_labels_in_the_place_of_the_old_ones(ctl: Ctl, stored: Callable[..., Any]) -> None:
    ctl("apply", "-f", "-", stdin=pool().replace("name: a", "name: a\n  labels: {x: y}"))
    assert ctl("replace", "-f", "-", stdin=pool()).stdout == "IPPool/a replaced\n"
    assert stored(ip_pools.KIND, "a").value.metadata.labels == {}


def test_create_wants_no_object_and_replace_wants_one(ctl: Ctl) -> None:
    missing = ctl("replace", "-f", "-", stdin=pool())
    assert "metadata.name 'a': does not exist; use apply or create" in missing.stderr
    assert ctl("create", "-f", "-", stdin=pool()).exit_code == 0
    there = ctl("create", "-f", "-", stdin=pool("z", "10.7.0.0/16") + "---\n" + pool())
    assert there.exit_code == 1
    assert "metadata.name 'a': exists already; use apply or replace, or another name" in there.stderr
    assert ctl("get", "ippool", "z").exit_code == 1


def test_a_status_that_is_given_is_left_to_its_controller(ctl: Ctl, stored: Callable[..., Any]) -> None:
    ctl("apply", "-f", "-", stdin=pool() + "status: {conditions: [{type: Allocatable, status: 'False'}]}\n")
    assert stored(ip_pools.KIND, "a").value.allocatable


def test_fields_that_we_do_not_know_survive_reading_and_writing(ctl: Ctl, stored: Callable[..., Any]) -> None:
    pod = (
        '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "managedFields": [{"manager": "kubelet"}]},'
        ' "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "nginx"}]}}'
    )
    assert ctl("apply", "-f", "-", "-n", "web", stdin=pod).stdout == "Pod/web/p created\n"
    assert (
        ctl("apply", "-f", "-", stdin=pod.replace('"p"', '"p", "namespace": "web", "labels": {"a": "b"}')).exit_code
        == 0
    )
    document = ctl("get", "pod", "p", "-n", "web", "-o", "yaml").stdout
    for text in ("image: nginx", "- manager: kubelet", "    a: b"):
        assert text in document
    assert stored(pods.KIND, "p", "web").value.spec.node_name == "n1"


def test_files_folders_and_lists(ctl: Ctl, tmp_path: Path) -> None:
    (tmp_path / "d" / "deeper").mkdir(parents=True)
    (tmp_path / "d" / "a.yaml").write_text(pool())
    (tmp_path / "d" / "b.json").write_text(
        '{"kind": "IPPoolList", "apiVersion": "projectcalico.org/v3", "items":'
        ' [{"metadata": {"name": "b"}, "spec": {"cidr": "10.2.0.0/16"}}]}'
    )
    (tmp_path / "d" / "readme.txt").write_text("no document")
    (tmp_path / "d" / "deeper" / "c.yml").write_text(pool("c", "10.3.0.0/16"))
    assert ctl("apply", "-f", str(tmp_path / "d")).stdout == "IPPool/a created\nIPPool/b created\n"
    assert ctl("apply", "-R", "-f", str(tmp_path / "d")).stdout.endswith("IPPool/b unchanged\nIPPool/c created\n")


def test_members_that_are_null_count_as_absent(ctl: Ctl, stored: Callable[..., Any]) -> None:
    assert ctl("apply", "-f", "-", stdin=pool(more="  nodeSelector: null\n  blockSize: ~\n")).stderr == ""
    assert stored(ip_pools.KIND, "a").value.spec.node_selector == "all()"


def test_an_object_that_is_out_of_date_keeps_the_others_from_being_written(ctl: Ctl) -> None:
    ctl("create", "-f", "-", stdin=pool("old", "10.200.0.0/16"))
    stale = pool("old", "10.200.0.0/16").replace("name: old", "name: old\n  resourceVersion: '1'")
    assert ctl("apply", "-f", "-", stdin=pool("new", "10.7.0.0/16") + "---\n" + stale).exit_code == 1
    assert ctl("get", "ippools", "-o", "name").stdout == "ippool/old\n"


def test_objects_of_the_core_group_keep_the_fields_that_are_not_given(ctl: Ctl, stored: Callable[..., Any]) -> None:
    node = "{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: %s}"
    ctl("apply", "-f", "-", stdin=node % "{podCIDRs: [10.9.0.0/24], providerID: x}")
    assert ctl("apply", "-f", "-", stdin=node % "{providerID: y}").stdout == "Node/n1 configured\n"
    assert stored(nodes.KIND, "n1").value.spec.pod_cidrs == ("10.9.0.0/24",)


def test_annotations_of_calicos_node_are_kept(ctl: Ctl, stored: Callable[..., Any]) -> None:
    metadata = "{name: n1, labels: {rack: r1}, annotations: {a: b}}"
    text = f"{{apiVersion: projectcalico.org/v3, kind: Node, metadata: {metadata}, spec: {{bgp: {{asNumber: 7}}}}}}"
    assert ctl("apply", "-f", "-", stdin=text).exit_code == 0
    found = stored(nodes.KIND, "n1").value.metadata
    assert (found.labels, found.annotations) == ({"rack": "r1"}, {"a": "b", nodes.AS_NUMBER: "7"})


def test_a_file_that_is_not_there_is_named(ctl: Ctl) -> None:
    result = ctl("apply", "-f", "/nowhere.yaml")
    assert (result.exit_code, result.stderr) == (1, "error: /nowhere.yaml: No such file or directory\n")


class Contested(SQLiteStore):
    """A store on which somebody else labels the object just before our write, `rivals` times."""

    rivals = 0

    async def update(self, kind: Kind[Any], old: Stored[Any], new: Any) -> Stored[Any]:
        if self.rivals:
            self.rivals -= 1
            labelled = msgspec.structs.replace(old.value.metadata, labels={"rivals-left": str(self.rivals)})
            await super().update(kind, old, msgspec.structs.replace(old.value, metadata=labelled))
        return await super().update(kind, old, new)


async def test_a_write_that_loses_against_another_is_tried_again_but_not_for_ever(store_path: Path) -> None:
    def configuration(as_number: int) -> Wanted:
        document = {"apiVersion": "projectcalico.org/v3", "kind": "BGPConfiguration", "metadata": {"name": "default"}}
        return wanted(Given("here", {**document, "spec": {"asNumber": as_number}}), "default")

    said: list[str] = []
    store = await Contested.open(store_path)
    assert isinstance(store, Contested)
    try:
        await write(store, "apply", [configuration(64513)], said.append)
        store.rivals = 2
        await write(store, "apply", [configuration(64514)], said.append)
        value = (await store.get(bgp_configurations.KIND, "default")).value
        assert said == ["BGPConfiguration/default created", "BGPConfiguration/default configured"]
        assert (value.spec.as_number, value.metadata.labels) == (64514, {"rivals-left": "0"})
        store.rivals = 100
        with pytest.raises(Conflict):
            await write(store, "apply", [configuration(64515)], said.append)
    finally:
        await store.close()


def test_calipys_own_settings_come_and_go(ctl: Ctl) -> None:
    document = """
apiVersion: calipy.io/v1alpha1
kind: CalipyConfiguration
metadata: {name: node.n1}
spec: {policyRecheck: %s}
"""
    assert ctl("apply", "-f", "-", stdin=document % "Enabled").exit_code == 0
    printed = [line.split() for line in ctl("get", "calipyconfig").stdout.splitlines()]
    assert printed == [["NAME", "POLICYRECHECK"], ["node.n1", "Enabled"]]
    wrong = ctl("apply", "-f", "-", stdin=document % "Sometimes")
    assert wrong.exit_code == 1
    assert "CalipyConfiguration/node.n1 is refused:\n  spec.policyRecheck 'Sometimes': " in wrong.stderr
    assert ctl("delete", "calipyconfig", "node.n1").exit_code == 0
    assert len(ctl("get", "calipyconfig").stdout.splitlines()) <= 1
