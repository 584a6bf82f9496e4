"""One exec channel of an embedded host: a real child process whose three pipes are the channel.

It behaves like sshd where that matters to fleet: the command runs under `/bin/sh -c` in a session of its own; end of file
travels in both directions; the channel ends when the child has ended *and* its outputs are closed; and when the client
goes away the child gets end of file on stdin and a broken pipe on stdout, but no signal.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHUNK = 256 * 1024


class Session:
    """Runs one command for one channel (`channel` is an asyncssh SSHServerProcess of bytes)."""

    def __init__(self, channel: Any, home: Path, env: Mapping[str, str]) -> None:
        self._channel = channel
        self._home = home
        self._env = dict(env)
        self.child: subprocess.Popen[bytes] | None = None

    async def run(self) -> None:
        """Start the child, join it to the channel, and report its exit status."""
        command = self._channel.command
        argv = ["/bin/sh", "-c", command] if command is not None else ["/bin/sh"]
        self.child = child = subprocess.Popen(
            argv,
            cwd=self._home,
            env=self._env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        feeder = asyncio.create_task(self._feed(child.stdin))
        outputs = [
            asyncio.create_task(self._drain(child.stdout, self._channel.stdout)),
            asyncio.create_task(self._drain(child.stderr, self._channel.stderr)),
        ]
        silent = asyncio.create_task(asyncio.wait(outputs))
        gone = asyncio.create_task(self._channel.wait_closed())
        try:
            await asyncio.wait({silent, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not gone.done():
                await self._report(child)
        finally:
            helpers = (feeder, silent, gone, *outputs)
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
        await self._ended(child)

    async def _feed(self, pipe: Any) -> None:
        """Carry the channel's input to the child; its end, or the client's death, is the child's end of file."""
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, pipe)
        writer = asyncio.StreamWriter(transport, protocol, None, loop)
        try:
            while chunk := await self._channel.stdin.read(CHUNK):
                writer.write(chunk)
                await writer.drain()
        except (OSError, EOFError):
            pass  # the child closed its stdin early, which is its right
        except Exception as error:
            # asyncssh raises its own classes for a lost connection, a break and a signal request
            if type(error).__module__.partition(".")[0] != "asyncssh":
                raise
        finally:
            writer.close()

    @staticmethod
    async def _drain(pipe: Any, sink: Any) -> None:
        """Carry one output of the child to the channel, no faster than the client reads."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=CHUNK)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            while chunk := await reader.read(CHUNK):
                sink.write(chunk)
                await sink.drain()
        except OSError:
            pass  # the client is gone; closing the pipe tells the child
        finally:
            transport.close()

    async def _report(self, child: subprocess.Popen[bytes]) -> None:
        """Send the exit status once the child has ended; outputs are closed by now, so this is short."""
        code = await self._ended(child)
        with contextlib.suppress(OSError):
            if code < 0:
                self._channel.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
            else:
                self._channel.exit(code)

    @staticmethod
    async def _ended(child: subprocess.Popen[bytes]) -> int:
        """Wait without a thread per child: 200 hosts would be 200 threads."""
        pause = 0.001
        while (code := child.poll()) is None:
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.25)
        return code
