"""Calico's annotations on Pods and Namespaces."""

import pytest

from calipy.cni.annotations import Wishes, read
from calipy.cni.errors import CniError

C = "cni.projectcalico.org/"


def test_nothing_said():
    assert read({"other": "x"}, {}) == Wishes()


def test_all():
    pod = {
        C + "ipv4pools": '["p4", "10.0.0.0/24"]',
        C + "ipv6pools": '["p6"]',
        C + "ipFamilies": '["IPv6", "ipv4"]',
        C + "hwAddr": "02-00-00-00-00-0A",
    }
    assert read(pod, {}) == Wishes(
        pools={4: ("p4", "10.0.0.0/24"), 6: ("p6",)}, families=(4, 6), mac="02:00:00:00:00:0a"
    )


def test_addresses():
    assert read({C + "ipAddrs": '["fd00::0:1", "10.0.0.1"]'}, {}).addresses == ("10.0.0.1", "fd00::1")


def test_a_namespace_gives_defaults():
    namespace = {C + "ipv4pools": '["n"]', C + "ipFamilies": '["IPv4"]', C + "hwAddr": "02:00:00:00:00:01"}
    assert read({}, namespace) == Wishes(pools={4: ("n",)}, families=(4,))
    assert read({C + "ipv4pools": '["p"]'}, namespace).pools == {4: ("p",)}
    assert read({C + "ipAddrs": '["10.0.0.1"]'}, namespace).addresses == ("10.0.0.1",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ipAddrs", "10.0.0.1"),
        ("ipAddrs", "[]"),
        ("ipAddrs", "[1]"),
        ("ipAddrs", '["10.0.0.1/32"]'),
        ("ipAddrs", '["10.0.0.300"]'),
        ("ipAddrs", '["10.0.0.1", "10.0.0.2"]'),
        ("ipv4pools", "p4"),
        ("ipv6pools", "{}"),
        ("ipFamilies", '["IPv5"]'),
        ("hwAddr", "02:00:00:00:00"),
        ("hwAddr", "03:00:00:00:00:01"),
        ("hwAddr", "00:00:00:00:00:00"),
        ("hwAddr", "02:00:00:00:00:0g"),
    ],
)
def test_wrong_values_are_named(name, value):
    with pytest.raises(CniError) as caught:
        read({C + name: value}, {})
    assert caught.value.code == 104
    assert caught.value.message.startswith(f"annotation {C}{name} is {value!r}: ")
    assert caught.value.details


def test_addresses_exclude_pools():
    with pytest.raises(CniError, match="excludes"):
        read({C + "ipAddrs": '["10.0.0.1"]', C + "ipv4pools": '["p"]'}, {})
