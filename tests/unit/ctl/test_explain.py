"""`pycalicoctl explain`: what people see, what programs read, how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import Result
from msgspec import structs

from calipy.datastore.sqlite import SQLiteStore
from calipy.explain import answers
from calipy.explain.inhabitants import World
from calipy.explain.reference import evaluate
from calipy.explain.verdicts import Packet, Verdict
from calipy.resources import network_policies, node_reports, nodes, pods
from calipy.resources.metadata import Key, ObjectMeta, no_problems
from calipy.resources.network_policies import NetworkPolicy
from calipy.resources.node_reports import NodeReport
from calipy.resources.pods import Pod, PodAddress, PodSpec, PodStatus
from calipy.resources.policy_rules import PolicySpec
from tests.cases.loading import node

Ctl = Callable[..., Result]
POLICY = """
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: friends, namespace: shop}
spec:
  selector: app == 'web'
  ingress:
    - {action: Deny, protocol: UDP}
    - {action: Allow, source: {selector: role == 'friend'}}
    - {action: Allow, protocol: TCP, source: {selector: role == 'friend'}, destination: {ports: [443]}}
"""
DENIED = ("explain", "web", "--from", "client", "--port", "80", "-n", "shop")


def pod(name: str, at: str, *addresses: str, **labels: str) -> Pod:
    status = PodStatus(phase="Running", pod_ips=tuple(PodAddress(ip=address) for address in addresses))
    metadata = ObjectMeta(name=name, namespace="shop", labels=labels)
    return Pod(metadata=metadata, spec=PodSpec(node_name=at), status=status)


def report(name: str, revision: int, shortfalls: Mapping[Key, str] = {}) -> NodeReport:
    status = node_reports.status({"NetworkPolicy": revision}, shortfalls)
    return NodeReport(metadata=ObjectMeta(name=name), status=status)


async def _fill(path: Path) -> None:
    store = await SQLiteStore.open(path)
    for name in ("n1", "n2"):
        await store.create(nodes.KIND, node(name))
        await store.create(node_reports.KIND, report(name, 1 << 20))
    await store.create(pods.KIND, pod("web", "n1", "10.244.1.1", "fd00:244:1::1", app="web"))
    await store.create(pods.KIND, pod("client", "n2", "10.244.2.1", "fd00:244:2::1"))
    await store.create(pods.KIND, pod("friend", "n2", "10.244.2.2", "fd00:244:2::2", role="friend"))
    await store.close()


@pytest.fixture(autouse=True)
def cluster(ctl: Ctl, store_path: Path) -> None:
    """Two nodes, a web server with a policy, a client and a friend."""
    asyncio.run(_fill(store_path))
    assert ctl("apply", "-f", "-", stdin=POLICY).exit_code == 0


def test_what_is_denied_is_told_with_who_denies_it_and_what_would_have_allowed_it(ctl: Ctl) -> None:
    done = ctl(*DENIED)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == (
        "shop/client -> shop/web, TCP 80, IPv4 and IPv6: DENIED where it arrives\n"
        "DIRECTION   NODE   SPECIFICATION   RULES     DECIDED BY\n"
        "egress      n2     allowed         allowed   no policy has decided; profile kns.shop allows all egress\n"
        "ingress     n1     DENIED          DENIED    the end of tier default: np/shop/friends governs shop/web, and "
        "no rule matches\n"
        "\n"
        "Nearest to allowing it\n"
        "POLICY            RULE   UNMET             TEXT\n"
        "np/shop/friends   1      source.selector   {action: Allow, source: {selector: role == 'friend'}}\n"
        "\n"
        "Way\n"
        "FROM            TO              WAY\n"
        "10.244.2.1      10.244.1.1      from n2 to n1 as the network between nodes has it\n"
        "fd00:244:2::1   fd00:244:1::1   from n2 to n1 as the network between nodes has it\n"
    )


def test_the_rule_that_decides_is_shown_as_it_is_written(ctl: Ctl) -> None:
    allowed = ctl("explain", "shop/friend", "--to", "shop/web", "--port", "80").stdout
    assert "IPv4 and IPv6: allowed\n" in allowed
    assert "np/shop/friends of tier default, rule 1: {action: Allow, source: {selector: role == 'friend'}}\n" in allowed
    assert "Nearest" not in allowed
    denied = ctl("explain", "shop/friend", "--to", "shop/web", "--port", "80", "--protocol", "udp").stdout
    assert "np/shop/friends of tier default, rule 0: {action: Deny, protocol: UDP}\n" in denied


@pytest.mark.parametrize("words", [("-o", "wide"), ("--verbose",)])
def test_wide_shows_all_that_was_looked_at(ctl: Ctl, words: tuple[str, ...]) -> None:
    table = ctl(*DENIED, *words).stdout.partition("Looked at, in this order\n")[2].splitlines()
    assert [line.split()[:6] for line in table] == [
        ["DIRECTION", "TIER", "POLICY", "RULE", "ACTION", "UNMET"],
        ["egress", "-", "kns.shop", "0", "allow", "nothing:"],
        ["ingress", "default", "np/shop/friends", "0", "deny", "protocol"],
        ["ingress", "default", "np/shop/friends", "1", "allow", "source.selector"],
        ["ingress", "default", "np/shop/friends", "2", "allow", "source.selector,"],
        ["ingress", "default", "(end", "of", "the", "tier)"],
    ]


def test_families_that_fare_differently_are_told_apart(ctl: Ctl) -> None:
    rule = "{action: Allow, source: {nets: [10.244.2.1/32]}}"
    assert ctl("apply", "-f", "-", stdin=f"{POLICY}    - {rule}\n").exit_code == 0
    done = ctl(*DENIED)
    assert "shop/client -> shop/web, TCP 80, IPv4: allowed\n" in done.stdout
    assert "shop/client -> shop/web, TCP 80, IPv6: DENIED where it arrives\n" in done.stdout
    assert json.loads(ctl(*DENIED, "-o", "json").stdout)["allowed"] is False
    assert json.loads(ctl(*DENIED, "-o", "json", "--family", "4").stdout)["allowed"] is True


def test_programs_read_it_in_json(ctl: Ctl) -> None:
    done = ctl(*DENIED, "-o", "json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["allowed"], found["agreed"], found["leftOut"]) == (0, False, True, {})
    assert [answer["family"] for answer in found["answers"]] == [4, 6]
    first = found["answers"][0]
    assert first["specification"] == first["rules"]
    assert first["rules"]["ingress"] == {"allowed": False, "tier": "default", "governing": ["np/shop/friends"]}
    assert first["nearest"][0]["text"] == {"action": "Allow", "source": {"selector": "role == 'friend'"}}
    assert first["way"] == {"sourceNode": "n2", "destinationNode": "n1", "means": "network"}
    assert ctl(*DENIED, "-o", "yaml").stdout.startswith("question:\n")


def test_the_exit_code_tells_it_where_that_is_asked_for(ctl: Ctl) -> None:
    assert ctl(*DENIED, "--exit-code").exit_code == 4
    assert ctl("explain", "web", "--from", "friend", "--port", "80", "-n", "shop", "--exit-code").exit_code == 0


def test_answers_that_differ_are_told_loudly(ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(world: World, packet: Packet) -> Verdict:
        return evaluate({key: value for key, value in world.items() if key.kind != "NetworkPolicy"}, packet)

    monkeypatch.setattr(answers, "evaluate", blind)
    done = ctl(*DENIED)
    assert done.exit_code == 3
    assert "TCP 80, IPv4 and IPv6: THE TWO ANSWERS DIFFER\n" in done.stdout
    by = "specification: no policy has decided; profile kns.shop allows all ingress rules: the end of tier default: "
    assert f"ingress     n1     allowed         DENIED    {by}" in done.stdout
    assert "\nTHE TWO ANSWERS DIFFER: one of them is wrong." in done.stderr
    done = ctl(*DENIED, "-o", "json")
    assert (done.exit_code, json.loads(done.stdout)["agreed"]) == (3, False)
    assert "THE TWO ANSWERS DIFFER" in done.stderr


async def _write_wrong(path: Path) -> None:
    """Past all checks, as another client might."""
    store = await SQLiteStore.open(path)
    unchecked = structs.replace(network_policies.KIND, problems=no_problems)
    metadata = ObjectMeta(name="wrong", namespace="shop")
    await store.create(unchecked, NetworkPolicy(metadata=metadata, spec=PolicySpec(selector="app ==")))
    await store.close()


def test_an_object_that_nodes_refuse_is_left_out_and_said(ctl: Ctl, store_path: Path) -> None:
    asyncio.run(_write_wrong(store_path))
    done = ctl(*DENIED)
    assert done.exit_code == 0
    assert "TCP 80, IPv4 and IPv6: DENIED" in done.stdout
    assert done.stderr.startswith("note: NetworkPolicy/shop/wrong is left out: spec.selector: 'app ==': ")
    assert list(json.loads(ctl(*DENIED, "-o", "json").stdout)["leftOut"]) == ["NetworkPolicy/shop/wrong"]


@pytest.mark.parametrize(
    ("revision", "shortfalls", "reason"),
    [
        (1, {}, "has not got so far yet: revision "),
        (
            1 << 20,
            {Key("NetworkPolicy", "friends", "shop"): "the kernel refuses chain x"},
            "the kernel refuses chain x",
        ),
    ],
)
def test_a_policy_that_isn_t_in_force_on_its_node_is_noted(
    ctl: Ctl, store_path: Path, revision: int, shortfalls: dict[Key, str], reason: str
) -> None:
    async def lag() -> None:
        store = await SQLiteStore.open(store_path)
        for name in ("n1", "n2"):
            stored = await store.get(node_reports.KIND, name)
            await store.update(node_reports.KIND, stored, report(name, revision, shortfalls))
        await store.close()

    asyncio.run(lag())
    done = ctl(*DENIED)
    assert done.exit_code == 0
    assert done.stderr.startswith(f"note: np/shop/friends is not in force on node n1: {reason}")
    assert len(done.stderr.splitlines()) == 1
    behind = json.loads(ctl(*DENIED, "-o", "json").stdout)["behind"]
    assert [(each["node"], each["policy"]) for each in behind] == [("n1", "np/shop/friends")]


def test_so_is_one_that_governs_without_rules(ctl: Ctl) -> None:
    silent = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny}, spec: {podSelector: {}}}"
    assert ctl("apply", "-n", "shop", "-f", "-", stdin=silent).exit_code == 0
    assert ctl(*DENIED).stderr.startswith("note: knp/shop/deny is not in force on node n1: has not got so far yet")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("web", "--port", "80"), 2, "Error: name the other end: --from END or --to END, one of them"),
        (("web", "--port", "80", "--from", "a", "--to", "b"), 2, "Error: name the other end"),
        (
            ("web", "--port", "80", "--from", "client"),
            1,
            "error: pod default/client: does not exist; namespace default",
        ),
        (("shop/web", "--from", "shop/client"), 1, "error: protocol TCP: wants the port of the destination; name it"),
        (("shop/web", "--from", "node/n3", "--port", "1"), 1, "error: node 'n3': does not exist; known are n1, n2"),
    ],
)
def test_what_can_not_be_asked_is_a_failure(ctl: Ctl, words: tuple[str, ...], code: int, said: str) -> None:
    done = ctl("explain", *words)
    assert done.exit_code == code
    assert said in done.stderr
