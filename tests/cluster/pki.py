"""Certificates of a test cluster, made by openssl(1): one authority for servers, nodes and users, one for the
aggregation layer, and the key that signs service account tokens. Keys and kubeconfigs are their owner's to read."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from calipy.console.failures import Told

CA, FRONT_PROXY_CA, SERVICE_ACCOUNTS = "ca", "front-proxy-ca", "sa"
_DAYS: Final = "365"


class PkiError(Told):
    """openssl refused something: what, and what it said."""


class Pki:
    """A folder of `<name>.key` (mode 0600) and `<name>.crt` (PEM); what is there already is not made again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def ca(self) -> Path:
        """The certificate that clients check the API server's against."""
        return self.authority(CA)

    def key(self, name: str) -> Path:
        """A P-256 key."""
        path = self.folder / f"{name}.key"
        if not path.exists():
            _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(path))
            path.chmod(0o600)
        return path

    def public_key(self, name: str) -> Path:
        """The public half of a key."""
        path = self.folder / f"{name}.pub"
        if not path.exists():
            _openssl("pkey", "-in", str(self.key(name)), "-pubout", "-out", str(path))
        return path

    def authority(self, name: str) -> Path:
        """A certificate that signs others."""
        path = self.folder / f"{name}.crt"
        if not path.exists():
            _openssl(
                *("req", "-x509", "-new", "-key", str(self.key(name)), "-subj", f"/CN={name}", "-days", _DAYS),
                *("-addext", "basicConstraints=critical,CA:TRUE"),
                *("-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature", "-out", str(path)),
            )
        return path

    def certificate(
        self,
        name: str,
        user: str,
        groups: Sequence[str] = (),
        *,
        addresses: Sequence[str] = (),
        authority: str = CA,
    ) -> Path:
        """A certificate for clients and servers. `user` and `groups` are whom Kubernetes sees (CN, O); `addresses`:
        `DNS:name` or `IP:address`, of a server."""
        path = self.folder / f"{name}.crt"
        if path.exists():
            return path
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extensions.write_text(
            "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=clientAuth,serverAuth\n"
            + (f"subjectAltName={','.join(addresses)}\n" if addresses else "")
        )
        subject = "".join(f"/O={group}" for group in groups) + f"/CN={user}"
        _openssl("req", "-new", "-key", str(self.key(name)), "-subj", subject, "-out", str(request))
        _openssl(
            *("x509", "-req", "-in", str(request), "-days", _DAYS, "-set_serial", f"0x{os.urandom(8).hex()}"),
            *("-CA", str(self.authority(authority)), "-CAkey", str(self.key(authority))),
            *("-extfile", str(extensions), "-out", str(path)),
        )
        request.unlink()
        extensions.unlink()
        return path

    def kubeconfig(self, name: str, server: str, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig, complete in itself, for a client certificate. `server`: the API server's URL."""
        path = self.folder / f"{name}.kubeconfig"
        certificate = self.certificate(name, user, groups)
        cluster = {"server": server, "certificate-authority-data": _base64(self.ca)}
        secrets = {"client-certificate-data": _base64(certificate), "client-key-data": _base64(self.key(name))}
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(
                msgspec.yaml.encode(
                    {
                        "apiVersion": "v1",
                        "kind": "Config",
                        "current-context": "calipy",
                        "clusters": [{"name": "calipy", "cluster": cluster}],
                        "users": [{"name": user, "user": secrets}],
                        "contexts": [{"name": "calipy", "context": {"cluster": "calipy", "user": user}}],
                    }
                )
            )
        return path


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _openssl(*arguments: str) -> None:
    try:
        done = subprocess.run(("openssl", *arguments), capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise PkiError("openssl: no such program; run scripts/setup cluster") from error
    if done.returncode:
        raise PkiError(f"openssl {arguments[0]}: status {done.returncode}: {done.stderr.strip()}")
