"""The `calipy` command. A probe is run again and again: it comes before the import of all that the others need."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs it and exits."""
    if sys.argv[1:2] == ["health"]:
        from calipy.node import probe

        sys.exit(probe.main(sys.argv[2:]))
    from calipy.__main__ import main as program

    program()
