"""ExaBGP in this process (`python -m calipy.bgp.speaker server FILE`), but for one thing: it asks no name server.

At its import ExaBGP looks up this host's domain name, for a capability that we don't send. Where no name server answers
that takes 5 to 10 s, at each start and each check of a configuration, and the cluster's own name service may well wait
for the routes that BGP brings.
"""

from __future__ import annotations

import socket


def _fqdn(name: str = "") -> str:
    return name or socket.gethostname()


def main() -> None:
    """Entry point; arguments as ExaBGP has them."""
    socket.getfqdn = _fqdn
    from exabgp.application.main import main as exabgp

    exabgp()


if __name__ == "__main__":
    main()
