"""JSON and YAML for people and programs; numbers of things."""

from __future__ import annotations

import ipaddress
from pathlib import PurePath
from typing import Literal, TextIO

import msgspec

Output = Literal["table", "wide", "json", "yaml"]


def write_document(value: object, output: Literal["json", "yaml"], stream: TextIO) -> None:
    """One document: msgspec structs by their field names, everything in the order given."""
    stream.write(json_text(value) if output == "json" else yaml_text(value))
    stream.flush()


def json_text(value: object) -> str:
    """Indented by two, with a newline at its end."""
    return msgspec.json.format(_encode(value), indent=2).decode() + "\n"


def yaml_text(value: object, *, explicit_start: bool = False) -> str:
    """Block style, keys in the order given."""
    import yaml

    # By way of JSON: structs, Raw fields and addresses become plain values.
    plain = msgspec.json.decode(_encode(value))
    text: str = yaml.dump(
        plain, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=1 << 16,
        explicit_start=explicit_start,
    )  # fmt: skip
    return text


def flow_text(value: object) -> str:
    """YAML in one line: `{action: Allow, protocol: TCP}`."""
    import yaml

    plain = msgspec.json.decode(_encode(value))
    text: str = yaml.dump(
        plain, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=1 << 16, default_flow_style=True
    )
    return text.removesuffix("\n").removesuffix("\n...")


def counted(number: int, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _encode(value: object) -> bytes:
    return msgspec.json.encode(value, enc_hook=_as_text)


def _as_text(value: object) -> str:
    texts = (ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network, PurePath)
    if isinstance(value, texts):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no form in JSON")
