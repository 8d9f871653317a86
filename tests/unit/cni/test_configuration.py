"""A network's configuration: what applies, what is refused and how."""

import pytest

from calipy.cni.configuration import Configuration, read
from calipy.cni.errors import CniError


def test_least():
    assert read({"name": "net"}) == Configuration(name="net")


def test_all_that_applies():
    document = {
        "name": "net",
        "mtu": 1400,
        "num_queues": 4,
        "nodename": "n1",
        "log_level": "Debug",
        "ipam": {
            "type": "calico-ipam",
            "assign_ipv4": "false",
            "assign_ipv6": "true",
            "ipv6_pools": ["fd00::/64", "six"],
        },
        "container_settings": {"allow_ip_forwarding": True},
        "policy": {"type": "k8s"},
        "kubernetes": {"kubeconfig": "/x"},
        "datastore_type": "kubernetes",
        "nodename_file_optional": True,
        "policy_setup_timeout_seconds": 10,
        "readiness_gates": [],
        "feature_control": {"ip_addrs_no_ipam": False},
    }
    assert read(document) == Configuration(
        name="net",
        mtu=1400,
        queues=4,
        node="n1",
        log_level="debug",
        ipv4=False,
        ipv6=True,
        ipv6_pools=("fd00::/64", "six"),
        forwarding=True,
    )
    assert read(document).pools(6) == ("fd00::/64", "six")
    assert read(document).pools(4) == ()


@pytest.mark.parametrize("value", [True, "true"])
def test_a_flag_may_be_one(value):
    assert read({"name": "x", "ipam": {"assign_ipv4": value}}).ipv4 is True


@pytest.mark.parametrize(
    ("key", "document"),
    [
        ("mtu", {"mtu": 67}),
        ("mtu", {"mtu": 65536}),
        ("mtu", {"mtu": "1500"}),
        ("mtu", {"mtu": True}),
        ("mtu", {"mtu": -1}),
        ("num_queues", {"num_queues": 0}),
        ("num_queues", {"num_queues": 1.5}),
        ("nodename", {"nodename": 1}),
        ("log_level", {"log_level": "loud"}),
        ("ipam", {"ipam": "calico-ipam"}),
        ("ipam.type", {"ipam": {"type": "host-local"}}),
        ("ipam.assign_ipv4", {"ipam": {"assign_ipv4": "yes"}}),
        ("ipam.assign_ipv6", {"ipam": {"assign_ipv6": 1}}),
        ("ipam.ipv4_pools", {"ipam": {"ipv4_pools": "x"}}),
        ("ipam.ipv6_pools", {"ipam": {"ipv6_pools": [1]}}),
        ("container_settings.allow_ip_forwarding", {"container_settings": {"allow_ip_forwarding": "true"}}),
        ("policy_setup_timeout_seconds", {"policy_setup_timeout_seconds": -1}),
        ("name", {"name": "a/b"}),
    ],
)
def test_wrong_values_are_named(key, document):
    with pytest.raises(CniError) as caught:
        read({"name": "net", **document})
    assert caught.value.code == 7
    assert caught.value.message.startswith(f"network configuration: {key} is ")
    assert caught.value.details.startswith("allowed: ")


@pytest.mark.parametrize(
    ("key", "document"),
    [
        ("feature_control.ip_addrs_no_ipam", {"feature_control": {"ip_addrs_no_ipam": True}}),
        ("feature_control.floating_ips", {"feature_control": {"floating_ips": True}}),
        ("readiness_gates", {"readiness_gates": ["http://localhost:9099"]}),
        ("device_type", {"device_type": "netkit"}),
    ],
)
def test_what_is_not_supported_is_refused(key, document):
    with pytest.raises(CniError, match=key) as caught:
        read({"name": "net", **document})
    assert caught.value.code == 2
