"""get, delete, version: what is shown of a store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from calipy.ctl.main import pycalicoctl
from calipy.ctl.whole import exported, whole
from calipy.resources import ip_pools, kinds
from calipy.resources.metadata import decode

Ctl = Callable[..., Result]

OBJECTS = """
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: b, labels: {tier: gold}}, spec: {cidr: 10.2.0.0/16}}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: a}
spec: {cidr: 10.1.0.0/16, natOutgoing: true, vxlanMode: CrossSubnet, nodeSelector: zone == "east"}
---
{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: tor}, spec: {peerIP: 10.9.0.1, asNumber: 64600}}
---
{apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {name: default}, spec: {asNumber: 64555}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1, annotations: {projectcalico.org/IPv4Address: 10.9.0.11/24}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: web, annotations: {
  cni.projectcalico.org/podIPs: "10.1.0.5/32,fd00::5/128"}}, spec: {nodeName: n1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: q}, spec: {nodeName: n1}}
"""


@pytest.fixture
def full(ctl: Ctl) -> Ctl:
    """pycalicoctl on a store with objects."""
    assert ctl("apply", "-f", "-", stdin=OBJECTS).exit_code == 0
    return ctl


SHOWN = [
    ("get ippools", ["NAME CIDR SELECTOR", 'a 10.1.0.0/16 zone == "east"', "b 10.2.0.0/16 all()"]),
    (
        "get pool a -o wide",
        [
            "NAME CIDR NAT IPIPMODE VXLANMODE DISABLED DISABLEBGPEXPORT ASSIGNMENTMODE SELECTOR",
            'a 10.1.0.0/16 true Never CrossSubnet false false Automatic zone == "east"',
        ],
    ),
    ("get IPPool/b bgppeer/tor -o name", ["ippool/b", "bgppeer/tor"]),
    ("get ippools.projectcalico.org -l tier=gold -o name", ["ippool/b"]),
    ("get ippools -l tier!=gold -o name", ["ippool/a"]),
    ("get ippools -l has(tier) -o name", ["ippool/b"]),
    ("get ippools -l tier -o name", ["ippool/b"]),
    ("get ippools -l !tier -o name", ["ippool/a"]),
    ("get bgppeers", ["NAME PEERIP NODE ASN", "tor 10.9.0.1 (global) 64600"]),
    ("get bgpconfig", ["NAME LOGSEVERITY MESHENABLED ASNUMBER", "default - - 64555"]),
    ("get no -o wide", ["NAME ASN IPV4 IPV6", "n1 (64555) 10.9.0.11/24"]),
    ("get pods", ["NAME NODE ADDRESSES PHASE", "q n1 -"]),
    ("get pods -n web", ["NAME NODE ADDRESSES PHASE", "p n1 10.1.0.5,fd00::5 -"]),
    ("get pods -A", ["NAMESPACE NAME NODE ADDRESSES PHASE", "default q n1 -", "web p n1 10.1.0.5,fd00::5 -"]),
    (
        "get ippools,bgppeers",
        [
            "ippools", "NAME CIDR SELECTOR", 'a 10.1.0.0/16 zone == "east"', "b 10.2.0.0/16 all()", "",
            "bgppeers", "NAME PEERIP NODE ASN", "tor 10.9.0.1 (global) 64600",
        ],
    ),
]  # fmt: skip


NAMES = "{{range .}}{{range .Items}}{{.ObjectMeta.Name}},{{.Spec.CIDR}},{{.Spec.NATOutgoing}};{{end}}{{end}}"
# form | what `get ippools` writes in it
FORMS = [
    ("ps", ["NAME CIDR SELECTOR", 'a 10.1.0.0/16 zone == "east"', "b 10.2.0.0/16 all()"]),
    ("custom-columns=NAME", ["NAME", "a", "b"]),
    ("custom-columns=vxlanmode,NAME", ["VXLANMODE NAME", "CrossSubnet a", "Never b"]),
    (f"go-template={NAMES}", ["a,10.1.0.0/16,true;b,10.2.0.0/16,<no value>;"]),
]


@pytest.mark.parametrize(("form", "shown"), FORMS, ids=[form for form, _ in FORMS])
def test_get_in_calicoctls_forms(full: Ctl, form: str, shown: list[str]) -> None:
    result = full("get", "ippools", "-o", form)
    assert (result.exit_code, result.stderr) == (0, "")
    assert [" ".join(row.split()) for row in result.stdout.splitlines()] == shown


def test_a_template_out_of_a_file_and_named_objects(full: Ctl, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("{{range .}}{{.Kind}} {{.Name}}\n{{end}}")
    result = full("get", "ippool/b", "bgppeer/tor", "-o", f"go-template-file={tmp_path}/t")
    assert (result.exit_code, result.stdout) == (0, "IPPool b\nBGPPeer tor\n")


def test_custom_columns_have_namespaces_and_what_nodes_report(full: Ctl) -> None:
    shown = full("get", "pods", "-A", "-o", "custom-columns=NAMESPACE,NAME").stdout
    assert [row.split() for row in shown.splitlines()] == [["NAMESPACE", "NAME"], ["default", "q"], ["web", "p"]]
    assert full("get", "tiers", "-o", "custom-columns=PROGRAMMED,NAME").stdout.split() == ["PROGRAMMED", "NAME"]


def test_what_is_exported_can_be_made_elsewhere(full: Ctl) -> None:
    document = msgspec.json.decode(full("get", "ippool", "b", "--export", "-o", "json").stdout)
    assert document == {
        "apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "b", "labels": {"tier": "gold"}},
        "spec": {"cidr": "10.2.0.0/16"},
    }  # fmt: skip
    printed = full("get", "ippools", "--export", "-o", "yaml").stdout
    assert "uid" not in printed
    full("delete", "ippool", "a", "b")
    assert full("create", "-f", "-", stdin=printed).stdout == "IPPool/a created\nIPPool/b created\n"


def test_what_is_exported_has_no_status() -> None:
    pool = (
        b'{"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "a", "uid": "x"}, "spec": {},'
        b' "status": {"conditions": []}}'
    )
    assert exported(decode(whole(ip_pools.KIND), pool)).keys() == {"apiVersion", "kind", "metadata", "spec"}


@pytest.mark.parametrize(("line", "shown"), SHOWN, ids=[line for line, _ in SHOWN])
def test_get_shows_calicos_columns(full: Ctl, line: str, shown: list[str]) -> None:
    result = full(*line.split(" "))
    assert (result.exit_code, result.stderr) == (0, "")
    assert [" ".join(row.split()) for row in result.stdout.splitlines()] == shown


@pytest.mark.parametrize("kind", kinds.ALL, ids=lambda kind: kind.name)
def test_every_kind_can_be_shown_in_every_form(ctl: Ctl, kind: Any) -> None:
    for output in ("table", "wide", "json", "yaml", "name"):
        result = ctl("get", kind.plural, "-A", "-o", output)
        assert (result.exit_code, result.stderr) == (0, ""), result.stdout


def test_one_named_object_is_a_document_and_several_are_a_list(full: Ctl) -> None:
    def decoded(*words: str) -> Any:
        return msgspec.json.decode(full(*words, "-o", "json").stdout)

    one, some, all_, mixed = (
        decoded("get", "ippool", "a"), decoded("get", "ippool", "a", "b"), decoded("get", "ippools"),
        decoded("get", "ippools,bgppeers"),
    )  # fmt: skip
    assert (one["kind"], one["metadata"]["name"]) == ("IPPool", "a")
    assert (some["kind"], [item["metadata"]["name"] for item in some["items"]]) == ("List", ["a", "b"])
    assert (all_["kind"], all_["apiVersion"]) == ("IPPoolList", "projectcalico.org/v3")
    assert int(all_["metadata"]["resourceVersion"]) >= max(
        int(item["metadata"]["resourceVersion"]) for item in all_["items"]
    )
    assert (mixed["kind"], [item["kind"] for item in mixed["items"]]) == ("List", ["IPPool", "IPPool", "BGPPeer"])


def test_a_missing_object_is_named_after_the_others_are_shown(full: Ctl) -> None:
    result = full("get", "ippool", "nope", "a", "-o", "name")
    assert (result.exit_code, result.stdout) == (1, "ippool/a\n")
    assert result.stderr.startswith("error: IPPool/nope does not exist in ")


def test_an_object_that_no_struct_fits_is_listed_and_can_be_printed(full: Ctl, store_path: Path) -> None:
    connection = sqlite3.connect(store_path)
    with connection:
        connection.execute("""UPDATE objects SET text = replace(text, '"10.2.0.0/16"', '7') WHERE name = 'b'""")
    connection.close()
    table, document = full("get", "ippools"), full("get", "ippool", "b", "-o", "yaml")
    assert table.stdout.splitlines()[2].split() == ["b", "?", "?"]
    assert "IPPool/b can't be read (-o yaml shows it): IPPool/b is refused: spec.cidr: 7: Expected" in table.stderr
    assert "cidr: 7\n" in document.stdout


REFUSED = [
    ("get gateways", "error: kind 'gateways': is not known; known are bgpconfigurations, bgpfilters, bgppeers, "),
    ("get ippools,nodes a", "error: ippools,nodes 'a': names several kinds, and names follow; write KIND/NAME"),
    ("get ippools -l tier=(", "error: selector 'tier=(': "),
    ("get ippool/a b", "error: argument 'b': stands among others of the form KIND/NAME; write KIND/NAME for each"),
    ("get ippools -o xml", "error: --output 'xml': is no form; known are table, ps, wide, json, yaml, name, custom-"),
    ("get ippools -o custom-columns=", "error: --output 'custom-columns=': is no form; known are "),
    ("get ippools -o custom-columns=A:.a", "error: --output 'custom-columns=A:.a': names columns by their paths; "),
    (
        "get ippools -o custom-columns=NAME,NODE",
        "error: custom-columns 'NODE': is no column of ippools; known are NAME",
    ),
    ("get ippools -o go-template={{.a|b}}", "error: go-template '.a|b': is beyond what this program knows of Go "),
    ("get ippools -o go-template-file=/no", "error: /no: No such file or directory"),
    ("get pod p -A", "error: --all-namespaces: can't be combined with names; name their namespace with -n"),
    ("delete ippools", "error: delete: wants the names of objects; write KIND NAME..., or KIND/NAME..."),
    ("delete", "error: delete: wants objects, by name or by -f; name KIND and NAME, or a file"),
]


@pytest.mark.parametrize(("line", "said"), REFUSED, ids=[line for line, _ in REFUSED])
def test_a_wrong_command_line_is_explained(full: Ctl, line: str, said: str) -> None:
    result = full(*line.split(" "))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(said)


def test_delete_by_name_and_by_file(full: Ctl) -> None:
    assert full("delete", "ippool", "a", "b").stdout == "IPPool/a deleted\nIPPool/b deleted\n"
    assert full("delete", "bgppeer/tor", "node/n1").stdout == "BGPPeer/tor deleted\nNode/n1 deleted\n"
    document = "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: web}}"
    assert full("delete", "-f", "-", stdin=document).stdout == "Pod/web/p deleted\n"


def test_no_table_stands_over_objects_that_are_all_missing(full: Ctl) -> None:
    result = full("get", "ippool", "nope")
    assert (result.exit_code, result.stdout) == (1, "")


def test_nothing_is_deleted_if_one_of_the_objects_is_missing(full: Ctl) -> None:
    result = full("delete", "ippool", "a", "nope")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: IPPool/nope does not exist")
    assert full("get", "ippool", "a", "-o", "name").exit_code == 0
    ignored = full("delete", "--ignore-not-found", "ippool", "a", "nope")
    assert (ignored.exit_code, ignored.stdout) == (0, "IPPool/a deleted\nIPPool/nope not found\n")


def test_version_shows_the_program_and_the_cluster(full: Ctl) -> None:
    information = (
        "{apiVersion: projectcalico.org/v3, kind: ClusterInformation, metadata: {name: default},"
        " spec: {calicoVersion: v3.30.0, clusterType: calipy, clusterGUID: abc}}"
    )
    assert "has no ClusterInformation yet" in full("version").stdout
    full("apply", "-f", "-", stdin=information)
    facts = msgspec.json.decode(full("version", "-o", "json").stdout)
    assert (facts["Cluster Calico Version"], facts["Cluster GUID"]) == ("v3.30.0", "abc")
    assert list(msgspec.json.decode(full("version", "--client", "-o", "json").stdout)) == ["Client Version"]


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "none.sqlite3"
    result = CliRunner().invoke(pycalicoctl, ["--datastore", f"sqlite:{path}", "get", "nodes"])
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: datastore sqlite:{path}: is not there; start a lab with `calipy lab up`, or name a store with"
        " --datastore, --kubeconfig or CALIPY_DATASTORE\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_environment_names_the_store(store_path: Path, tmp_path: Path) -> None:
    def listed(**environment: str | None) -> Result:
        return CliRunner(env=environment).invoke(pycalicoctl, ["get", "nodes"])

    nowhere = str(tmp_path / "nowhere")
    assert listed(CALIPY_DATASTORE=f"sqlite:{store_path}", CALIPY_LAB=nowhere).exit_code == 0
    lab = tmp_path / "lab"
    (lab / "store").mkdir(parents=True)
    store_path.rename(lab / "store" / "datastore.sqlite3")
    assert listed(CALIPY_DATASTORE=None, CALIPY_LAB=str(lab)).exit_code == 0
    wrong = listed(CALIPY_DATASTORE="etcd:/x", CALIPY_LAB=None)
    assert wrong.stderr.startswith(
        "error: environment variable CALIPY_DATASTORE is 'etcd:/x': it must be sqlite:<absolute path>, kubernetes"
    )


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (
            ["--datastore", "etcd:/x"],
            "--datastore 'etcd:/x': is no datastore; write sqlite:<path>, kubernetes or kube",
        ),
        (["--datastore", "kubernetes", "--kubeconfig", "x"], "--kubeconfig 'x': can't be given with --datastore"),
        (["--kubeconfig", "nowhere"], "kubeconfig nowhere: can't be read: No such file or directory; name another"),
        (["--datastore", "kubernetes:nowhere"], "kubeconfig nowhere: can't be read: No such file or directory"),
    ],
)
def test_a_datastore_that_cannot_be_is_told(said: list[str], error: str) -> None:
    assert CliRunner().invoke(pycalicoctl, [*said, "get", "nodes"]).stderr.startswith(f"error: {error}")


def test_a_cluster_of_the_environment_is_asked_where_no_lab_runs(tmp_path: Path) -> None:
    environment = {"CALIPY_DATASTORE": None, "CALIPY_LAB": str(tmp_path), "KUBECONFIG": str(tmp_path / "config")}
    asked = CliRunner(env=environment).invoke(pycalicoctl, ["get", "nodes"])
    assert asked.stderr.startswith(f"error: kubeconfig {tmp_path}/config: is not there; name one with KUBECONFIG or")
