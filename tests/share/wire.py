# pyright: basic
"""An SMB client of its own make (smbprotocol), for what Explorer sends and smbclient does not."""

import uuid
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from smbprotocol.connection import Connection
from smbprotocol.create_contexts import (
    CreateContextName,
    SMB2CreateContextRequest,
    SMB2CreateTimewarpToken,
)
from smbprotocol.exceptions import SMBException, SMBResponseException
from smbprotocol.file_info import FileInformationClass
from smbprotocol.ioctl import (
    CtlCode,
    IOCTLFlags,
    SMB2IOCTLRequest,
    SMB2IOCTLResponse,
    SMB2SrvSnapshotArray,
)
from smbprotocol.open import (
    CreateDisposition,
    FileAttributes,
    FilePipePrinterAccessMask,
    ImpersonationLevel,
    Open,
    ShareAccess,
)
from smbprotocol.session import Session
from smbprotocol.tree import TreeConnect

__all__ = ["SMBException", "SMBResponseException", "Tree", "tree"]

READ_BYTES = 1 << 20
LIST_BYTES_MAX = 64 << 10
"""What Windows gives for a list of versions."""


class Tree:
    """A connected share."""

    def __init__(self, tree_connect: TreeConnect) -> None:
        self._tree = tree_connect

    def open(self, path: str, then: datetime | None = None) -> Any:
        """A file or folder, as it was then."""
        contexts = []
        if then is not None:
            token: Any = SMB2CreateTimewarpToken()
            token["timestamp"] = then
            context: Any = SMB2CreateContextRequest()
            context["buffer_name"] = CreateContextName.SMB2_CREATE_TIMEWARP_TOKEN
            context["buffer_data"] = token
            contexts.append(context)
        opened: Any = Open(self._tree, path)
        opened.create(
            ImpersonationLevel.Impersonation,
            FilePipePrinterAccessMask.GENERIC_READ,
            FileAttributes.FILE_ATTRIBUTE_NORMAL,
            ShareAccess.FILE_SHARE_READ,
            CreateDisposition.FILE_OPEN,
            0,
            create_contexts=contexts or None,
        )
        return opened

    def read(self, path: str, then: datetime | None = None) -> bytes:
        """The bytes of a file, as they were then."""
        opened = self.open(path, then)
        try:
            parts = []
            at = 0
            while at < opened.end_of_file:
                part = opened.read(at, min(READ_BYTES, opened.end_of_file - at))
                parts.append(part)
                at += len(part)
            return b"".join(parts)
        finally:
            opened.close()

    def names(self, path: str, then: datetime | None = None) -> list[str]:
        """The names in a folder, as it was then."""
        opened = self.open(path, then)
        try:
            found = opened.query_directory("*", FileInformationClass.FILE_NAMES_INFORMATION)
            names = [each["file_name"].get_value().decode("utf-16-le") for each in found]
            return sorted(name for name in names if name not in (".", ".."))
        finally:
            opened.close()

    def numbers(self, path: str) -> dict[str, int]:
        """The file ids of the names in a folder."""
        opened = self.open(path)
        try:
            kind = FileInformationClass.FILE_ID_FULL_DIRECTORY_INFORMATION
            found = opened.query_directory("*", kind)
        finally:
            opened.close()
        return {
            each["file_name"].get_value().decode("utf-16-le"): each["file_id"].get_value()
            for each in found
        }

    def stop_encrypting(self) -> None:
        """Send what follows in clear, whatever was agreed."""
        self._tree.session.encrypt_data = False
        self._tree.encrypt_data = False

    def versions(self, path: str) -> list[datetime]:
        """The times that the server lists for a file or folder."""
        opened = self.open(path)
        try:
            request: Any = SMB2IOCTLRequest()
            request["ctl_code"] = CtlCode.FSCTL_SRV_ENUMERATE_SNAPSHOTS
            request["file_id"] = opened.file_id
            request["max_output_response"] = LIST_BYTES_MAX
            request["flags"] = IOCTLFlags.SMB2_0_IOCTL_IS_FSCTL
            connection, session = opened.connection, self._tree.session
            sent = connection.send(request, sid=session.session_id, tid=self._tree.tree_connect_id)
            response: Any = SMB2IOCTLResponse()
            response.unpack(connection.receive(sent)["data"].get_value())
            listed: Any = SMB2SrvSnapshotArray()
            listed.unpack(response["buffer"].get_value())
        finally:
            opened.close()
        names = listed["snapshots"].get_value().decode("utf-16-le").split("\0")
        return [
            datetime.strptime(name, "@GMT-%Y.%m.%d-%H.%M.%S").replace(tzinfo=UTC)
            for name in names
            if name
        ]


@contextmanager
def tree(port: int, share: str, user: str, password: str) -> Generator[Tree]:
    """A share, connected as long as the block runs."""
    connection = Connection(uuid.uuid4(), "127.0.0.1", port)
    connection.connect()
    try:
        session = Session(connection, user, password, require_encryption=True)
        session.connect()
        connected = TreeConnect(session, rf"\\127.0.0.1\{share}")
        connected.connect()
        yield Tree(connected)
    finally:
        connection.disconnect(close=False)
