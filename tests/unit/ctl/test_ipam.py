"""ipam check, show, release: on addresses that the real allocator gave out, some of which then lost their pods."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import Result

from calipy.datastore.sqlite import SQLiteStore
from calipy.ipam.allocator import Allocator, Request
from calipy.resources import block_affinities, ip_pools, nodes, pods
from calipy.resources.block_affinities import BlockAffinity
from calipy.resources.ip_pools import IPPool, IPPoolSpec
from calipy.resources.ip_reservations import IPReservation
from calipy.resources.ipam_configurations import DEFAULT, IPAMConfiguration
from calipy.resources.metadata import ObjectMeta
from calipy.resources.nodes import Node
from calipy.resources.pods import Pod, PodSpec

Ctl = Callable[..., Result]
POOL = IPPool(metadata=ObjectMeta(name="main"), spec=IPPoolSpec(cidr="10.1.0.0/24", block_size=26))


class Inputs:
    """A cluster of one pool."""

    def __init__(self) -> None:
        self.claims: list[BlockAffinity] = []

    def pools(self) -> list[IPPool]:
        return [POOL]

    def reservations(self) -> list[IPReservation]:
        return []

    def configuration(self) -> IPAMConfiguration:
        return DEFAULT

    def node_labels(self) -> dict[str, str]:
        return {}

    def affinities(self) -> list[BlockAffinity]:
        return self.claims


@pytest.fixture
def given(store_path: Path) -> dict[str, str]:
    """Pod name -> address: three pods on two nodes; the one on n2 borrows from n1; none of anything is wrong."""

    async def fill() -> dict[str, str]:
        store = await SQLiteStore.open(store_path)
        inputs, given = Inputs(), {}
        try:
            await store.create(ip_pools.KIND, POOL)
            for node in ("n1", "n2"):
                await store.create(nodes.KIND, Node(metadata=ObjectMeta(name=node)))
            for name, node in (("a", "n1"), ("b", "n1"), ("c", "n2")):
                attributes = {"namespace": "web", "pod": name, "node": node}
                request = Request(handle=f"net.{name}", attributes=attributes, families={4: 1})
                (assigned,) = await Allocator(store, "n1", inputs, time.time).assign(request)
                inputs.claims = [
                    stored.value async for page in store.list(block_affinities.KIND) for stored in page.items
                ]
                given[name] = assigned.address
                meta = ObjectMeta(name=name, namespace="web", annotations={pods.POD_IPS: f"{assigned.address}/32"})
                await store.create(pods.KIND, Pod(metadata=meta, spec=PodSpec(node_name=node)))
        finally:
            await store.close()
        return given

    return asyncio.run(fill())


def last_line(result: Result) -> str:
    return result.stdout.splitlines()[-1]


def test_a_sound_cluster_has_no_problems(ctl: Ctl, given: dict[str, str]) -> None:
    result = ctl("ipam", "check", "--exit-code")
    assert (result.exit_code, result.stderr) == (0, "")
    shown = result.stdout
    for line in (
        "Found 1 IPAM blocks.",
        " affinity=host:n1:",
        "IPAM blocks record 3 allocations.",
        "  10.1.0.0/24\nFound 1 active IP pools.",
        "Found 3 workload IPs.",
        "  n1 has 2 allocations\n  n2 has 1 allocations\nNode with most allocations has 2; median is 1",
        "Found 0 IPs that are allocated in IPAM but not actually in use.",
        "Found 0 handles with no matching IPs.",
    ):
        assert line in shown, shown
    assert last_line(result) == "Check complete; found 0 problems."


def test_all_ips_are_named_when_asked_for(ctl: Ctl, given: dict[str, str]) -> None:
    shown = ctl("ipam", "check", "--show-all-ips").stdout
    assert f"  {given['a']} allocated; attrs Main:net.a Extra:namespace=web,node=n1,pod=a\n" in shown


def test_an_address_without_its_pod_is_a_problem(ctl: Ctl, given: dict[str, str], tmp_path: Path) -> None:
    ctl("delete", "pod", "b", "-n", "web")
    report = tmp_path / "report.json"
    result = ctl("ipam", "check", "--exit-code", "--show-problem-ips", "-o", str(report))
    assert result.exit_code == 1
    assert f"{given['b']} (handle net.b) is allocated, but pod web/b does not exist" in result.stdout
    assert "Found 1 IPs that are allocated in IPAM but not actually in use." in result.stdout
    assert last_line(result) == "Check complete; found 1 problems."
    document = msgspec.json.decode(report.read_text())
    (entry,) = document["allocations"][given["b"]]
    assert (entry["inUse"], entry["owners"], entry["handle"], entry["pod"]) == (False, [], "net.b", "b")
    assert entry["sequenceNumber"] > 0
    (used,) = document["allocations"][given["a"]]
    assert (used["inUse"], used["owners"]) == (True, ["Workload(web/a)"])
    assert document["datastoreLocked"] is False
    (finding,) = msgspec.json.decode(ctl("ipam", "check", "-o", "json").stdout)["findings"]
    assert (finding["what"], finding["address"]) == ("leaked", given["b"])


def test_release_takes_a_leaked_address_back_and_no_other(ctl: Ctl, given: dict[str, str]) -> None:
    ctl("delete", "pod", "b", "-n", "web")
    refused = ctl("ipam", "release", "--ip", given["a"])
    assert refused.exit_code == 1
    assert refused.stderr == (
        f"error: address {given['a']}: is held by pod web/a, which uses it; delete its holder, or give --force if you"
        " know better\n"
    )
    assert ctl("ipam", "release", "--ip", given["b"]).stdout == f"Successfully released IP address {given['b']}\n"
    assert ctl("ipam", "release", "--ip", given["b"]).stdout == f"{given['b']} is not assigned\n"
    assert last_line(ctl("ipam", "check")) == "Check complete; found 0 problems."
    assert ctl("get", "ipamhandles", "-o", "name").stdout == "ipamhandle/net.a\nipamhandle/net.c\n"


def test_show_counts_pools_and_blocks(ctl: Ctl, given: dict[str, str]) -> None:
    base = given["a"].rpartition(".")[0]
    block = int(given["a"].rpartition(".")[2]) // 64 * 64
    reservation = (
        "{apiVersion: projectcalico.org/v3, kind: IPReservation, metadata: {name: r},"
        f" spec: {{reservedCIDRs: [{given['a']}, {base}.{block + 60}/30]}}}}"
    )
    assert ctl("apply", "-f", "-", stdin=reservation).exit_code == 0
    rows = [row.split("   ") for row in ctl("ipam", "show", "--show-blocks").stdout.splitlines()]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        ["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS RESERVED", "IPS FREE", "IPS COOLING"],
        ["IP Pool", "10.1.0.0/24", "256", "3 (1%)", "5 (2%)", "249 (97%)", "0 (0%)"],
        ["Block", f"{base}.{block}/26", "64", "3 (5%)", "5 (8%)", "57 (89%)", "0 (0%)"],
    ]
    (pool,) = msgspec.json.decode(ctl("ipam", "show", "-o", "json").stdout)
    assert (pool["inUse"], pool["free"]) == (3, 249)


def test_show_names_borrowed_addresses(ctl: Ctl, given: dict[str, str]) -> None:
    (row,) = msgspec.json.decode(ctl("ipam", "show", "--show-borrowed", "-o", "json").stdout)
    assert (row["ip"], row["borrowingNode"], row["blockOwner"], row["type"], row["allocatedTo"]) == (
        given["c"], "n2", "n1", "pod", "web/c",
    )  # fmt: skip


def test_show_one_address(ctl: Ctl, given: dict[str, str]) -> None:
    lines = ctl("ipam", "show", "--ip", given["a"]).stdout.splitlines()
    assert lines[:4] == [
        f"IP {given['a']} is in use",
        "Handle ID: net.a",
        "Active Owner Attributes:",
        "  namespace: web",
    ]
    assert ctl("ipam", "show", "--ip", "10.1.0.255").stdout == "10.1.0.255 is not assigned\n"
    assert ctl("ipam", "show", "--ip", "10.1").stderr.startswith("error: --ip '10.1': is no address")


def test_show_the_configuration(ctl: Ctl, given: dict[str, str]) -> None:
    rows = dict(row.split() for row in ctl("ipam", "show", "--show-configuration").stdout.splitlines())
    assert (rows["StrictAffinity"], rows["AutoAllocateBlocks"], rows["MaxBlocksPerHost"]) == ("false", "true", "0")


def test_a_deleted_pool_gives_its_empty_blocks_up_and_says_what_is_in_use(ctl: Ctl, given: dict[str, str]) -> None:
    claim = ctl("get", "blockaffinities", "-o", "name").stdout
    said = ctl("delete", "ippool", "main").stdout
    assert said == "IPPool/main deleted; 1 of its blocks are in use, and go with their last address\n"
    assert ctl("get", "blockaffinities", "-o", "name").stdout == claim


def test_a_deleted_pool_without_addresses_leaves_nothing(ctl: Ctl, given: dict[str, str]) -> None:
    for name in ("a", "b", "c"):
        ctl("ipam", "release", "--force", "--ip", given[name])
    assert ctl("get", "blockaffinities,ipamblocks", "-o", "name").stdout.count("\n") == 2
    assert ctl("delete", "ippool", "main").stdout == "IPPool/main deleted\n"
    assert ctl("get", "blockaffinities,ipamblocks,ipamhandles", "-o", "name").stdout == ""


def reported(ctl: Ctl, path: Path) -> Path:
    """A report of how things are."""
    assert ctl("ipam", "check", "-o", str(path)).exit_code == 0
    return path


def given_names(ctl: Ctl) -> str:
    return ctl("get", "ipamhandles", "-o", "name").stdout


def test_what_a_report_calls_unused_is_released_and_nothing_else(
    ctl: Ctl, given: dict[str, str], tmp_path: Path
) -> None:
    ctl("delete", "pod", "b", "c", "-n", "web")
    result = ctl("ipam", "release", "--from-report", str(reported(ctl, tmp_path / "1.json")))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "Releasing 2 old IPs...",
        "Released 2 IPs successfully",
        "Report didn't contain any handles to clean up.",
    ]
    assert given_names(ctl) == "ipamhandle/net.a\n"
    again = ctl("ipam", "release", "--from-report", str(tmp_path / "1.json")).stdout.splitlines()
    assert again[1:3] == [
        "Released 0 IPs successfully",
        "2 addresses marked as leaked in the report had already been cleaned up.",
    ]


def test_only_what_all_reports_call_unused_is_released(ctl: Ctl, given: dict[str, str], tmp_path: Path) -> None:
    ctl("delete", "pod", "b", "-n", "web")
    first = reported(ctl, tmp_path / "1.json")
    ctl("delete", "pod", "c", "-n", "web")
    second = reported(ctl, tmp_path / "2.json")
    result = ctl("ipam", "release", "--from-report", str(first), "--from-report", str(second))
    assert result.stdout.splitlines()[:2] == ["Releasing 1 old IPs...", "Released 1 IPs successfully"]
    assert given_names(ctl) == "ipamhandle/net.a\nipamhandle/net.c\n"


def test_what_is_used_again_since_the_report_stays(ctl: Ctl, given: dict[str, str], tmp_path: Path) -> None:
    pod = ctl("get", "pod", "b", "-n", "web", "-o", "yaml").stdout
    ctl("delete", "pod", "b", "-n", "web")
    report = reported(ctl, tmp_path / "1.json")
    assert ctl("create", "-f", "-", stdin=pod).exit_code == 0
    result = ctl("ipam", "release", "--from-report", str(report))
    assert result.stdout.splitlines()[1:3] == [
        f"{given['b']} is left alone: pod web/b uses it now", "Released 0 IPs successfully",
    ]  # fmt: skip
    assert "ipamhandle/net.b\n" in given_names(ctl)


def test_a_report_with_nothing_to_release_says_so(ctl: Ctl, given: dict[str, str], tmp_path: Path) -> None:
    result = ctl("ipam", "release", "--from-report", str(reported(ctl, tmp_path / "1.json")))
    assert result.stdout == (
        "Report didn't contain any leaked IPs to clean up.\nReport didn't contain any handles to clean up.\n"
    )


def test_reported_handles_without_addresses_are_deleted_unless_they_have_changed(
    ctl: Ctl, given: dict[str, str], tmp_path: Path
) -> None:
    spec = "spec: {handleID: %s, block: {10.1.0.0/26: 1}}"
    for name in ("lost", "busy"):
        document = f"{{apiVersion: projectcalico.org/v3, kind: IPAMHandle, metadata: {{name: {name}}}, {spec % name}}}"
        assert ctl("create", "-f", "-", stdin=document).exit_code == 0
    report = reported(ctl, tmp_path / "1.json")
    assert ctl("label", "ipamhandle", "busy", "a=b").exit_code == 0
    result = ctl("ipam", "release", "--from-report", str(report))
    assert result.stdout.splitlines()[-2:] == ["Deleting 2 handles...", "Released 1 handles; 1 skipped; 0 errors."]
    assert "busy" in given_names(ctl)
    assert "lost" not in given_names(ctl)


INFORMATION = "{apiVersion: projectcalico.org/v3, kind: ClusterInformation, metadata: {name: default}, spec: %s}"
# a report's fields that are otherwise | what is said
UNFIT = [
    ({"clusterGUID": "x"}, " 'x': is of another cluster: its clusterGUID is not abc; write one of this cluster\n"),
    ({"version": "0"}, " '0': was written by another version of this program than "),
    ({"clusterInformationRevision": "1"}, ": is of a time before ClusterInformation was last changed; write a new one"),
    ({"allocations": 7}, ": can't be read: Expected `object`, got `int` - at `$.allocations`; write one with "),
]


@pytest.mark.parametrize(("otherwise", "said"), UNFIT, ids=[str(row[0]) for row in UNFIT])
def test_a_report_that_does_not_fit_is_refused(
    ctl: Ctl, given: dict[str, str], tmp_path: Path, otherwise: dict[str, object], said: str
) -> None:
    ctl("apply", "-f", "-", stdin=INFORMATION % "{clusterGUID: abc}")
    ctl("delete", "pod", "b", "-n", "web")
    report = reported(ctl, tmp_path / "1.json")
    report.write_bytes(msgspec.json.encode({**msgspec.json.decode(report.read_bytes()), **otherwise}))
    result = ctl("ipam", "release", "--from-report", str(report))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: report {report}{said}")
    assert "ipamhandle/net.b\n" in given_names(ctl)
    forced = ctl("ipam", "release", "--force", "--from-report", str(report))
    assert forced.exit_code == (0 if "version" in otherwise else 1)


def test_release_wants_an_address_or_reports(ctl: Ctl) -> None:
    for words in ([], ["--ip", "10.0.0.1", "--from-report", "x"]):
        result = ctl("ipam", "release", *words)
        assert result.stderr == "error: ipam release: wants an address or reports; give --ip, or --from-report\n"
    assert ctl("ipam", "release", "--from-report", "/nowhere").stderr.startswith("error: /nowhere: No such file")


# options of `ipam configure` | what is said | the properties that are otherwise afterwards
CONFIGURED: list[tuple[str, list[str], dict[str, str]]] = [
    ("--strictaffinity=true", ["Successfully set StrictAffinity to: true"], {"StrictAffinity": "true"}),
    (
        "--strictaffinity=true --max-blocks-per-host=4",
        ["Successfully set StrictAffinity to: true", "Successfully set MaxBlocksPerHost to: 4"],
        {"StrictAffinity": "true", "MaxBlocksPerHost": "4"},
    ),
    (
        "--ip-cooldown-seconds=60 --kubevirt-ip-persistence=Disabled",
        [
            "Successfully set IPCooldownSeconds to: 60",
            "Successfully set KubeVirtVMAddressPersistence to: Disabled",
        ],
        {"IPCooldownSeconds": "60", "KubeVirtVMAddressPersistence": "disabled"},
    ),
    ("--max-blocks-per-host=0", ["Successfully set MaxBlocksPerHost to: 0"], {}),
]


def properties(ctl: Ctl) -> dict[str, str]:
    lines = ctl("ipam", "configure", "show").stdout.splitlines()
    return dict(line.split() for line in lines)


@pytest.mark.parametrize("before", ["{}", "{ipCooldownSeconds: 5}"])
@pytest.mark.parametrize(("options", "said", "otherwise"), CONFIGURED, ids=[row[0] for row in CONFIGURED])
def test_configure(ctl: Ctl, before: str, options: str, said: list[str], otherwise: dict[str, str]) -> None:
    if before != "{}":
        name = "metadata: {name: default}"
        document = f"{{apiVersion: projectcalico.org/v3, kind: IPAMConfiguration, {name}, spec: {before}}}"
        assert ctl("apply", "-f", "-", stdin=document).exit_code == 0
    shown = properties(ctl)
    result = ctl("ipam", "configure", *options.split())
    assert (result.exit_code, result.stderr, result.stdout.splitlines()) == (0, "", said)
    assert properties(ctl) == {**shown, **otherwise}


NOT_CONFIGURED = [
    ("", "error: ipam configure: is told nothing to change; see --help for the options\n"),
    ("--max-blocks-per-host=4", "error: --max-blocks-per-host 4: is for strict affinity alone: "),
    (
        "--ip-cooldown-seconds=1201",
        "error: IPAMConfiguration/default is refused:\n  spec.ipCooldownSeconds 1201: is out of range; 0 to 1200\n",
    ),
]


@pytest.mark.parametrize(("options", "said"), NOT_CONFIGURED, ids=[row[0] for row in NOT_CONFIGURED])
def test_what_can_not_be_configured_is_explained_and_makes_nothing(ctl: Ctl, options: str, said: str) -> None:
    result = ctl("ipam", "configure", *options.split())
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(said)
    assert ctl("get", "ipamconfig", "-o", "name").stdout == ""
