"""Checks a compressed frame before it is decoded: the decoders in C may crash on broken ones.

The structure is held against ITU-T T.81 (JPEG), T.87 (JPEG-LS) and T.800 (JPEG 2000), and the size
against Rows and Columns: a decoder trusts both. What is left to err is the coded data itself.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mammo.errors import DataError

_SOI, _EOI, _SOS, _DHT, _DRI, _DQT = 0xD8, 0xD9, 0xDA, 0xC4, 0xDD, 0xDB
_LS_FRAME, _LS_PRESETS = 0xF7, 0xF8
_FRAMES = {"baseline": (0xC0,), "extended": (0xC0, 0xC1), "lossless": (0xC3,), "ls": (_LS_FRAME,)}
_IGNORED = (*range(0xE0, 0xF0), 0xFE)  # application segments and comments

# What ends the coded data: a byte FF and one that is neither its stuffing nor a restart asked for
_MARKERS = {
    "": re.compile(rb"\xff[^\x00\xff]"),
    "restarts": re.compile(rb"\xff[^\x00\xd0-\xd7\xff]"),
    "ls": re.compile(rb"\xff[\x80-\xfe]"),
}


@dataclass(frozen=True)
class Expected:
    """What the header says of a frame, which its stream must repeat."""

    rows: int
    columns: int
    bits: int  # allocated for a pixel: 8 or 16


def check_jpeg(stream: bytes, kind: str, expected: Expected) -> None:
    """Refuse a grey JPEG `stream` that is not whole; `kind` is a key of `_FRAMES`."""
    coded = 0
    restarts = scanned = framed = False
    tables: set[int] = set()
    for marker, segment, end in _segments(stream):
        if marker in _FRAMES[kind] and not framed:
            _check_frame(segment, expected)
            framed = True
        elif marker == _DHT and kind != "ls":
            tables |= _huffman_tables(segment, kind)
        elif marker == _DRI and len(segment) == 2:
            restarts = segment != b"\0\0"
        elif marker == _SOS and framed and not scanned:
            _check_scan(segment, kind, tables)
            scanned, coded = True, end
            break
        elif marker == _DQT and kind in ("baseline", "extended"):
            _check_quantization(segment)
        elif not (marker in _IGNORED or (marker == _LS_PRESETS and kind == "ls")):
            raise _broken(f"marker {marker:02X} does not belong there")
    if not scanned:
        raise _broken("it has no scan")
    _check_coded(stream, coded, _MARKERS["ls" if kind == "ls" else "restarts" if restarts else ""])


def check_jpeg2000(stream: bytes, expected: Expected) -> bytes:
    """The codestream within `stream`, which may stand in a JP2 box; refused when not whole."""
    start = stream.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start < 0 or len(stream) < start + 44:
        raise _broken("it has no JPEG 2000 header")
    code = stream[start:] if start else stream
    width, height, left, top, tile_width, tile_height, tile_left, tile_top = (
        int.from_bytes(code[at : at + 4]) for at in range(8, 40, 4)
    )
    if (height - top, width - left) != (expected.rows, expected.columns):
        raise _broken("its stream has another size than its header")
    if int.from_bytes(code[40:42]) != 1 or code[43:45] != b"\x01\x01":
        raise _broken("its stream does not hold one grey channel")
    if (code[42] & 0x7F) + 1 > expected.bits:
        raise _broken("its stream is deeper than its header")
    tiles = tile_width and tile_height and tile_left <= left and tile_top <= top
    if not tiles or (width // tile_width + 1) * (height // tile_height + 1) > 65535:
        raise _broken("its tiles are impossible")
    if b"\xff\xd9" not in code[-4:]:
        raise DataError("its pixels are truncated: the end of the JPEG 2000 stream is missing")
    return code


def _segments(stream: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Marker, content and end of each segment up to the one that starts the scan."""
    if stream[:2] != bytes([0xFF, _SOI]):
        raise _broken("it does not start as a JPEG stream")
    at = 2
    while at + 4 <= len(stream):
        if stream[at] != 0xFF:
            raise _broken("bytes stand between its segments")
        marker = stream[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4])
        if end > len(stream) or end < at + 4:
            break
        yield marker, stream[at + 4 : end], end
        at = end
    raise DataError("its pixels are truncated within the JPEG header")


def _check_frame(segment: bytes, expected: Expected) -> None:
    if len(segment) != 9 or segment[5] != 1:
        raise _broken("its stream does not hold one grey channel")
    if (int.from_bytes(segment[1:3]), int.from_bytes(segment[3:5])) != (
        expected.rows,
        expected.columns,
    ):
        raise _broken("its stream has another size than its header")
    if not 2 <= segment[0] <= expected.bits:
        raise _broken("its stream is deeper than its header")
    across, down = segment[7] >> 4, segment[7] & 15
    if not (1 <= across <= 4 and 1 <= down <= 4 and segment[8] <= 3):
        raise _broken("its frame is impossible")


def _huffman_tables(segment: bytes, kind: str) -> set[int]:
    """Ids of the tables of a segment (T.81 B.2.4.2), each a possible prefix code."""
    found: set[int] = set()
    while segment:
        counts = segment[1:17]
        symbols = segment[17 : 17 + sum(counts)]
        codes = 0  # of this length and shorter ones, in units of the longest
        for length, count in enumerate(counts, start=1):
            codes += count << (16 - length)
        whole = len(counts) == 16 and len(symbols) == sum(counts) and 0 < codes <= 1 << 16
        sized = kind != "lossless" or max(symbols, default=0) <= 16
        # the highest half of a difference's size or, for an AC code, of the size of a coefficient
        if not (whole and sized and segment[0] & 15 <= 3 and segment[0] >> 4 <= 1):
            raise _broken("its Huffman table is impossible")
        found.add(segment[0])
        segment = segment[17 + len(symbols) :]
    return found


def _check_quantization(segment: bytes) -> None:
    while segment:
        size = 129 if segment[0] >> 4 else 65
        if len(segment) < size or segment[0] & 15 > 3 or segment[0] >> 4 > 1:
            raise _broken("its quantization table is impossible")
        segment = segment[size:]


def _check_scan(segment: bytes, kind: str, tables: set[int]) -> None:
    if len(segment) != 6 or segment[0] != 1:
        raise _broken("its scan does not hold one grey channel")
    direct, alternating = segment[2] >> 4, 16 + (segment[2] & 15)
    first, last, shift = segment[3:6]
    if kind == "ls":
        possible = last == 0 and shift == 0  # one channel is not interleaved
    elif kind == "lossless":
        possible = 1 <= first <= 7 and shift < 16 and direct in tables
    else:
        # some encoders write 0 for the last coefficient, which decoders do not look at
        possible = first == shift == 0 and last in (0, 63) and {direct, alternating} <= tables
    if not possible:
        raise _broken("its scan is impossible")


def _check_coded(stream: bytes, start: int, foreign: re.Pattern[bytes]) -> None:
    """Refuse coded data with a marker in it or without an end (T.81 B.1.1.5, T.87 A.1)."""
    found = foreign.search(stream, start)
    if found is None:
        raise DataError("its pixels are truncated: the end of the JPEG stream is missing")
    if found[0][-1] != _EOI:
        raise _broken(f"marker {found[0][-1]:02X} stands in its coded data")


def _broken(reason: str) -> DataError:
    return DataError(f"its pixels cannot be decoded: {reason}")
