"""Answers in every version."""

import json

import pytest

from calipy.cni.errors import CniError, Code
from calipy.cni.inputs import AttachmentName
from calipy.cni.results import Result, prefix, render, render_attachments, render_error, render_versions

RESULT = Result(
    host_interface="cali1",
    container_interface="eth0",
    sandbox="/var/run/netns/x",
    mac="02:00:00:00:00:01",
    mtu=1450,
    addresses=("10.0.0.1", "fd00::1"),
    routes=("10.0.0.0/26", "fd00::/122"),
)
CONTAINER = {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/var/run/netns/x"}
OLD_IPS = [
    {"version": "4", "address": "10.0.0.1/32", "interface": 1},
    {"version": "6", "address": "fd00::1/128", "interface": 1},
]
NEW_IPS = [{"address": "10.0.0.1/32", "interface": 1}, {"address": "fd00::1/128", "interface": 1}]


@pytest.mark.parametrize(
    ("version", "container", "ips"),
    [
        ("0.3.1", CONTAINER, OLD_IPS),
        ("0.4.0", CONTAINER, OLD_IPS),
        ("1.0.0", CONTAINER, NEW_IPS),
        ("1.1.0", {**CONTAINER, "mtu": 1450}, NEW_IPS),
    ],
)
def test_result(version, container, ips):
    assert json.loads(render(RESULT, version)) == {
        "cniVersion": version,
        "interfaces": [{"name": "cali1"}, container],
        "ips": ips,
        "routes": [{"dst": "10.0.0.0/26"}, {"dst": "fd00::/122"}],
        "dns": {},
    }


def test_error():
    error = CniError(Code.NO_ADDRESS, "no address", "make a pool")
    expected = {"cniVersion": "0.4.0", "code": 100, "msg": "no address", "details": "make a pool"}
    assert json.loads(render_error(error, "0.4.0")) == expected


def test_versions():
    expected = {"cniVersion": "1.0.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]}
    assert json.loads(render_versions("1.0.0")) == expected


def test_what_gc_would_release():
    text = render_attachments([(AttachmentName("a", "eth0"), ("10.0.0.1",))])
    expected = {"wouldRelease": [{"containerID": "a", "ifname": "eth0", "addresses": ["10.0.0.1"]}]}
    assert json.loads(text) == expected


@pytest.mark.parametrize(("address", "expected"), [("10.0.0.1", "10.0.0.1/32"), ("fd00::1", "fd00::1/128")])
def test_prefix(address, expected):
    assert prefix(address) == expected
