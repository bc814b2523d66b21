"""Objects one after another through a pipe: a line of JSON, the content in pieces, a line of JSON.

A tar archive would need each size before the content, and could not say in the middle of an object
that the rest of it cannot be read.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

PIECE = 1 << 20  # bytes


class Broken(Exception):
    """The stream ended early, or what arrived is not what was sent."""


def send(stream: BinaryIO, header: dict[str, Any], pieces: Iterable[bytes] = ()) -> None:
    """Write one object; an exception of `pieces` travels to the other side as its error."""
    stream.write(json.dumps(header).encode() + b"\n")
    digest, error = hashlib.sha256(), ""
    try:
        for piece in pieces:
            if piece:
                digest.update(piece)
                stream.write(b"%d\n" % len(piece) + piece)
    except Broken as broken:
        error = str(broken)
    last = {"sha256": digest.hexdigest(), "error": error}
    stream.write(b"0\n" + json.dumps(last).encode() + b"\n")


def finish(stream: BinaryIO) -> None:
    """Write the mark without which the stream counts as cut off."""
    stream.write(b"{}\n")
    stream.flush()


class Arriving:
    """The content of one object on its way in; `error` and `sha256` are known at its end."""

    def __init__(self, stream: BinaryIO) -> None:
        self.bytes = 0
        self.error = ""
        self.sha256 = ""
        self._stream = stream
        self._digest = hashlib.sha256()
        self._left = 0  # of the piece that is being read
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, all for a negative one; none at the end."""
        found = bytearray()
        while not self._ended and (size < 0 or len(found) < size):
            if not self._left:
                self._next_piece()
                continue
            wanted = self._left if size < 0 else min(self._left, size - len(found))
            piece = self._stream.read(wanted)
            if len(piece) < wanted:
                raise Broken("the stream ended in the middle of an object")
            self._left -= wanted
            self._digest.update(piece)
            found += piece
        self.bytes += len(found)
        return bytes(found)

    def _next_piece(self) -> None:
        self._left = int(_line(self._stream))
        if not self._left:
            said = json.loads(_line(self._stream))
            self.error, self.sha256, self._ended = said["error"], said["sha256"], True
            if self._digest.hexdigest() != self.sha256:
                raise Broken("an object arrived with another digest than it was sent with")


def receive(stream: BinaryIO) -> Iterator[tuple[dict[str, Any], Arriving]]:
    """Headers with their contents, which are read to their ends before the next comes."""
    while True:
        header = json.loads(_line(stream))
        if not header:
            return
        content = Arriving(stream)
        yield header, content
        while content.read(PIECE):
            pass


def _line(stream: BinaryIO) -> bytes:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise Broken("the stream ended before its last object")
    return line
