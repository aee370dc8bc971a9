"""`timefs restore`: copy a file, a folder or a whole disk out."""

from pathlib import Path

import click

from store.errors import IncompleteError
from timefs.cli.session import Session, human_bytes, pass_session, progress_bar
from timefs.restore import Restore
from timefs.tree import Leaf


@click.command(short_help="copy a file, a folder or a whole disk out")
@click.argument("path")
@click.argument("dest")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@pass_session
def restore(session: Session, path: str, dest: str, force: bool) -> None:
    """Copy PATH into DEST if that is a folder, else as DEST; verified before it gets its name.

    Exit code 3: some files of a folder could not be restored; they are named, the rest is there.
    """
    node = session.node(session.open(), path)
    name = path.rstrip("/").rpartition("/")[2].encode(errors="surrogateescape")
    with progress_bar(path) as bar:
        bar.start(node.attributes().size if isinstance(node, Leaf) else 0)
        done = Restore(bar.advance, force=force).run(node, name, Path(dest))
    for line in done.failed:
        click.echo(f"timefs: {line}", err=True)
    session.show(
        {
            "path": path,
            "target": dest,
            "files": done.files,
            "folders": done.folders,
            "written_bytes": done.written_bytes,
            "failed": len(done.failed),
        },
        f"{path}: {done.files} files, {human_bytes(done.written_bytes)} restored and verified",
    )
    if done.failed:
        raise IncompleteError(f"{path}: {len(done.failed)} not restored, the rest is there")
