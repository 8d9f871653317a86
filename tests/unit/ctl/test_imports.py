"""What is imported when: commands start fast, and the agent carries no terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def imported(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after `code`."""
    printed = "\nimport sys; print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code + printed], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_the_agent_has_neither_rich_nor_click() -> None:
    assert imported("import calipy.agent.main") & {"rich", "click"} == set()


def test_get_has_neither_network_nor_terminal_nor_yaml(store_path: Path) -> None:
    code = (
        "from calipy.ctl.main import pycalicoctl\n"
        f"pycalicoctl(['--datastore', 'sqlite:{store_path}', 'get', 'ippools'], standalone_mode=False)"
    )
    assert imported(code) & {"aiohttp", "pyroute2", "exabgp", "rich", "yaml", "prometheus_client"} == set()


def test_explain_has_neither_network_nor_terminal(store_path: Path) -> None:
    code = (
        "from calipy.ctl.main import pycalicoctl\n"
        f"pycalicoctl(['--datastore', 'sqlite:{store_path}', 'explain', '192.0.2.1', '--to', '192.0.2.2',"
        " '--port', '1'], standalone_mode=False)\n"
        "assert not [name for name in sys.modules if name.startswith(('calipy.netlink', 'calipy.felix.drivers'))]"
    )
    assert imported("import sys\n" + code) & {"aiohttp", "pyroute2", "exabgp", "rich", "prometheus_client"} == set()
