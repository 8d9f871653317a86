"""Runs the measurements, prints the table, writes build/bench.json."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import msgspec

from bench.namespaces import sweep
from bench.rows import Row

SUBJECTS = ("dataplane", "calculation", "packets", "cni", "agent", "convergence", "policy")
_RESULT = Path(__file__).resolve().parent.parent / "build" / "bench.json"


def main() -> int:
    """Arguments: subjects; none = all."""
    wanted = sys.argv[1:] or list(SUBJECTS)
    unknown = sorted(set(wanted) - set(SUBJECTS))
    if unknown:
        print(f"bench: no subject {', '.join(unknown)}; there are {', '.join(SUBJECTS)}", file=sys.stderr)
        return 2
    sweep()
    found: list[Row] = []
    print(_LINE.format("what", "unit", "ours", "peer", "ratio", "aim", "against"), flush=True)
    for subject in wanted:
        print(f"bench: {subject}", file=sys.stderr, flush=True)
        for row in importlib.import_module(f"bench.{subject}").rows():
            found.append(row)
            print(_text(row), flush=True)
    _RESULT.parent.mkdir(exist_ok=True)
    _RESULT.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    print(f"written to {_RESULT.relative_to(Path.cwd()) if _RESULT.is_relative_to(Path.cwd()) else _RESULT}")
    return 0


_LINE = "{:55} {:>5} {:>9} {:>9} {:>6}  {:9} {}"


def _text(row: Row) -> str:
    peer = "" if row.peer is None else f"{row.peer:.2f}"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    return _LINE.format(row.name, row.unit, f"{row.ours:.2f}", peer, ratio, row.aim, row.peer_name).rstrip()


if __name__ == "__main__":
    sys.exit(main())
