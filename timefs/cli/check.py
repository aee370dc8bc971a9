"""`timefs check`: prove that everything stored is there and right."""

import click

from store.errors import DamagedError
from store.keep.check import check as check_repository
from timefs.cli.progress import progress_bar
from timefs.cli.session import Session, human_bytes, pass_session


@click.command(short_help="prove that everything stored is there and right")
@click.option("--deep", is_flag=True, help="Read and decode every byte.")
@pass_session
def check(session: Session, deep: bool) -> None:
    """Check packs, rows, index and catalog; with --deep every stored byte.

    Each finding is followed by the instants and files that it hurts; all else is readable.
    Exit code 5: something is damaged.

    Example:
      timefs check --deep
    """
    repository = session.open()
    total = sum(path.stat().st_size for path in (repository.root / "packs").rglob("*"))
    with progress_bar("check") as bar:
        bar.start(total)
        report = check_repository(repository, deep=deep, progress=bar.advance)
    for finding in report.findings:
        session.show(
            {"damage": finding.damage, "message": finding.message, "hurts": finding.hurts},
            "\n".join([finding.message, *(f"  hurts {line}" for line in finding.hurts)]),
        )
    session.show(
        {
            "packs": report.packs,
            "rows": report.rows,
            "checked_bytes": report.checked_bytes,
            "damaged": report.damaged,
            "line": report.line,
        },
        f"checked {report.packs} packs, {report.rows} rows, {human_bytes(report.checked_bytes)}; "
        f"line {report.line}",
    )
    if report.damaged:
        count = sum(finding.damage for finding in report.findings)
        raise DamagedError(f"{session.root}: {count} damaged; all else is readable")
