"""`python -m image`: the image of CalIPy as an archive, made without a container engine (make image)."""

from __future__ import annotations

import asyncio
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

import click

from calipy.console.failures import tell
from calipy.console.progress import Steps
from image import oci, rootfs

NAME: Final = f"localhost/calipy:{version('calipy')}"
ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
}


async def make(out: Path, name: str, steps: Steps) -> None:
    """Writes the archive. Raises ImageError."""
    folder = out.parent / "image"
    root = folder / "root"
    if root.exists():
        shutil.rmtree(root)
    root.mkdir(parents=True)
    await rootfs.make(root, folder, steps)
    image = oci.Image(names=(name,), entrypoint=("/usr/local/bin/calipy",), environment=ENVIRONMENT)
    async with steps.step(f"{out}: {name}") as step:
        unpacked = await asyncio.to_thread(lambda: oci.write(out, root, image, compressed=True))
        step.say(f"{unpacked / 1e6:.0f} MB unpacked")
    shutil.rmtree(root)


@click.command()
@click.option("--name", default=NAME, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default="build/calipy-image.tar", show_default=True)
@click.option("--tree", type=click.Path(path_type=Path), help="Only the image's files, into this empty folder.")
def main(name: str, out: Path, tree: Path | None) -> None:
    """Makes the image's archive, for `ctr images import`, `podman load`, `docker load` or `kind load image-archive`."""
    out, steps = out.absolute(), Steps(sys.stderr)
    out.parent.mkdir(parents=True, exist_ok=True)
    asyncio.run(make(out, name, steps) if tree is None else rootfs.make(tree.absolute(), out.parent / "image", steps))


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        tell(error, sys.stderr)
        sys.exit(1)
