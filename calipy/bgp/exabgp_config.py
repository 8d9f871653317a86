"""Topology -> the file and the environment that ExaBGP 5.0.15 runs with.

The file holds peers only, no routes: those go through the API, for a reload must not move them. Each neighbor listens
on its own session's address (`listen`), so no environment is needed for that. Passwords go in as base64: ExaBGP's
tokeniser knows no way to escape a quote in a quoted word.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence

from calipy.bgp.peers import Peer, Topology, guarded_addresses
from calipy.resources.secrets import SecretKeySelector

PROCESS = "calipy"
"""Name of the API process in the file."""
_MOST_PASSWORD = 80
"""Bytes: TCP_MD5SIG_MAXKEYLEN (linux/tcp.h), and ExaBGP's own limit."""
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./:=@%+-]+")
_GREATEST_TTL = 255
_HEARD = "receive { parsed; update; open; refresh; notification; }"


class ConfigError(ValueError):
    """What can't be written into ExaBGP's file."""


def render(topology: Topology, passwords: Mapping[str, str], run: Sequence[str], mark: str = "") -> str:
    """The file, the same for the same input. `passwords` by peer name; `run` = argv of the API process, argv[0] an
    absolute path of a regular, executable file. `mark` ends each neighbor's description: no session is moved by it, and
    ExaBGP's answer to `show neighbor configuration` tells by it which file it runs with. Peers of `refused` are left
    out: no session runs without the password that it should have. Raises ConfigError where `run` can't be written
    down."""
    left_out = refused(topology, passwords)
    peers = [peer for peer in topology.peers if peer.name not in left_out]
    guarded = guarded_addresses(peers)
    sections = [_process(run)]
    sections += [_neighbor(topology, peer, passwords.get(peer.name), guarded, mark) for peer in peers]
    return "\n".join(sections)


def refused(
    topology: Topology, passwords: Mapping[str, str], unknown: Mapping[SecretKeySelector, str] | None = None
) -> dict[str, str]:
    """Peer name -> why `render` leaves it out: its password is unknown or can't be a TCP MD5 key (RFC 2385). `unknown`:
    why a password isn't known, with the remedy."""
    reasons = {}
    for peer in topology.peers:
        reference = peer.password
        if reference is None:
            continue
        password = passwords.get(peer.name)
        where = f"password from Secret {reference.name}, key {reference.key}"
        if password is None:
            if not reference.optional:
                why = (unknown or {}).get(reference, "create the Secret")
                reasons[peer.name] = f"{where}: is not known, so the session stays down; {why}"
        elif not 1 <= len(password.encode()) <= _MOST_PASSWORD:
            size = f"has {len(password.encode())} bytes"
            reasons[peer.name] = f"{where}: {size}, so the session stays down; write 1 to {_MOST_PASSWORD} bytes"
    return reasons


def environment() -> Mapping[str, str]:
    """What ExaBGP's process needs in its environment besides PATH."""
    return {
        "exabgp_api_ack": "true",
        "exabgp_api_chunk": "1000000",
        "exabgp_api_cli": "false",
        "exabgp_api_respawn": "true",
        "exabgp.api.show-routes-format": "v2",
        "exabgp_api_terminate": "false",
        "exabgp_daemon_daemonize": "false",
        "exabgp_daemon_user": "root",
        "exabgp_log_configuration": "true",
        "exabgp_log_destination": "stdout",
        "exabgp_log_level": "INFO",
        "exabgp_log_processes": "false",  # a line for each route and peer; of failures its answers tell
        "exabgp_log_short": "false",
        "exabgp_log_statistics": "false",
        "exabgp_reactor_speed": "10",
    }


def _process(run: Sequence[str]) -> str:
    if not run or not run[0].startswith("/"):
        raise ConfigError(f"run: {list(run)!r}: begins with no absolute path; name the program with its directory")
    for word in run:
        if not _PLAIN_WORD.fullmatch(word):
            reason = "has characters that ExaBGP's file can't hold in a command"
            raise ConfigError(f"run: {word!r}: {reason}; use letters, digits and _./:=@%+- only")
    return f"process {PROCESS} {{\n  run {' '.join(run)};\n  encoder json;\n}}\n"


def _neighbor(topology: Topology, peer: Peer, password: str | None, guarded: frozenset[str], mark: str) -> str:
    settings = [
        ("description", f'"{f"{peer.name} {mark}".rstrip()}"'),
        ("router-id", topology.router_id),
        ("local-address", peer.local_address),
        ("local-as", str(peer.local_as)),
        ("peer-as", str(peer.as_number)),
        ("hold-time", str(peer.hold_time_s)),
        ("passive", "true" if peer.passive else "false"),
        ("connect", str(peer.port)),
        *_reach(topology, peer, password, guarded),
        *_password(peer, password),
        ("group-updates", "true"),
        ("auto-flush", "true"),
        ("adj-rib-in", "true"),
        ("adj-rib-out", "true"),
        ("manual-eor", "true"),
    ]
    restart = str(peer.restart_time_s) if peer.restart_time_s else "disable"
    lines = [
        *(f"{name} {value};" for name, value in settings),
        f"family {{ ipv{peer.family} unicast; }}",
        f"capability {{ asn4 enable; route-refresh enable; graceful-restart {restart}; }}",
        f"api {{ processes [ {PROCESS} ]; neighbor-changes; {_HEARD} }}",
    ]
    return "\n".join((f"neighbor {peer.address} {{", *(f"  {line}" for line in lines), "}\n"))


def _reach(topology: Topology, peer: Peer, password: str | None, guarded: frozenset[str]) -> list[tuple[str, str]]:
    """Where to listen for the peer, and how far it may be. A peer with ttlSecurity beside others without can't have the
    listening socket ask for its TTL: it leaves the listening to them and is checked on the connections that we open. If
    it has a password it must listen all the same, for that is what puts its key on the socket; the key is its guard."""
    listen, most = ("listen", str(topology.port)), ("outgoing-ttl", str(_GREATEST_TTL))
    if not peer.ttl_security:
        return [listen] if peer.multihop else [listen, ("outgoing-ttl", "1")]
    least = ("incoming-ttl", str(_GREATEST_TTL + 1 - peer.ttl_security))
    if peer.local_address in guarded:
        return [listen, least, most]
    return [listen, most] if password is not None else [least, most]


def _password(peer: Peer, password: str | None) -> list[tuple[str, str]]:
    if peer.password is None or password is None:
        return []
    return [("md5-password", f'"{base64.b64encode(password.encode()).decode()}"'), ("md5-base64", "true")]
