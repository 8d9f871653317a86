"""Requests: every verb, every version, every wrong value."""

import json

import pytest

from calipy.cni.errors import CniError, Code
from calipy.cni.inputs import AttachmentName, PortMapping, Previous
from calipy.cni.protocol import HANDLE_MOST, PodReference, Verb, parse, version_of

ENV = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "abc123",
    "CNI_NETNS": "/var/run/netns/x",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_NAME=web;IgnoreUnknown=1;K8S_POD_UID=u;K8S_POD_NAMESPACE=shop",
}
CONF = {"cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "calipy-cni"}


def ask(env=(), conf=(), **more):
    return parse({**ENV, **dict(env), **more}, json.dumps({**CONF, **dict(conf)}))


def refused(env=(), conf=(), **more):
    with pytest.raises(CniError) as caught:
        ask(env, conf, **more)
    return caught.value


def test_add():
    request = ask()
    assert (request.verb, request.version, request.network) == (Verb.ADD, "1.0.0", "k8s-pod-network")
    assert (request.container_id, request.interface, request.netns) == ("abc123", "eth0", "/var/run/netns/x")
    assert request.pod == PodReference("shop", "web", "u")


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_every_version_is_spoken(version):
    assert ask(conf={"cniVersion": version}).version == version


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "1.2.0", "2.0.0", "", 1, None])
def test_other_versions_are_incompatible(version):
    error = refused(conf={"cniVersion": version})
    assert error.code == Code.INCOMPATIBLE_VERSION == 1
    assert repr(version) in error.message
    assert "0.3.1, 0.4.0, 1.0.0, 1.1.0" in error.details


def test_no_version_means_the_oldest():
    with pytest.raises(CniError, match=r"absent \(0\.1\.0\)"):
        parse(ENV, '{"name": "x"}')


@pytest.mark.parametrize(("verb", "version"), [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "0.4.0")])
def test_a_verb_that_its_version_has_not(verb, version):
    error = refused(conf={"cniVersion": version}, CNI_COMMAND=verb)
    assert error.code == 1
    assert verb in error.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CNI_COMMAND", ""),
        ("CNI_COMMAND", "add"),
        ("CNI_CONTAINERID", ""),
        ("CNI_CONTAINERID", "-x"),
        ("CNI_CONTAINERID", "a/b"),
        ("CNI_CONTAINERID", "a@b"),
        ("CNI_CONTAINERID", "a" * HANDLE_MOST),
        ("CNI_IFNAME", ""),
        ("CNI_IFNAME", "."),
        ("CNI_IFNAME", ".."),
        ("CNI_IFNAME", "a/b"),
        ("CNI_IFNAME", "a:b"),
        ("CNI_IFNAME", "a b"),
        ("CNI_IFNAME", "sixteen-letters!"),
        ("CNI_IFNAME", "äääääääääääääää"),
        ("CNI_NETNS", ""),
        ("CNI_ARGS", "K8S_POD_NAME"),
    ],
)
def test_wrong_environment(name, value):
    error = refused(env={name: value})
    assert error.code == Code.INVALID_ENVIRONMENT == 4
    assert name in error.message
    assert repr(value) in error.message
    assert error.details


def test_check_needs_a_namespace_and_del_does_not():
    assert refused(CNI_COMMAND="CHECK", CNI_NETNS="").code == 4
    assert ask(CNI_COMMAND="DEL", CNI_NETNS="").netns == ""


@pytest.mark.parametrize("stdin", ["", "{", "[]", "null", '"x"', "\x00"])
def test_what_is_no_configuration(stdin):
    with pytest.raises(CniError) as caught:
        parse(ENV, stdin)
    assert caught.value.code == Code.UNDECODABLE == 6


@pytest.mark.parametrize("name", [None, "", "-x", "a/b", "a b", 5])
def test_wrong_network_name(name):
    error = refused(conf={"name": name})
    assert (error.code, "name is" in error.message) == (7, True)


@pytest.mark.parametrize(
    ("arguments", "pod"),
    [
        ("", None),
        ("IgnoreUnknown=1;K8S_POD_NAME=podman-calls-it-so", None),
        ("K8S_POD_NAMESPACE=a;K8S_POD_NAME=b", PodReference("a", "b")),
        (";;K8S_POD_NAME=b;FOO=x=y;K8S_POD_NAMESPACE=a;", PodReference("a", "b")),
    ],
)
def test_arguments_of_runtimes(arguments, pod):
    assert ask(CNI_ARGS=arguments).pod == pod


def test_podmans_address():
    assert ask(CNI_ARGS="IgnoreUnknown=1;IP=10.0.0.7").address == "10.0.0.7"


def test_version_needs_nothing():
    request = parse({"CNI_COMMAND": "VERSION", "CNI_NETNS": "dummy"}, '{"cniVersion": "1.0.0"}')
    assert (request.verb, request.version) == (Verb.VERSION, "1.0.0")
    assert parse({"CNI_COMMAND": "VERSION"}, '{"cniVersion": "9"}').version == "1.1.0"


def test_status_needs_no_container():
    assert parse({"CNI_COMMAND": "STATUS"}, '{"cniVersion": "1.1.0", "name": "x"}').verb is Verb.STATUS


def test_gc_takes_the_list():
    entries = [{"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "net1", "more": 1}]
    request = ask(conf={"cniVersion": "1.1.0", "cni.dev/valid-attachments": entries}, CNI_COMMAND="GC")
    assert request.valid == {AttachmentName("a", "eth0"), AttachmentName("b", "net1")}


@pytest.mark.parametrize("value", [None, {}, "x", [{"containerID": "a"}], [1]])
def test_gc_without_a_list_releases_nothing(value):
    error = refused(conf={"cniVersion": "1.1.0", "cni.dev/valid-attachments": value}, CNI_COMMAND="GC")
    assert (error.code, "cni.dev/valid-attachments" in error.message) == (7, True)


def test_what_the_runtime_adds():
    runtime = {
        "portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": ""}],
        "io.kubernetes.cri.pod-annotations": {"a": "b"},
        "bandwidth": {"IngressRate": 1},
    }
    request = ask(conf={"runtimeConfig": runtime})
    assert request.port_mappings == (PortMapping(host_port=8080, container_port=80),)
    assert request.annotations == {"a": "b"}
    assert ask(conf={"runtimeConfig": {"IO.kubernetes.cri.Pod-Annotations": {"a": "b"}}}).annotations == {"a": "b"}
    assert ask(conf={"runtimeConfig": {"io.kubernetes.cri.pod-annotations": None}}).annotations == {}


@pytest.mark.parametrize(
    "runtime",
    [
        {"portMappings": 5},
        {"portMappings": ["x"]},
        {"portMappings": [{"hostPort": 1}]},
        {"portMappings": [{"hostPort": 70000, "containerPort": 1}]},
        {"io.kubernetes.cri.pod-annotations": {"a": 1}},
    ],
)
def test_wrong_runtime_configuration(runtime):
    assert refused(conf={"runtimeConfig": runtime}).code == 7


def test_previous_result_is_for_check():
    result = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "cali1"}, {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/x"}],
        "ips": [{"address": "10.0.0.1/32", "interface": 1}],
        "dns": {},
    }
    expected = Previous(host_interface="cali1", mac="02:00:00:00:00:01", addresses=("10.0.0.1/32",))
    assert ask(conf={"prevResult": result}, CNI_COMMAND="CHECK").previous == expected
    assert ask(conf={"prevResult": "rubbish"}, CNI_COMMAND="DEL").previous is None
    assert refused(conf={"prevResult": result}).code == 7
    assert refused(conf={"prevResult": "rubbish"}, CNI_COMMAND="CHECK").code == 7
    assert refused(CNI_COMMAND="CHECK").code == 7


@pytest.mark.parametrize(
    ("stdin", "version"),
    [('{"cniVersion": "0.4.0"}', "0.4.0"), ('{"cniVersion": "7"}', "1.1.0"), ("{", "1.1.0"), ("{}", "1.1.0")],
)
def test_errors_are_told_in_the_version_asked_for(stdin, version):
    assert version_of(stdin) == version
