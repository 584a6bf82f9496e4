"""One line of a journal: a record as JSON with a checksum at its end, so that a flipped bit is noticed and not believed."""

from __future__ import annotations

import json
import re
import zlib

from fleet.model.records import AnyRecord, record_from

VERSION = 1
_SUM = re.compile(rb',"crc":"([0-9a-f]{8})"}\Z')


def encode(record: AnyRecord) -> bytes:
    """Return the line of `record`, newline included."""
    body = json.dumps({"v": VERSION, **record.model_dump(mode="json")}, separators=(",", ":")).encode()
    return b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))


def decode(line: bytes) -> AnyRecord | None:
    """Return the record of a line, None for a type that this version does not know; ValueError for damage.

    Lines without a checksum were written by an earlier version.
    """
    found = _SUM.search(line)
    if found is not None and int(found[1], 16) != zlib.crc32(line[: found.start()] + b"}"):
        raise ValueError("its checksum does not fit")
    try:
        return record_from(json.loads(line))
    except (RecursionError, AttributeError, TypeError) as error:
        raise ValueError(str(error)) from None
