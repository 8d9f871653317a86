"""What the BGP sidecar runs: it waits until the agent has written ExaBGP's configuration, then becomes ExaBGP.

Whoever supervises it starts it again when it ends, and kills it when `liveness_command` fails. It ends with status 0
when it gets SIGTERM, also while it waits.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from inotify_simple import INotify, flags

from calipy.bgp import pipe
from calipy.bgp.exabgp_config import environment
from calipy.bgp.pipe import ALIVE, write_sign

CONFIGURATION = "exabgp.conf"
"""ExaBGP's configuration, in the run folder."""
_START_LIMIT_S = 30.0
"""So long after its start ExaBGP may take to answer for the first time; it takes half a second."""


def run(folder: Path) -> NoReturn:
    """Waits for `folder`'s configuration, without end, then runs ExaBGP in this process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    path, sign = folder / CONFIGURATION, folder / ALIVE
    folder.mkdir(parents=True, exist_ok=True)
    sign.unlink(missing_ok=True)
    wait_for(path)
    write_sign(str(sign), time.clock_gettime(time.CLOCK_BOOTTIME), _START_LIMIT_S)
    # The interpreter's own ExaBGP, whatever PATH says.
    command = [sys.executable, "-m", "calipy.bgp.speaker", "server", str(path)]
    # Without a file of settings, be it empty, ExaBGP advises at each start to make one in our package.
    settings = folder / "exabgp.env"
    settings.touch()
    os.execve(command[0], command, {**os.environ, **environment(), "EXABGP_ENVFILE": str(settings)})


def wait_for(path: Path) -> None:
    """Returns when there is something at `path`, which must appear there whole (by a rename)."""
    with INotify() as inotify:
        inotify.add_watch(path.parent, flags.CREATE | flags.MOVED_TO)
        while not path.exists():
            inotify.read()


def liveness_command(folder: Path) -> tuple[str, ...]:
    """Ends with status 0 while ExaBGP and its pipe give signs of life, and before ExaBGP was ever started. It costs a
    shell (1 ms), not an interpreter."""
    script = (
        f'sign={shlex.quote(str(folder / ALIVE))}; [ -e "$sign" ] || exit 0; '
        'read -r at limit < "$sign" && read -r now rest < /proc/uptime && '
        '[ $((${now%.*} - ${at%.*})) -le "$limit" ]'
    )
    return ("/bin/sh", "-c", script)


def pipe_command(folder: Path, hold_s: int) -> tuple[str, ...]:
    """How ExaBGP runs its API process: without site packages, which it doesn't need."""
    return (sys.executable, "-I", "-S", pipe.__file__, str(folder), str(hold_s))
