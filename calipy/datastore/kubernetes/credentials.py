"""Where the API server is and who we are to it: from the service account of a pod, or from kubeconfigs."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from calipy.datastore.kubernetes import tls
from calipy.datastore.kubernetes.tokens import Authorization, TokenFile
from calipy.datastore.stores import Unavailable

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet mounts it into each pod."""


class Credentials(Struct, frozen=True, gc=False, kw_only=True):
    """One server and one identity. Its repr holds no secret."""

    source: str
    """Where this is from, for messages."""
    server: str
    """https://host[:port][/path], without a slash at the end."""
    authorization: Authorization
    tls: ssl.SSLContext | None = None
    """None for a server that speaks plain HTTP."""
    server_name: str = ""
    """The name in the server's certificate, where it isn't the one in `server`."""
    proxy: str = ""
    """http://host:port; empty: none."""
    namespace: str = "default"
    """Where namespaced objects are meant to be if nothing is said."""

    def __repr__(self) -> str:
        return f"Credentials({self.source!r}, {self.server!r})"


def find(kubeconfig: str, environment: Mapping[str, str]) -> Credentials:
    """By the kubeconfig named, else those in KUBECONFIG, else the pod's service account, else ~/.kube/config. Raises
    Unavailable."""
    from calipy.datastore.kubernetes.kubeconfigs import from_files

    if kubeconfig:
        return from_files([Path(kubeconfig)], must_exist=True)
    named = [Path(part) for part in environment.get("KUBECONFIG", "").split(os.pathsep) if part]
    if named:
        return from_files(named)
    if environment.get("KUBERNETES_SERVICE_HOST"):
        return in_cluster(environment)
    return from_files([Path(environment.get("HOME", "/")) / ".kube" / "config"])


def in_cluster(environment: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Credentials:
    """A pod's own, as the kubelet gives them. Raises Unavailable."""
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT") or "443"
    source = f"service account in {folder}"
    authorization = TokenFile(folder / "token")
    authorization.header()  # whoever has none is told now
    try:
        namespace = (folder / "namespace").read_text().strip()
    except OSError as error:
        raise Unavailable(f"{source}: {error.filename}: {error.strerror}; mount the service account") from None
    return Credentials(
        source=source,
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        authorization=authorization,
        tls=tls.context(
            source, authority=tls.Pem(str(folder / "ca.crt")), insecure=False, certificate=tls.Pem(), key=tls.Pem()
        ),
        namespace=namespace,
    )
