"""How fleet speaks: stdout is data, stderr is talk; JSON documents, plain tables, and errors with their next command."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import click

from fleet.errors import AgentError, FleetError

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 200
"""Width of a table that goes to a file or a pipe; rich would cut it at 80."""


def write_json(document: Mapping[str, Any]) -> None:
    """Write one document as one line to stdout; ASCII only, so that no foreign byte reaches a terminal or breaks a pipe."""
    try:
        text = json.dumps(document, allow_nan=False, default=str)
    except ValueError:
        text = json.dumps(_finite(document), allow_nan=False, default=str)
    write_text(text)


def write_text(text: str) -> None:
    """Write `text` and a newline to stdout at once; what the stream's encoding cannot hold is escaped."""
    stream = sys.stdout
    text = harmless(text)
    line = text if text.endswith("\n") else text + "\n"
    try:
        stream.write(line)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(line.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


_ACTING = re.compile("\x1b(?!\\[[0-9;]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """Return text of several lines with all that acts on a terminal made visible, colours and tabs excepted.

    The last line of defence: whoever puts a host's words into a text has made them safe before.
    """
    if text.isascii() and text.isprintable():
        return text
    from fleet.model.names import visible

    return _ACTING.sub(lambda found: visible(found[0]), text)


def _finite(value: Any) -> Any:
    """Replace NaN and infinities by null: a host may send them, but they are not JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def show_error(error: FleetError, *, as_json: bool, code: str | None = None) -> None:
    """Write one error to stderr: as the envelope `fleet.error/1`, or as two lines for a person."""
    from fleet.model.names import redact, visible

    if as_json:
        envelope = {
            "schema": "fleet.error/1",
            "code": code or error_code(error),
            "message": redact(error.message),
            "hint": redact(error.hint),
            "host": error.host,
        }
        click.echo(json.dumps(envelope), err=True)
        return
    style = Style(wants_color(sys.stderr))
    where = f"{error.host}: " if error.host and error.host not in error.message else ""
    for number, line in enumerate(redact(where + error.message).splitlines() or [""]):
        click.echo((style.red("error: ") if number == 0 else "       ") + visible(line), err=True)
    for line in redact(error.hint).splitlines():
        click.echo(f"  → {visible(line)}", err=True)


def error_code(error: FleetError) -> str:
    """Return the stable code of an error: the agent's own, else the class name in kebab case."""
    if isinstance(error, AgentError):
        return f"agent-{error.code}"
    name = type(error).__name__.removesuffix("Error") or "error"
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def wants_color(stream: IO[str], *, no_color: bool = False) -> bool:
    """Tell whether `stream` shows colour: a capable terminal, and nobody asked for none."""
    if no_color or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


class Style:
    """ANSI colours, or none."""

    def __init__(self, color: bool) -> None:
        self.color = color

    def _paint(self, code: int, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.color else text

    def red(self, text: str) -> str:
        """What keeps a task from running."""
        return self._paint(31, text)

    def green(self, text: str) -> str:
        """What is as it should be."""
        return self._paint(32, text)

    def yellow(self, text: str) -> str:
        """What deserves a look."""
        return self._paint(33, text)

    def bold(self, text: str) -> str:
        """Headings."""
        return self._paint(1, text)

    def dim(self, text: str) -> str:
        """What can be skipped."""
        return self._paint(2, text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], style: Style, *, cut: str = "") -> str:
    """Return a plain table; widths ignore colour codes.

    Nothing is cut but, on a terminal that is too narrow, the column titled `cut`: a wrapped table cannot be read. Its cells
    hold no colour, and what they say must stand elsewhere too.
    """
    if cut and (room := _terminal_width()):
        rows = _narrowed(header, rows, header.index(cut), room)
    widths = [max((_width(row[column]) for row in (header, *rows)), default=0) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell + " " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True)]
        return "  ".join(padded).rstrip()

    return "\n".join([line([style.bold(cell) for cell in header]), *(line(row) for row in rows)])


def _terminal_width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _narrowed(header: Sequence[str], rows: Sequence[Sequence[str]], column: int, room: int) -> list[list[str]]:
    """Return the rows with the cells of one column cut to what the others leave of `room`, its title excepted."""
    others = sum(
        max((_width(row[other]) for row in (header, *rows)), default=0) + 2 for other in range(len(header)) if other != column
    )
    most = max(room - others, _width(header[column]))
    return [
        [cell if number != column or len(cell) <= most else cell[: most - 1] + "…" for number, cell in enumerate(row)]
        for row in rows
    ]


_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def _width(text: str) -> int:
    return len(_ANSI.sub("", text))


def console(*, stderr: bool = False, no_color: bool = False) -> Console:
    """Return a rich console for stdout or stderr."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else PLAIN_WIDTH

    class Ours(Console):
        def on_broken_pipe(self) -> None:
            """Leave it to the command: rich would end the process with 1, which is the code of a wrong command line."""
            raise BrokenPipeError

    return Ours(stderr=stderr, no_color=no_color or None, width=width, highlight=False, soft_wrap=not stream.isatty())
