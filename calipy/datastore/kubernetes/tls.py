"""TLS towards an API server: whom we trust, and the certificate that says who we are. Keys given as text never reach a
disk."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec import Struct

from calipy.datastore.stores import Unavailable


class Pem(Struct, frozen=True, gc=False):
    """Certificates or a key: in a file, or as text. Empty: none."""

    path: str = ""
    text: bytes = b""

    def __bool__(self) -> bool:
        return bool(self.path or self.text)

    def __repr__(self) -> str:
        return f"Pem({self.path or ('given as text' if self.text else '')!r})"


def context(source: str, *, authority: Pem, insecure: bool, certificate: Pem, key: Pem) -> ssl.SSLContext:
    """`source` is named in errors. Without an `authority` the system's are trusted; `insecure` trusts everybody. Raises
    Unavailable for what can't be read or doesn't fit together."""
    try:
        # Without cadata the system's authorities are trusted, too.
        trusted = (authority.text or Path(authority.path).read_bytes()).decode("ascii") if authority else None
        made = ssl.create_default_context(cadata=trusted)
        if insecure:
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE
        if certificate:
            with ExitStack() as files:
                paths = [files.enter_context(_file(pem)) for pem in (certificate, key or certificate)]
                made.load_cert_chain(*paths)
    except ssl.SSLError:  # an OSError, but one that says nothing to a user
        reason = "are not valid PEM, or key and certificate don't belong together"
        raise Unavailable(f"{source}: certificates and key {reason}; check them") from None
    except OSError as error:
        what = error.filename or "client certificate or key"
        raise Unavailable(f"{source}: {what}: {error.strerror}; check its certificates") from None
    except UnicodeDecodeError:
        raise Unavailable(f"{source}: the certificate authority is no PEM; check it") from None
    return made


@contextmanager
def _file(pem: Pem) -> Iterator[str]:
    """A path of it, for OpenSSL reads nothing else."""
    if pem.path:
        yield pem.path
        return
    descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(pem.text)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
