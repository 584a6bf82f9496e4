"""A TCP proxy that answers as late as a host at a distance: every byte takes half the round trip each way.

    python -m tests.bench.delay ROUND_TRIP_S        reads lines `address port target-address`, says `ready`, runs until killed

The three-way handshake of the distance is paid too: what reaches the host first does so one and a half round trips after
the connection was made here.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Pass bytes on, each chunk `delay_s` after it came, in order."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due, chunk = await chunks.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not chunk:
                writer.close()
                return
            with contextlib.suppress(OSError):
                writer.write(chunk)
                await writer.drain()

    delivery = asyncio.ensure_future(deliver())
    chunk = b"-"
    while chunk:
        try:
            chunk = await reader.read(1 << 16)
        except OSError:
            chunk = b""
        chunks.put_nowait((loop.time() + delay_s, chunk))
    await delivery


async def main() -> None:
    """Listen for all lines of stdin."""
    round_trip_s = float(sys.argv[1])

    async def serve(address: str, port: int, target: str) -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(1.5 * round_trip_s)
            try:
                from_host, to_host = await asyncio.open_connection(target, port)
            except OSError:
                writer.close()
                return
            half = round_trip_s / 2
            await asyncio.gather(pump(reader, to_host, half), pump(from_host, writer, half))

        await asyncio.start_server(connected, address, port, backlog=256)

    for line in sys.stdin:
        address, port, target = line.split()
        await serve(address, int(port), target)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
