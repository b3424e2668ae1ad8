"""A checksum over every byte of a checkpoint, in the one place of a ZIP file that is free: its end.

``torch.save`` writes a ZIP archive. The CRCs that a ZIP has cover the content of its entries, not
the padding between them, nor the directory that says where they lie. So the archive's comment,
which nobody else uses, is the CRC-32 of all that stands before it::

    archive | cs336lm crc32 1234abcd

Any program that opens ZIP files, ``torch.load`` among them, still opens it. A file without the seal
(``torch.save``'s own, or of before there was one) is verified entry by entry, as far as that goes.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from typing import IO, Any

_MARK = b"cs336lm crc32 "
_SEAL = len(_MARK) + 8
_BLOCK = 1 << 22

# The end of a ZIP without a comment: a signature, 16 bytes of numbers, the comment's length of 0.
_END, _END_SIGNATURE = 22, b"PK\x05\x06"
_LENGTH = 2


class SealedWriter:
    """A binary file to give to ``torch.save``, which is sealed by :meth:`seal` afterwards.

    ``error`` keeps the ``OSError`` of a write that failed: ``torch.save`` says only that one did.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._crc = 0
        self._held = b""  # the last bytes so far: those of the archive say how long its comment is
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Writes ``data``, but for its last two bytes."""
        view = memoryview(data).cast("B")
        if len(view) < _LENGTH:
            view = memoryview(self._held + view)
        else:
            self._put(self._held)
        self._put(view[:-_LENGTH])
        self._held = bytes(view[-_LENGTH:])
        return len(data)

    def flush(self) -> None:
        """Flushes the file."""
        self._file.flush()

    def seal(self) -> None:
        """Ends the archive with its checksum."""
        self._put(_SEAL.to_bytes(_LENGTH, "little"))
        self._put(_MARK + b"%08x" % self._crc)

    def _put(self, data: Any) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        self._crc = zlib.crc32(data, self._crc)


def verify(file: IO[bytes], name: str) -> bool:
    """Reads a checkpoint through, from its beginning, at some gigabytes a second.

    Returns whether it is sealed. Raises ``ValueError``, calling it ``name``, unless every byte is
    as it was written; without a seal, unless the content of every entry is.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _SEAL, 0))
    last = file.read(_SEAL)
    file.seek(0)
    if last.startswith(_MARK):
        crc, left = 0, size - _SEAL
        while left and (block := file.read(min(left, _BLOCK))):
            crc, left = zlib.crc32(block, crc), left - len(block)
        if last[len(_MARK) :] != b"%08x" % crc:
            raise ValueError(f"{name} is damaged: its checksum does not match")
        refuse_packed(file, name)
        return True
    file.seek(max(size - _END, 0))
    end = file.read(_END)
    if not (end.startswith(_END_SIGNATURE) and end.endswith(bytes(_LENGTH))):
        raise ValueError(f"{name} is truncated, damaged or not a checkpoint (it has no end)")
    refuse_packed(file, name)
    _verify_entries(file, name)
    return False


def refuse_packed(file: IO[bytes], name: str) -> None:
    """Entries of a checkpoint are stored as they are: none that unpacks to more is one."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, OSError) as error:
        raise ValueError(f"{name} is truncated, damaged or not a checkpoint ({error})") from None
    size = file.seek(0, os.SEEK_END)
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if not stored or sum(entry.file_size for entry in entries) > size:
        raise ValueError(f"{name} is not a checkpoint: it unpacks to more than it is")


def _verify_entries(file: IO[bytes], name: str) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        raise ValueError(f"{name} is truncated, damaged or not a checkpoint ({error})") from None
    if broken is not None:
        raise ValueError(f"{name} is damaged: the checksum of {broken!r} does not match")
