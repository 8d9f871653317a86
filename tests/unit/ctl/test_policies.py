"""Policies, tiers, sets and what else policy needs, through pycalicoctl."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import Result

from calipy.resources import (
    endpoint_slices,
    global_network_policies,
    kinds,
    kubernetes_network_policies,
    network_policies,
    secrets,
    tiers,
)

Ctl = Callable[..., Result]
Stored = Callable[..., Any]
CASES = Path(__file__).parents[2] / "cases"
NP, GNP, KNP = network_policies.KIND, global_network_policies.KIND, kubernetes_network_policies.KIND


def policy(
    spec: str = "{}", name: str = "a", kind: str = "NetworkPolicy", version: str = "projectcalico.org/v3"
) -> str:
    return f"{{apiVersion: {version}, kind: {kind}, metadata: {{name: {name}}}, spec: {spec}}}\n"


def tier(name: str, spec: str = "{order: 7}") -> str:
    return policy(spec, name, "Tier")


@pytest.mark.parametrize("name", ["kubernetes_policies", "calico_policies"])
def test_documented_policies_apply_as_they_stand_and_a_second_time_change_nothing(ctl: Ctl, name: str) -> None:
    first, second = ctl("apply", "-f", f"{CASES}/{name}.yaml"), ctl("apply", "-f", f"{CASES}/{name}.yaml")
    assert (first.exit_code, first.stderr) == (0, "")
    assert {line.split()[-1] for line in first.stdout.splitlines()} == {"created"}
    assert {line.split()[-1] for line in second.stdout.splitlines()} == {"unchanged"}


@pytest.mark.parametrize("name", ["kubernetes_policies", "calico_policies"])
def test_what_is_printed_can_be_applied_again(ctl: Ctl, name: str) -> None:
    assert ctl("apply", "-f", f"{CASES}/{name}.yaml").exit_code == 0
    printed = ctl("get", "tiers,np,gnp,knp,networksets,globalnetworksets,profiles", "-A", "-o", "yaml").stdout
    again = ctl("replace", "-f", "-", stdin=printed)
    assert (again.exit_code, again.stderr) == (0, "")
    assert {line.split()[-1] for line in again.stdout.splitlines()} == {"unchanged"}


SHOWN = [
    ("get networkpolicies -n production", [
        "NAME TIER", "allow-tcp-6379 default", "blue-to-red default", "services-and-accounts default",
    ]),
    ("get networkpolicies -A -o wide", [
        "NAMESPACE NAME TIER ORDER SELECTOR",
        "production allow-tcp-6379 default - role == 'database'",
        "production blue-to-red default 10.5 color == 'red'",
        "production services-and-accounts default - app == 'api'",
    ]),
    ("get np -n default", ["NAME TIER"]),
    ("get np default.blue-to-red -n production -o name", ["networkpolicy/blue-to-red"]),
    ("get gnp", ["NAME TIER", "allow-ping default", "default-deny default", "security.block-bad-addresses security"]),
    ("get gnp -o wide", [
        "NAME TIER ORDER SELECTOR",
        "allow-ping default 100",
        "default-deny default - projectcalico.org/namespace not in {'kube-system', 'calico-system', 'tigera-operator'}",
        "security.block-bad-addresses security 0 all()",
    ]),
    ("get gnp -l projectcalico.org/tier=security -o name", ["globalnetworkpolicy/security.block-bad-addresses"]),
    ("get tiers -o wide", ["NAME ORDER DEFAULTACTION", "security 100 Pass", "default 1000000 Deny", "last - Deny"]),
    ("get networksets -A", ["NAMESPACE NAME", "production partners"]),
    ("get netsets -n production -o wide", ["NAME NETS", "partners 198.51.100.0/28"]),
    ("get gnetsets -o wide", [
        "NAME NETS", "bad-addresses 198.51.100.28/32,203.0.113.0/24,2001:db8:bad::/48,192.0.2.7",
    ]),
    ("get profiles -o wide", ["NAME LABELS", "profile1 zone=inner"]),
    ("get kubernetesnetworkpolicies database -n shop", ["NAME PODSELECTOR", "database role=db"]),
    ("get knp own-namespace-only named-and-sctp -n shop -o wide", [
        "NAME PODSELECTOR TYPES",
        "own-namespace-only <none> Ingress",
        "named-and-sctp tier notin (gone),app Ingress",
    ]),
    ("get networkpolicies.networking.k8s.io deny-egress -n shop -o wide", [
        "NAME PODSELECTOR TYPES", "deny-egress <none> Egress",
    ]),
    ("get networkpolicies.projectcalico.org allow-tcp-6379 -n production", ["NAME TIER", "allow-tcp-6379 default"]),
]  # fmt: skip


@pytest.mark.parametrize(("line", "shown"), SHOWN, ids=[line for line, _ in SHOWN])
def test_get(ctl: Ctl, line: str, shown: list[str]) -> None:
    more = tier("default", "{order: 1000000}") + "---\n" + tier("last", "{}")
    assert ctl("apply", "-f", f"{CASES}/kubernetes_policies.yaml").exit_code == 0
    assert ctl("apply", "-f", f"{CASES}/calico_policies.yaml", "-f", "-", stdin=more).exit_code == 0
    result = ctl(*line.split(" "))
    assert (result.exit_code, result.stderr) == (0, "")
    if line.endswith("-o wide") and "profiles" not in line:  # there are no nodes that could report
        shown = [f"{shown[0]} PROGRAMMED", *(f"{row} 0/0" for row in shown[1:])]
    assert [" ".join(row.split()) for row in result.stdout.splitlines()] == shown


@pytest.mark.parametrize("kind", ["StagedNetworkPolicy", "StagedGlobalNetworkPolicy"])
def test_a_staged_policy_is_stored_as_the_policy_that_it_may_become(ctl: Ctl, stored: Stored, kind: str) -> None:
    assert ctl("apply", "-f", "-", stdin=tier("b") + "---\n" + policy("{tier: b}", "x", kind)).exit_code == 0
    found = stored(kinds.BY_NAME[kind], "x", "default" if kind == "StagedNetworkPolicy" else "").value
    assert (found.spec.tier, found.spec.types) == ("b", ("Ingress",))
    assert found.metadata.labels == {"projectcalico.org/tier": "b"}
    assert ctl("delete", "tier", "b").stderr.startswith("error: Tier/b is refused")
    missing = ctl("apply", "-f", "-", stdin=policy("{tier: nowhere}", "y", kind))
    assert "spec.tier 'nowhere': does not exist; make the Tier first" in missing.stderr
    assert ctl("apply", "-f", "-", stdin=policy("{stagedAction: Delete}", "default.z", kind)).exit_code == 0
    assert stored(kinds.BY_NAME[kind], "z", found.metadata.namespace).value.spec.types == ()


def test_a_long_list_of_nets_is_cut(ctl: Ctl) -> None:
    nets = ",".join(f"10.0.{index}.0/24" for index in range(20))
    assert ctl("apply", "-f", "-", stdin=policy(f"{{nets: [{nets}]}}", kind="GlobalNetworkSet")).exit_code == 0
    assert ctl("get", "gns", "-o", "wide").stdout.splitlines()[1].split()[1] == f"{nets[:77]}..."


def test_the_same_kind_in_two_groups_is_two_kinds(ctl: Ctl, stored: Stored) -> None:
    kubernetes = policy("{podSelector: {}}", version="networking.k8s.io/v1")
    assert ctl("apply", "-f", "-", stdin=policy() + "---\n" + kubernetes).stdout == (
        "NetworkPolicy/default/a created\nKubernetesNetworkPolicy/default/a created\n"
    )
    assert stored(NP, "a", "default").value.spec.types == ("Ingress",)
    assert stored(KNP, "a", "default").value.spec.pod_selector.match_labels == {}
    document = msgspec.json.decode(ctl("get", "knp", "a", "-o", "json").stdout)
    assert (document["apiVersion"], document["kind"]) == ("networking.k8s.io/v1", "NetworkPolicy")
    assert msgspec.json.decode(ctl("get", "knp", "-o", "json").stdout)["kind"] == "NetworkPolicyList"
    listed = ctl("get", "knp", "-A", "-o", "yaml").stdout
    assert ctl("delete", "-f", "-", stdin=listed).stdout == "KubernetesNetworkPolicy/default/a deleted\n"
    assert ctl("get", "np,knp", "-o", "name").stdout == "networkpolicy/a\n"


def test_a_policy_is_stored_as_calicos_client_stores_it(ctl: Ctl, stored: Stored) -> None:
    text = policy("{egress: [{action: Allow}]}", "default.a")
    assert ctl("apply", "-f", "-", stdin=text).stdout == "NetworkPolicy/default/a created\n"
    found = stored(NP, "a", "default").value
    assert found.metadata.labels == {"projectcalico.org/tier": "default"}
    assert (found.spec.tier, found.spec.types) == ("default", ("Egress",))
    assert ctl("apply", "-f", "-", stdin=text).stdout == "NetworkPolicy/default/a unchanged\n"
    both = policy("{egress: [{action: Allow}], ingress: [{action: Deny}]}", "a")
    assert ctl("apply", "-f", "-", stdin=both).stdout == "NetworkPolicy/default/a configured\n"
    assert stored(NP, "a", "default").value.spec.types == ("Ingress", "Egress")
    assert ctl("delete", "np", "default.a").stdout == "NetworkPolicy/default/a deleted\n"


def test_a_policy_that_moves_to_another_tier_is_labelled_so(ctl: Ctl, stored: Stored) -> None:
    assert ctl("apply", "-f", "-", stdin=tier("t") + "---\n" + policy(kind="GlobalNetworkPolicy")).exit_code == 0
    assert ctl("apply", "-f", "-", stdin=policy("{tier: t}", kind="GlobalNetworkPolicy")).exit_code == 0
    assert stored(GNP, "a").value.metadata.labels == {"projectcalico.org/tier": "t"}
    assert ctl("get", "gnp", "default.a").exit_code == 0
    assert ctl("get", "gnp", "t.a").stderr.startswith("error: GlobalNetworkPolicy/t.a does not exist")


REFUSED = [
    (
        policy("{tier: nowhere}"),
        [
            "NetworkPolicy/default/a is refused:",
            "  spec.tier 'nowhere': does not exist; make the Tier first, or choose",
        ],
    ),
    (
        tier("kube-admin", "{order: 1}"),
        [
            "Tier/kube-admin is refused:",
            "  spec.order '1': of the built-in tier kube-admin can't be changed; write 1000",
            "  spec.defaultAction 'Deny': of the built-in tier kube-admin can't be changed; write Pass",
        ],
    ),
    (
        policy("{ingress: [{action: Allow, source: {nets: [10.0.0.1], net: 1}, verbose: true}]}"),
        [
            "NetworkPolicy/default/a is refused:",
            "  spec.ingress[0].source.net 1: is not known; did you mean nets?",
            "  spec.ingress[0].verbose True: is not known; known are action, destination, http, icmp, ipVersion",
            "  spec.ingress[0].source.nets[0] '10.0.0.1': is not a CIDR; write an address and a prefix length",
        ],
    ),
    (
        policy("{podSelector: {}, ingress: [{form: []}]}", version="networking.k8s.io/v1"),
        ["NetworkPolicy/default/a is refused:", "  spec.ingress[0].form []: is not known; did you mean from?"],
    ),
    (
        policy(version="networking.k8s.io/v1beta1"),
        [
            "NetworkPolicy/a is refused:",
            "  apiVersion 'networking.k8s.io/v1beta1': is not the one of NetworkPolicy; "
            "write projectcalico.org/v3 or networking.k8s.io/v1",
        ],
    ),
    (
        policy(name="t.h.i.ng"),
        ["NetworkPolicy/default/t.h.i.ng is refused:", "  metadata.name 't.h.i.ng': can't be a name; lower-case"],
    ),
]


@pytest.mark.parametrize(("text", "said"), REFUSED, ids=[row[1][1][:60] for row in REFUSED])
def test_what_is_wrong_is_told_by_object_and_field(ctl: Ctl, text: str, said: list[str]) -> None:
    result = ctl("apply", "-f", "-", stdin=text)
    assert (result.exit_code, result.stdout) == (1, "")
    first, *told = result.stderr.splitlines()
    assert first.endswith(said[0].removeprefix("NetworkPolicy/"))
    assert len(told) == len(said) - 1, result.stderr
    for line, start in zip(told, said[1:], strict=True):
        assert line.startswith(start), result.stderr


def test_a_policy_without_a_spec_lets_nothing_in(ctl: Ctl, stored: Stored) -> None:
    text = "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: a}}"
    assert ctl("apply", "-f", "-", stdin=text).exit_code == 0
    assert (stored(NP, "a", "default").value.spec.types, stored(NP, "a", "default").value.spec.ingress) == (
        ("Ingress",), (),
    )  # fmt: skip


def test_only_policies_are_found_with_their_tier_before_their_name(ctl: Ctl) -> None:
    assert ctl("apply", "-f", "-", stdin=policy() + "---\n" + tier("a")).exit_code == 0
    assert ctl("get", "np", "default.a", "-o", "name").stdout == "networkpolicy/a\n"
    assert ctl("get", "np", "default.b").stderr.startswith("error: NetworkPolicy/default/default.b does not exist")
    assert ctl("get", "tier", "default.a").stderr.startswith("error: Tier/default.a does not exist")


def test_what_is_only_called_like_a_tier_can_go(ctl: Ctl) -> None:
    text = policy("{asNumber: 64512}", "default", "BGPConfiguration")
    assert ctl("apply", "-f", "-", stdin=text).exit_code == 0
    assert ctl("delete", "bgpconfig", "default").stdout == "BGPConfiguration/default deleted\n"


def test_a_tier_may_come_with_its_policies_and_a_built_in_one_is_there(ctl: Ctl) -> None:
    objects = [policy("{tier: t}"), tier("t"), policy("{tier: kube-admin}", "b")]
    assert ctl("create", "-f", "-", stdin="---\n".join(objects)).exit_code == 0


def test_a_tier_goes_with_its_policies_or_not_at_all(ctl: Ctl, stored: Stored) -> None:
    other = policy(name="other")
    objects = "---\n".join([tier("t"), policy("{tier: t}"), policy("{tier: t}", "b", "GlobalNetworkPolicy"), other])
    assert ctl("apply", "-f", "-", stdin=objects).exit_code == 0
    refused = ctl("delete", "tier", "t")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.splitlines() == [
        "error: Tier/t is refused:",
        "  metadata.name 't': is the tier of GlobalNetworkPolicy/b and 1 more; delete or move its policies first",
    ]
    assert ctl("delete", "np", "a").exit_code == 0
    assert "is the tier of GlobalNetworkPolicy/b; delete" in ctl("delete", "tier", "t", "-s").stderr
    assert stored(tiers.KIND, "t").value.spec.order == 7
    assert ctl("delete", "tier/t", "gnp/b").stdout == "Tier/t deleted\nGlobalNetworkPolicy/b deleted\n"


@pytest.mark.parametrize("name", ["default", "kube-admin", "kube-baseline"])
def test_a_built_in_tier_stays(ctl: Ctl, name: str) -> None:
    built_in = tiers.BUILT_IN[name].spec
    spec = f"{{order: {built_in.order}, defaultAction: {built_in.default_action}}}"
    assert ctl("apply", "-f", "-", stdin=tier(name, spec)).exit_code == 0
    result = ctl("delete", "tier", name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"metadata.name '{name}': is a built-in tier and can't be deleted" in result.stderr
    assert ctl("get", "tier", name).exit_code == 0


SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
- {addresses: [10.1.0.5, 10.1.0.6], conditions: {ready: true}, nodeName: n1, zone: a}
ports:
- {name: http, port: 8080, protocol: TCP, appProtocol: http}
- {name: any}
"""


def test_an_endpoint_slice_keeps_what_stands_beside_spec(ctl: Ctl, stored: Stored) -> None:
    assert ctl("apply", "-f", "-", stdin=SLICE).stdout == "EndpointSlice/default/web-1 created\n"
    assert ctl("apply", "-f", "-", stdin=SLICE).stdout == "EndpointSlice/default/web-1 unchanged\n"
    printed = msgspec.json.decode(ctl("get", "endpointslice", "web-1", "-o", "json").stdout)
    assert (printed["endpoints"][0]["zone"], printed["ports"][0]["appProtocol"]) == ("a", "http")
    assert ctl("get", "endpointslices").stdout.split() == [
        "NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "web-1", "IPv4", "8080,*", "10.1.0.5,10.1.0.6",
    ]  # fmt: skip
    less = SLICE.replace(", 10.1.0.6", "").replace("- {name: any}\n", "")
    assert ctl("apply", "-f", "-", stdin=less).stdout == "EndpointSlice/default/web-1 configured\n"
    found = stored(endpoint_slices.KIND, "web-1", "default").value
    assert found.service == "web"
    assert [each.addresses for each in found.endpoints] == [("10.1.0.5",)]
    assert [port.port for port in found.ports] == [8080]


def test_a_slice_without_endpoints_has_null_where_others_have_lists(ctl: Ctl, stored: Stored) -> None:
    text = SLICE[: SLICE.index("endpoints:")] + "endpoints: null\nports: null\n"
    assert ctl("apply", "-f", "-", stdin=text).exit_code == 0
    assert ctl("get", "endpointslices").stdout.split()[-3:] == ["IPv4", "-", "-"]
    assert not stored(endpoint_slices.KIND, "web-1", "default").value.endpoints


def test_a_secret_keeps_its_data(ctl: Ctl, stored: Stored) -> None:
    text = "{apiVersion: v1, kind: Secret, metadata: {name: bgp}, type: Opaque, data: {rack: c2VjcmV0}}"
    assert ctl("apply", "-f", "-", stdin=text).stdout == "Secret/default/bgp created\n"
    assert ctl("apply", "-f", "-", stdin=text.replace("rack", "spine")).stdout == "Secret/default/bgp configured\n"
    found = stored(secrets.KIND, "bgp", "default").value
    assert (found.text("rack"), found.text("spine")) == ("secret", "secret")
    assert "spine: c2VjcmV0\n" in ctl("get", "secret", "bgp", "-o", "yaml").stdout
    wrong = ctl("apply", "-f", "-", stdin=text.replace("data:", "dato:"))
    assert "dato {'rack': 'c2VjcmV0'}: is not known; did you mean data?" in wrong.stderr


def test_services_and_service_accounts(ctl: Ctl) -> None:
    service = (
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, clusterIP: 10.96.0.1, "
        "ports: [{port: 80, targetPort: http}, {port: 53, protocol: UDP}], trafficDistribution: PreferClose}}\n"
    )
    account = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: api}, automountServiceAccountToken: false}\n"
    assert ctl("apply", "-f", "-", stdin=service + "---\n" + account).exit_code == 0
    assert ctl("get", "svc").stdout.split() == [
        "NAME", "TYPE", "CLUSTERIP", "PORTS", "web", "ClusterIP", "10.96.0.1", "80/TCP,53/UDP",
    ]  # fmt: skip
    assert "automountServiceAccountToken: false\n" in ctl("get", "sa", "api", "-o", "yaml").stdout
