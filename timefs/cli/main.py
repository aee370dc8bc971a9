"""The `timefs` program: its commands, and errors as exit codes.

Defined here and only here: `main`, the only place where an error becomes an exit code and a line on
standard error. Main thread only.
"""

import inspect
import json
import logging
import os
import re
import signal
import sys
from importlib import import_module
from types import FrameType
from typing import Any, Final

import click

from store.errors import InterruptError, TimefsError, UsageError
from store.objects.backend import translate
from timefs import __version__
from timefs.cli.session import error_line, shared_options, shown_text

CONTEXT: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"]}

HELP: Final = """A backup server whose history is a file system.

timefs captures virtual disks, keeps every version deduplicated, compressed and verified, and mounts
as a drive in which any second of any disk, and the files inside it, are ordinary files.

\b
A first tour:
  export TIMEFS_REPO=/backup/repo
  timefs init                              make a repository
  timefs capture vm1 /vms/disk.vhdx        store what changed; one instant
  timefs log vm1                           what instants there are
  timefs mount /mnt/history                the history as a drive
  ls /mnt/history/vm1/latest/disk          files inside the newest disk
  cp /mnt/history/vm1/2026-05-01T10:00/disk/Users/bob/report.docx .
  timefs unmount /mnt/history              the drive goes away
  timefs restore vm1/latest/disk.vhdx .    without mounting

\b
PATH is a path in the mount: MACHINE/TIME/FILE, and MACHINE/TIME/STEM/… inside the disk.
TIME is UTC: 2026-05-01, 2026-05-01T10:00[:37[.5]], 2026-05-01T10-00-37, latest,
yesterday, -5m; it means the last state at or before it.

\b
Exit codes: 0 done, 1 failed, 2 usage, 3 done but incomplete, 4 busy, 5 damaged,
10 no repository, 12 wrong key, 130 interrupted.
"""

COMMANDS: Final = {
    "init": "make a repository",
    "capture": "store what changed in files or block devices as one instant",
    "log": "list machines and instants, with sizes",
    "ls": "list a path of the history",
    "cat": "write a file of the history to standard output",
    "find": "find files by name inside an instant",
    "du": "what the folders inside an instant take",
    "restore": "copy a file, a folder or a whole disk out",
    "mount": "show the history as a drive",
    "unmount": "take the drive away",
    "share": "the history as a network drive for Windows, macOS and Linux",
    "status": "whether the share works, and how old the newest instants are",
    "check": "prove that everything stored is there and right",
    "rebuild": "make index and catalog again from the packs",
}


class Commands(click.Group):
    """Commands whose modules are loaded when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            command: click.Command = getattr(import_module(f"timefs.cli.{cmd_name}"), cmd_name)
            command.context_settings = CONTEXT
            command.params += shared_options()
            as_written = "\n\n\b\n\\1"  # click keeps the lines of a paragraph that begins with \b
            command.help = re.sub(
                r"\n\n(Examples?:\n)", as_written, inspect.cleandoc(command.help or "")
            )
            self.commands[cmd_name] = command
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, help=HELP, context_settings=CONTEXT, params=[*shared_options()])
@click.version_option(__version__)
def cli() -> None:
    """The program itself; what it does is its commands' business."""


class TextFormatter(logging.Formatter):
    """Warnings for people, on a terminal or in a log."""

    def format(self, record: logging.LogRecord) -> str:
        return shown_text(super().format(record))


class JsonFormatter(logging.Formatter):
    """Warnings for programs."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps({"warning": {"message": record.getMessage()}})


def main() -> None:
    """Run the command line and exit."""
    _fill_closed_streams()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as `start` left it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)
    arguments = sys.argv[1:] or ["--help"]
    as_json = "--json" in arguments
    log = logging.StreamHandler()
    log.setFormatter(JsonFormatter() if as_json else TextFormatter("timefs: %(message)s"))
    logging.basicConfig(handlers=[log], level=logging.WARNING)
    code = _run(arguments, as_json=as_json)
    _drop_unwritten()
    sys.exit(code)


def _run(arguments: list[str], *, as_json: bool) -> int:
    """Run one command; answers the exit code."""
    try:
        with cli.make_context("timefs", arguments) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as done:  # --help and --version have said all
        return done.exit_code
    except TimefsError as caught:
        error = caught
    except click.UsageError as caught:
        hint = f"; see `{caught.ctx.command_path} --help`" if caught.ctx else ""
        error = UsageError(caught.format_message().rstrip(".?") + hint)
    except click.ClickException as caught:
        error = TimefsError(caught.format_message())
    except KeyboardInterrupt:
        error = InterruptError("interrupted; earlier instants are untouched")
    except BrokenPipeError:  # the reader has what it wanted
        return 1
    except OSError as caught:
        error = translate(caught, str(caught.filename or "standard output"))
    else:
        return 0
    click.echo(error_line(error, as_json=as_json), err=True)
    return error.exit_code


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that nothing half done stays behind."""
    raise KeyboardInterrupt


def _fill_closed_streams() -> None:
    """Where a standard stream is closed, no file of ours may take its number.

    Standard output is then a file that cannot be written: who prints is told so.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number < 2 else os.O_WRONLY)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _drop_unwritten() -> None:
    """Python writes what is left on exit; what could not be written has been said already."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()
