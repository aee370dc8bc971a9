"""The `timefs` program: its options, its commands, and errors as exit codes.

Defined here and only here: `main`, the only place where an error becomes an exit code and a line on
standard error. Main thread only.
"""

import json
import logging
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

import click

from store.errors import TimefsError, UsageError
from timefs import __version__
from timefs.cli.session import Session
from timefs.config import read_config

INTERRUPTED: Final = 130

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
  timefs restore vm1/latest/disk.vhdx .    without mounting

\b
PATH is a path in the mount: MACHINE/TIME/FILE, MACHINE/TIME/STEM/… inside the disk.
TIME is any of 2026-05-01, 2026-05-01T10:00[:37[.5]], 2026-05-01T10-00-37, latest, yesterday, -5m.

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
        if cmd_name not in COMMANDS:
            return None
        return getattr(import_module(f"timefs.cli.{cmd_name}"), cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-r", "--repo", envvar="TIMEFS_REPO", metavar="REPO", help="The repository.")
@click.option("--cache", metavar="DIR", help="Where derived indexes live.")
@click.option("--config", metavar="FILE", help="Configuration; /etc/timefs.toml by default.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.version_option(__version__)
@click.pass_context
def cli(
    context: click.Context, repo: str | None, cache: str | None, config: str | None, as_json: bool
) -> None:
    """Options before every command."""
    settings = read_config(Path(config) if config else None)
    named_repo, named_cache = repo or settings.repo, cache or settings.cache
    context.obj = Session(
        Path(named_repo) if named_repo else None,
        Path(named_cache) if named_cache else None,
        as_json,
        settings,
    )


def report(error: TimefsError, *, as_json: bool) -> int:
    """Say an error on standard error; answer the exit code."""
    if as_json:
        said = {"code": error.exit_code, "kind": error.kind, "message": str(error)}
        click.echo(json.dumps({"error": said}), err=True)
    else:
        click.echo(f"timefs: {error}", err=True)
    return error.exit_code


def main() -> None:
    """Run the command line and exit."""
    logging.basicConfig(format="timefs: %(message)s", level=logging.WARNING)
    arguments = sys.argv[1:]
    as_json = "--json" in arguments
    if as_json:  # before the command or after it, both are natural
        arguments = ["--json", *(word for word in arguments if word != "--json")]
    try:
        code = cli.main(arguments, "timefs", standalone_mode=False)
    except TimefsError as error:
        code = report(error, as_json=as_json)
    except click.UsageError as error:
        hint = f"; see `{error.ctx.command_path} --help`" if error.ctx else ""
        code = report(UsageError(error.format_message() + hint), as_json=as_json)
    except click.ClickException as error:
        code = report(TimefsError(error.format_message()), as_json=as_json)
    except (KeyboardInterrupt, click.Abort):
        click.echo("timefs: interrupted; earlier instants are untouched", err=True)
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        code = report(
            TimefsError(f"{error.filename or 'system'}: {error.strerror}"), as_json=as_json
        )
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
