"""Who we are to an API server: kubeconfigs read and merged, service accounts, and what is said of wrong ones."""

from __future__ import annotations

import base64
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from calipy.datastore.kubernetes.credentials import Credentials, find, in_cluster
from calipy.datastore.kubernetes.kubeconfigs import User, from_files
from calipy.datastore.kubernetes.tls import Pem
from calipy.datastore.kubernetes.tokens import TokenFile
from calipy.datastore.stores import Unavailable

SECRET = "s3cr3t-t0ken"


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cert.pem and key.pem."""
    folder = tmp_path_factory.mktemp("pki")
    out = ("-keyout", "key.pem", "-out", "cert.pem")
    subject = ("-subj", "/CN=somebody", "-nodes", "-days", "2", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    subprocess.run(("openssl", "req", "-x509", *subject, *out), cwd=folder, check=True, capture_output=True)
    return folder


def config(path: Path, user: dict[str, Any] | None = None, cluster: dict[str, Any] | None = None, **more: Any) -> Path:
    """A kubeconfig with one of each, called `a`."""
    context = {"cluster": "a", "user": "a"}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": "https://192.0.2.1:6443/", **(cluster or {})}}],
        "users": [{"name": "a", "user": {"token": SECRET} if user is None else user}],
        "contexts": [{"name": "a", "context": context}],
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document))
    return path


def coded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def test_a_token_and_an_authority(tmp_path: Path, pki: Path) -> None:
    path = config(tmp_path / "config", cluster={"certificate-authority-data": coded(pki / "cert.pem")})
    found = from_files([path])
    assert (found.server, found.authorization.header()) == ("https://192.0.2.1:6443", f"Bearer {SECRET}")
    assert found.namespace == "default"
    assert found.tls is not None
    assert [each["subject"] for each in found.tls.get_ca_certs()] == [((("commonName", "somebody"),),)], "no other one"
    assert found.tls.verify_mode == ssl.CERT_REQUIRED


def test_files_are_beside_the_file_that_names_them(tmp_path: Path, pki: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    for name in ("cert.pem", "key.pem"):
        (folder / name).write_bytes((pki / name).read_bytes())
    (folder / "token").write_text("from-file\n")
    user = {"client-certificate": "cert.pem", "client-key": "key.pem", "tokenFile": "token", "token": SECRET}
    found = from_files([config(folder / "config", user, {"certificate-authority": "cert.pem"})])
    assert found.authorization.header() == "Bearer from-file"
    assert found.tls is not None
    assert len(found.tls.get_ca_certs()) == 1


def test_certificate_and_key_as_text_reach_no_disk(tmp_path: Path, pki: Path) -> None:
    data = {"client-certificate-data": coded(pki / "cert.pem"), "client-key-data": coded(pki / "key.pem")}
    path = config(tmp_path / "config", data, {"insecure-skip-tls-verify": True, "tls-server-name": "api"})
    found = from_files([path])
    assert found.authorization.header() == ""
    assert found.tls is not None
    assert (found.tls.verify_mode, found.server_name) == (ssl.CERT_NONE, "api")
    assert list(tmp_path.iterdir()) == [path]


def test_a_password_is_sent_as_http_has_it(tmp_path: Path) -> None:
    found = from_files([config(tmp_path / "config", {"username": "u", "password": "p"})])
    assert found.authorization.header() == "Basic dTpw"


def test_of_several_files_the_first_holds(tmp_path: Path) -> None:
    first = config(tmp_path / "one", {"token": "first"}, {"proxy-url": "http://192.0.2.9:3128"}, contexts=[])
    second = config(tmp_path / "two", {"token": "second"})
    environment = {"KUBECONFIG": f"{first}:{tmp_path}/missing:{second}", "KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    found = find("", environment)
    assert (found.authorization.header(), found.proxy) == ("Bearer first", "http://192.0.2.9:3128")
    assert find(str(second), environment).authorization.header() == "Bearer second"
    home = config(tmp_path / ".kube" / "config", {"token": "home"})
    assert find("", {"HOME": str(tmp_path)}).source == f"kubeconfig {home}, context a"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"current-context": ""}, "has no current-context; choose one with `kubectl config use-context`"),
    ({"current-context": "b"}, "context 'b' is not in it; it has a: mend the context b"),
    ({"clusters": []}, "cluster 'a' is not in it; it has none"),
    ({"users": None}, "user 'a' is not in it"),
    ({"users": [{"name": "a", "user": {"token": 7}}]}, "Expected `str`, got `int` - at `$.users[0].user.token`"),
    ({"clusters": [{"name": "a", "cluster": {"server": "192.0.2.1"}}]}, "server '192.0.2.1' is no URL; write https"),
    (
        {"clusters": [{"name": "a", "cluster": {"server": "https://x", "proxy-url": "socks5://h"}}]},
        "a proxy that speaks socks5 can't be used",
    ),
    ({"users": [{"name": "a", "user": {"as": "bob"}}]}, "`as` is not supported; use credentials of 'bob' itself"),
    ({"users": [{"name": "a", "user": {"client-key-data": "?"}}]}, "client-key-data is no base64"),
    (
        {"users": [{"name": "a", "user": {"client-certificate-data": "YQ=="}}]},
        "certificates and key are not valid PEM",
    ),
    ({"users": [{"name": "a", "user": {"client-certificate": "none.pem"}}]}, "No such file or directory"),
]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=[said[:20] for _, said in WRONG])
def test_what_is_wrong_is_told(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(Unavailable) as raised:
        from_files([config(tmp_path / "config", **change)])
    assert f"kubeconfig {tmp_path}/config" in str(raised.value)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "text", [f"users: [{{token: {SECRET}", f"users:\n- {SECRET}: [", f"a: *{SECRET}", "\0", "[" * 5000]
)
def test_what_is_no_yaml_is_told_without_its_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(Unavailable, match=rf"kubeconfig {path}: is no YAML") as raised:
        from_files([path])
    assert SECRET not in str(raised.value)


def test_nothing_shows_a_secret(tmp_path: Path) -> None:
    found = from_files([config(tmp_path / "config", {"token": SECRET, "password": SECRET, "username": "u"})])
    shown = [
        repr(found),
        str(found),
        repr(User(token=SECRET)),
        repr(Pem(text=SECRET.encode())),
        repr(found.authorization),
    ]
    assert not [each for each in shown if SECRET in each]


def test_without_a_file_it_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"\.kube/config: is not there; name one with KUBECONFIG or --kubeconfig"):
        find("", {"HOME": str(tmp_path)})
    with pytest.raises(Unavailable, match="no/such: can't be read: No such file or directory"):
        find("no/such", {})


def test_yaml_and_the_official_client_are_not_imported_in_a_pod() -> None:
    code = (
        "import sys, calipy.datastore.kubernetes.store, calipy.datastore.kubernetes.credentials\n"
        "print({'yaml', 'kubernetes'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- credentials that programs hand out ---

PROGRAM = """#!/bin/sh
echo '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
       "status": {"token": "'"$(cat %s)"'", "expirationTimestamp": "2020-01-01T00:00:00Z"}}'
"""


def with_program(folder: Path) -> Path:
    """A kubeconfig whose token a program tells: what the file `told` holds. It has always ended already."""
    program = folder / "program"
    (folder / "told").write_text(SECRET)
    program.write_text(PROGRAM % (folder / "told"))
    program.chmod(0o700)
    version = "client.authentication.k8s.io/v1"
    return config(
        folder / "config", {"exec": {"apiVersion": version, "command": str(program), "interactiveMode": "Never"}}
    )


def test_a_program_is_asked_for_a_token(tmp_path: Path) -> None:
    found = from_files([with_program(tmp_path)])
    assert found.authorization.header() == f"Bearer {SECRET}"
    assert not found.authorization.renew()
    (tmp_path / "told").write_text("another")
    assert found.authorization.renew()
    assert found.authorization.header() == "Bearer another"


def test_a_program_that_fails_is_told(tmp_path: Path) -> None:
    path = with_program(tmp_path)
    (tmp_path / "program").unlink()
    with pytest.raises(Unavailable, match="its user's program gave no credentials; run it by hand"):
        from_files([path])


def test_without_the_official_client_it_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(Unavailable, match=r"install it: pip install 'calipy\[kubernetes\]'"):
        from_files([with_program(tmp_path)])


# --- in a pod ---


@pytest.fixture
def account(tmp_path: Path, pki: Path) -> Path:
    """As the kubelet mounts it."""
    (tmp_path / "token").write_text(f"{SECRET}\n")
    (tmp_path / "namespace").write_text("kube-system")
    (tmp_path / "ca.crt").write_bytes((pki / "cert.pem").read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("host", "port", "server"),
    [("10.96.0.1", "443", "https://10.96.0.1:443"), ("fd00::1", "6443", "https://[fd00::1]:6443")],
)
def test_a_service_account(account: Path, host: str, port: str, server: str) -> None:
    found = in_cluster({"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}, account)
    assert (found.server, found.namespace, found.authorization.header()) == (server, "kube-system", f"Bearer {SECRET}")


@pytest.mark.parametrize("name", ["token", "namespace", "ca.crt"])
def test_a_service_account_that_is_not_whole(account: Path, name: str) -> None:
    (account / name).unlink()
    with pytest.raises(Unavailable, match=rf"{account}/{name}: .*No such file"):
        in_cluster({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, account)


def test_a_token_is_read_again_each_minute_and_when_it_is_refused(tmp_path: Path) -> None:
    path, now = tmp_path / "token", [1000.0]
    path.write_text("one")
    tokens = TokenFile(path, clock=lambda: now[0])
    assert tokens.header() == "Bearer one"
    path.write_text("two")
    now[0] += 59.0
    assert tokens.header() == "Bearer one"
    now[0] += 1.0
    assert tokens.header() == "Bearer two"
    path.write_text("three")
    assert tokens.renew()
    assert not tokens.renew()
    assert tokens.header() == "Bearer three"
    for content, said in ((b"", "is empty"), (b"\xff", "it is no text")):
        path.write_bytes(content)
        with pytest.raises(Unavailable, match=said):
            tokens.renew()
    path.unlink()
    with pytest.raises(Unavailable, match="No such file or directory; mount the service account's token there"):
        tokens.renew()


def test_a_server_without_tls_gets_no_context(tmp_path: Path) -> None:
    found = from_files([config(tmp_path / "config", cluster={"server": "http://192.0.2.1:8080"})])
    assert isinstance(found, Credentials)
    assert found.tls is None
