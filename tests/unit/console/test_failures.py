"""How failures are told."""

from __future__ import annotations

import io
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from calipy.console.commands import Program
from calipy.console.failures import Failure, Failures, tell
from calipy.datastore.stores import NotFound
from calipy.resources.metadata import Problem, Refused

REFUSED = Refused(
    "IPPool/a",
    [
        Problem("spec.cidr", "10.0.0.1/8", "has bits set", "write 10.0.0.0/8"),
        Problem("spec", None, "is odd", "mend it"),
    ],
)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            Failure("pod a", "is on no node", "start it first", value="n9"),
            ["error: pod a 'n9': is on no node; start it first"],
        ),
        (Failure("pod a", "is gone", "make it"), ["error: pod a: is gone; make it"]),
        (NotFound("IPPool/a does not exist"), ["error: IPPool/a does not exist"]),
        (
            REFUSED,
            [
                "error: IPPool/a is refused:",
                "  spec.cidr '10.0.0.1/8': has bits set; write 10.0.0.0/8",
                "  spec: is odd; mend it",
            ],
        ),
        (Failures([NotFound("a is gone"), NotFound("b is gone")]), ["error: a is gone", "error: b is gone"]),
        (ExceptionGroup("two", [NotFound("a gone"), NotFound("b gone")]), ["error: a gone", "error: b gone"]),
        (FileNotFoundError(2, "No such file or directory", "/x"), ["error: /x: No such file or directory"]),
        (TypeError("bad"), ["error: TypeError: bad (--debug shows where)"]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_failure_names_object_value_reason_and_remedy(error: Exception, told: list[str]) -> None:
    stream = io.StringIO()
    tell(error, stream)
    assert stream.getvalue().splitlines() == told


@click.group(cls=Program, lazy={"far": "tests_no_such_module:command"})
def program() -> None:
    """A program."""


@program.command()
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def fail(words: tuple[str, ...]) -> None:
    """Fails."""
    raise Failure("it", f"failed on {words}", "try another")


def test_a_program_exits_with_1_and_without_a_traceback() -> None:
    result = CliRunner().invoke(program, ["fail", "--", "--debug"])
    assert result.exit_code == 1
    assert result.stderr == "error: it: failed on ('--debug',); try another\n"


def test_debug_shows_where_it_arose() -> None:
    result = CliRunner().invoke(program, ["--debug", "fail"])
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1] == "error: it: failed on (); try another"


def test_debug_does_not_stick_to_the_next_call() -> None:
    CliRunner().invoke(program, ["--debug", "fail"])
    assert "Traceback" not in CliRunner().invoke(program, ["fail"]).stderr


def test_wrong_usage_exits_with_2() -> None:
    assert CliRunner().invoke(program, ["nonsense"]).exit_code == 2


def test_lazy_commands_are_listed_and_not_imported() -> None:
    context = click.Context(program)
    assert program.list_commands(context) == ["fail", "far", "interrupted"]
    with pytest.raises(ModuleNotFoundError):
        program.get_command(context, "far")


@program.command()
def interrupted() -> None:
    """Is interrupted."""
    raise KeyboardInterrupt


def test_an_interrupted_program_says_so_by_its_status_as_shells_do() -> None:
    result = CliRunner().invoke(program, ["interrupted"])
    assert (result.exit_code, result.stderr.strip()) == (130, "")


def test_a_reader_that_has_seen_enough_is_no_failure_to_talk_about() -> None:
    code = (
        "import click\nfrom calipy.console.commands import Program\n"
        "@click.group(cls=Program)\ndef program(): pass\n"
        "@program.command()\ndef show():\n    for _ in range(100000): print('x')\n"
        "program(['show'])"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as shown:
        assert shown.stdout is not None
        assert shown.stderr is not None
        shown.stdout.readline()
        shown.stdout.close()
        assert shown.stderr.read() == b""
        assert shown.wait() == 1
