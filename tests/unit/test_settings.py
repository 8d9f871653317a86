"""Process settings from the environment: what each may be, and how a wrong one is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from calipy.settings import WITHOUT_EFFECT, Autodetection, DefaultPool, SettingError, known, read, without_effect

ROOT = Path(__file__).parents[2]
# variable | text | attribute | value
RIGHT: list[tuple[str, str, str, Any]] = [
    ("NAMESPACE", "calico-system", "namespace", "calico-system"),
    ("NODENAME", "n1.example.com", "node", "n1.example.com"),
    ("CALIPY_NODE_LABELS", "rack=a,x.io/z=", "node_labels", {"rack": "a", "x.io/z": ""}),
    ("CALIPY_DATASTORE", "sqlite:/tmp/x", "datastore", "sqlite:/tmp/x"),
    ("CALIPY_DATASTORE", "kubernetes:/tmp/x", "datastore", "kubernetes:/tmp/x"),
    ("DATASTORE_TYPE", "kubernetes", "datastore", "kubernetes"),
    ("DATASTORE_TYPE", "", "datastore", "sqlite:/var/lib/calipy/datastore.sqlite3"),
    ("KUBECONFIG", "/tmp/x", "datastore", "kubernetes"),
    ("KUBERNETES_SERVICE_HOST", "10.96.0.1", "datastore", "kubernetes"),
    ("CALIPY_RUN_DIR", "/tmp/run", "run_folder", Path("/tmp/run")),
    ("CALIPY_RUN_DIR", "/tmp/run", "bgp_folder", Path("/tmp/run")),
    ("CALIPY_BGP_DIR", "/tmp/bgp", "bgp_folder", Path("/tmp/bgp")),
    ("CALIPY_BGP_DIR", "/tmp/bgp", "run_folder", Path("/run/calipy")),
    ("CNI_CONF_NAME", "05-net.conflist", "cni_configuration_name", "05-net.conflist"),
    ("CALIPY_STATUS_GRACE_PERIOD", "1.5", "status_grace_period_s", 1.5),
    ("CALIPY_STATUS_GRACE_PERIOD", "86400", "status_grace_period_s", 86400.0),
    ("IP", "none", "ip", "none"),
    ("IP", "10.9.0.11/24", "ip", "10.9.0.11/24"),
    ("IP", "", "ip", "autodetect"),
    ("IP6", "autodetect", "ip6", "autodetect"),
    ("IP6", "fd00::1", "ip6", "fd00::1"),
    ("IP_AUTODETECTION_METHOD", "first-found", "ip_method", Autodetection("first-found")),
    ("IP_AUTODETECTION_METHOD", "can-reach=192.0.2.1", "ip_method", Autodetection("can-reach", ("192.0.2.1",))),
    ("IP_AUTODETECTION_METHOD", "interface=eth.*, ens1", "ip_method", Autodetection("interface", ("eth.*", "ens1"))),
    ("IP_AUTODETECTION_METHOD", "skip-interface=docker0", "ip_method", Autodetection("skip-interface", ("docker0",))),
    ("IP_AUTODETECTION_METHOD", "cidr=10.0.0.0/8,fd::/8", "ip_method", Autodetection("cidr", ("10.0.0.0/8", "fd::/8"))),
    ("IP6_AUTODETECTION_METHOD", "kubernetes-internal-ip", "ip6_method", Autodetection("kubernetes-internal-ip")),
    ("AUTODETECT_POLL_INTERVAL", "1m30s", "poll_interval_s", 90.0),
    ("DISABLE_NODE_IP_CHECK", "true", "check_node_address", False),
    ("USE_POD_CIDR", "true", "use_pod_cidr", True),
    ("AS", "1.10", "as_number", "1.10"),
    ("CALICO_ROUTER_ID", "hash", "router_id", "hash"),
    ("CALICO_NETWORKING_BACKEND", "vxlan", "networking_backend", "vxlan"),
    ("CALIPY_BGP_HOLD_TIME", "0", "hold_time_s", 0),
    ("NO_DEFAULT_POOLS", "y", "pools", {}),
    ("CLUSTER_TYPE", "k8s,bgp", "cluster_type", "k8s,bgp"),
    ("CALIPY_LOG_LEVEL", "WARNING", "log_level", "warning"),
    ("CALIPY_POLICYRECHECK", "enabled", "policy_recheck", "Enabled"),
    ("CALIPY_POLICYRECHECK", "Disabled", "policy_recheck", "Disabled"),
    ("CALIPY_POLICYRECHECK", "", "policy_recheck", None),
    ("CALIPY_LOG_FORMAT", "json", "log_format", "json"),
    ("FELIX_HEALTHPORT", "1", "felix", {"FELIX_HEALTHPORT": "1"}),
]  # fmt: skip


@pytest.mark.parametrize(("variable", "text", "attribute", "value"), RIGHT, ids=[f"{r[0]}={r[1]}" for r in RIGHT])
def test_right(variable: str, text: str, attribute: str, value: Any) -> None:
    assert getattr(read({"NODENAME": "n1", variable: text}), attribute) == value


METHODS = "first-found, can-reach=D, interface=RE,..., skip-interface=RE,..., cidr=C,... or kubernetes-internal-ip"
LABEL = "letters, digits, -, _ and ., 63 at most, a letter or digit at both ends"
NAME = f"{LABEL}; before it, at will, a DNS name and /"
IPV4 = "autodetect, none, or an IPv4 address with or without its prefix length"
STORES = "sqlite:<absolute path>, kubernetes, or kubernetes:<absolute path of a kubeconfig>"
# variable | text | what it must be
WRONG = [
    ("NODENAME", "Node_1", "a node's name: lower-case letters, digits, dashes, dots; a letter or digit at both ends"),
    ("CALICO_K8S_NODE_REF", "n2", "left out, or n1 as NODENAME: the Node is Kubernetes' own"),
    ("CALIPY_NODE_LABELS", "rack", "labels, key=value,..."),
    ("CALIPY_POLICYRECHECK", "true", "Disabled or Enabled"),
    ("CALIPY_NODE_LABELS", "rack=a,", "labels, key=value,..."),
    ("CALIPY_NODE_LABELS", "rack=a b", f"labels: 'a b' can't be the value of a label: {LABEL}, or nothing at all"),
    ("CALIPY_NODE_LABELS", "a b=c", f"labels: 'a b' can't be the name of a label: {NAME}"),
    ("NAMESPACE", "a.b", "a namespace's name: lower-case letters, digits, dashes; a letter or digit at both ends"),
    ("CALIPY_DATASTORE", "etcd://x", STORES),
    ("CALIPY_DATASTORE", "kubernetes:x", STORES),
    ("DATASTORE_TYPE", "etcdv3", "kubernetes, or left out: CALIPY_DATASTORE=sqlite:<path> names a file"),
    ("CALIPY_STATE_DIR", "state", "an absolute path"),
    ("CNI_CONF_NAME", "../x.conflist", "a file's name, without its folder"),
    *[("CALIPY_STATUS_GRACE_PERIOD", text, "0 to 86400 seconds") for text in ("-1", "1m", "inf", "nan", "86401")],
    ("IP", "auto", IPV4),
    ("IP", "fd00::1", IPV4),
    ("IP6", "10.9.0.1", "autodetect, none, or an IPv6 address with or without its prefix length"),
    ("IP_AUTODETECTION_METHOD", "best", METHODS),
    ("IP_AUTODETECTION_METHOD", "interface=", METHODS),
    ("IP_AUTODETECTION_METHOD", "interface=eth(", METHODS),
    ("IP_AUTODETECTION_METHOD", "can-reach=a,b", METHODS),
    ("IP_AUTODETECTION_METHOD", "cidr=10.0.0.0", METHODS),
    ("IP6_AUTODETECTION_METHOD", "first-found=eth0", METHODS),
    *[("AUTODETECT_POLL_INTERVAL", text, "a duration, 1s to 24h") for text in ("60", "0s", "25h")],
    ("AS", "AS64512", "an AS number, 64512 or 1.10"),
    ("CALICO_ROUTER_ID", "10.0.0.1/24", "an IPv4 address or hash"),
    ("CALICO_NETWORKING_BACKEND", "frr", "bird, vxlan or none"),
    ("CALIPY_BGP_HOLD_TIME", "2", "0 or 3 to 65535 seconds (RFC 4271 4.2)"),
    ("CLUSTER_TYPE", "k8s bgp", "words with commas between, k8s,bgp"),
    ("NO_DEFAULT_POOLS", "maybe", "true or false"),
    ("CALIPY_LOG_LEVEL", "loud", "debug, info, warning, error"),
    ("CALIPY_LOG_FORMAT", "xml", "text or json"),
    ("CALICO_IPV4POOL_CIDR", "10.244.0.1/16", "masked, 10.244.0.0/16"),
    ("CALICO_IPV4POOL_CIDR", "fd00::/48", "an IPv4 CIDR, or none"),
    ("CALICO_IPV6POOL_CIDR", "10.244.0.0/16", "an IPv6 CIDR, or none"),
]  # fmt: skip


@pytest.mark.parametrize(("variable", "text", "allowed"), WRONG, ids=[f"{r[0]}={r[1]}" for r in WRONG])
def test_wrong(variable: str, text: str, allowed: str) -> None:
    with pytest.raises(SettingError) as raised:
        read({"NODENAME": "n1", variable: text})
    assert str(raised.value) == f"environment variable {variable} is {text!r}: it must be {allowed}"


V4 = "CALICO_IPV4POOL_"
UNKNOWN4 = DefaultPool(block_size=26, nat_outgoing=True)
UNKNOWN6 = DefaultPool(block_size=122, nat_outgoing=False)
# the variables of a pool | the pool, by family
POOLS: list[tuple[dict[str, str], dict[int, DefaultPool]]] = [
    ({}, {4: UNKNOWN4, 6: UNKNOWN6}),
    ({f"{V4}CIDR": "none"}, {6: UNKNOWN6}),
    ({f"{V4}CIDR": "", f"{V4}VXLAN": "Always", "CALICO_IPV6POOL_CIDR": "none"},
     {4: structs.replace(UNKNOWN4, vxlan="Always")}),
    ({"NO_DEFAULT_POOLS": "true", f"{V4}CIDR": "none"}, {}),
    ({"NO_DEFAULT_POOLS": "false"}, {4: UNKNOWN4, 6: UNKNOWN6}),
    ({f"{V4}CIDR": "10.244.0.0/16"}, {4: structs.replace(UNKNOWN4, cidr="10.244.0.0/16"), 6: UNKNOWN6}),
    ({"CALICO_IPV6POOL_CIDR": "fd00::/48"}, {4: UNKNOWN4, 6: structs.replace(UNKNOWN6, cidr="fd00::/48")}),
    (
        {
            f"{V4}CIDR": "10.244.0.0/16", f"{V4}BLOCK_SIZE": "24", f"{V4}NAT_OUTGOING": "false", f"{V4}IPIP": "Off",
            f"{V4}VXLAN": "Cross-Subnet", f"{V4}NODE_SELECTOR": "has(a)", f"{V4}DISABLE_BGP_EXPORT": "true",
        },
        {4: DefaultPool(cidr="10.244.0.0/16", block_size=24, nat_outgoing=False, vxlan="CrossSubnet",
                        node_selector="has(a)", disable_bgp_export=True), 6: UNKNOWN6},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("environment", "pools"), POOLS)
def test_pools(environment: dict[str, str], pools: dict[int, DefaultPool]) -> None:
    assert read({"NODENAME": "n1", **environment}).pools == pools


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("BLOCK_SIZE", "33", "a prefix length, 20 to 32"),
        ("VXLAN", "sometimes", "Never, Always or CrossSubnet"),
        ("IPIP", "yes", "Never, Always or CrossSubnet"),
        ("NAT_OUTGOING", "on", "true or false"),
        ("NODE_SELECTOR", "a", "a selector (column 2: 'the end' where ==, !=, in, not in, contains, starts with or "
         "ends with was expected)"),
    ],
)  # fmt: skip
def test_a_wrong_part_of_a_pool(name: str, text: str, allowed: str) -> None:
    with pytest.raises(SettingError) as raised:
        read({"NODENAME": "n1", f"{V4}CIDR": "10.244.0.0/16", f"{V4}{name}": text})
    assert str(raised.value) == f"environment variable {V4}{name} is {text!r}: it must be {allowed}"


def test_no_pools_and_a_pool_contradict_each_other() -> None:
    with pytest.raises(SettingError, match="CALICO_IPV4POOL_CIDR is '10.0.0.0/8': it must be left out, or none, where"):
        read({"NODENAME": "n1", "NO_DEFAULT_POOLS": "true", f"{V4}CIDR": "10.0.0.0/8"})


def test_a_method_is_told_as_it_was_written() -> None:
    assert [str(read({"IP_AUTODETECTION_METHOD": text}).ip_method) for text in ("first-found", "cidr=10.0.0.0/8")] == [
        "first-found",
        "cidr=10.0.0.0/8",
    ]


def test_what_nothing_reads_is_told() -> None:
    environment = {
        "CALICO_IPV4POOL_CIDR": "10.0.0.0/8", "CALIPY_LAB": "/x", "FELIX_X": "1", "PATH": "/bin",
        "WAIT_FOR_DATASTORE": "1",
        "CALICO_IPV4POOL_CDIR": "10.0.0.0/8", "CALIPY_RUNDIR": "/x", "CALICO_API_SERVICE_HOST": "10.0.0.1",
        "CALICO_API_PORT_443_TCP": "tcp", "CALICO_API_PORT": "tcp",
    }  # fmt: skip
    assert list(without_effect(environment)) == [
        "environment variable CALICO_IPV4POOL_CDIR has no effect: CalIPy knows no such setting",
        "environment variable CALIPY_RUNDIR has no effect: CalIPy knows no such setting",
        "environment variable WAIT_FOR_DATASTORE has no effect: the agent always waits for its datastore",
    ]
    assert not known() & WITHOUT_EFFECT.keys()


def test_a_default_pools_settings_are_known() -> None:
    """Each of them is refused where it is wrong, so each is read."""
    for name in known():
        if name.startswith("CALICO_IPV"):
            with pytest.raises(SettingError, match=name):
                read({"NODENAME": "n1", name: "\0"})


def test_the_page_on_settings_has_them_all() -> None:
    rows = [line.split("|") for line in (ROOT / "docs/settings.md").read_text().splitlines() if line.startswith("| `")]
    told = [name for row in rows for name in re.findall(r"`([A-Z0-9_*]+)`", row[1])]
    assert sorted(told) == sorted({*known(), *WITHOUT_EFFECT, "FELIX_*"})
    why = {name: row[2].strip() for row in rows if len(row) == 4 for name in re.findall(r"`(\w+)`", row[1])}
    assert why == WITHOUT_EFFECT
