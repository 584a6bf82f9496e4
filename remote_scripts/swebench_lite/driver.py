"""Process 1 of a container: carries out one command after another for the runner, over its stdin and stdout.

A request is a line of JSON and as many bytes as its `feed` says; an answer is a line, the runner's own word and JSON, and as
many bytes as its `size` says. After each command everything that it left running is killed, so nothing works on beside the next
one. When the runner is gone, stdin ends; then this process ends, and with it the container.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time

TAIL = 65536
NOT_DUMPABLE = (4, 0, 0, 0, 0)
"""prctl: commands run as the same user, and may neither open this process's stdout nor read its memory."""


def main(life_s):
    """Answer until stdin ends or `life_s` has passed."""
    ctypes.CDLL(None).prctl(*NOT_DUMPABLE)
    # Signals from inside do not end process 1 unless it handles them, and Python does handle this one.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    ended, wake = os.pipe()
    for end in (ended, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    word = sys.stdin.buffer.readline().strip()
    _answer(word, {"python": "%d.%d.%d" % sys.version_info[:3]}, [])
    last = time.monotonic() + life_s
    while select.select([0], [], [], max(0, last - time.monotonic()))[0]:
        line = sys.stdin.buffer.readline()
        if not line:
            return
        request = json.loads(line.decode())
        header, output = carry_out(request, sys.stdin.buffer.read(request["feed"]), ended)
        _answer(word, header, output)


def carry_out(request, feed, ended):
    """Run one command to its end or its limit; return its exit code and what it printed, as a list of bytes."""
    where = request["cwd"] if os.path.isdir(request["cwd"]) else "/"  # a test may have removed the project
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            request["argv"],
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.STDOUT,
            cwd=where,
            env=dict(os.environ, **request["env"]),
        )
    except (OSError, ValueError) as error:
        return {"code": 127, "late": False}, [str(error).encode("utf-8", "replace")]
    into, out = process.stdin.fileno(), process.stdout.fileno()
    for end in (into, out):
        os.set_blocking(end, False)
    kept = Kept(request["cap"])
    feed = memoryview(feed)
    deadline = time.monotonic() + request["limit_s"]
    reading = True
    while process.poll() is None and time.monotonic() < deadline:
        if not len(feed) and not process.stdin.closed:
            process.stdin.close()
        readable, writable, _ = select.select(
            [0, ended] + [out] * reading, [into] * bool(len(feed)), [], max(0, deadline - time.monotonic())
        )
        if 0 in readable:  # nothing is asked while a command runs: the runner is gone
            sys.exit(0)
        if ended in readable:
            os.read(ended, 4096)
            _bury(process.pid)
        if out in readable:
            reading = kept.read(out) is not False
        if into in writable:
            try:
                feed = feed[os.write(into, feed[:TAIL]) :]
            except OSError:
                feed = feed[:0]
    late = process.returncode is None
    _kill_everything(process)
    while kept.read(out):
        pass
    return {"code": process.returncode, "late": late}, kept.pieces()


def _bury(but):
    """Reap the orphans that have ended, which count as processes until then; the command itself is its owner's to wait for."""
    while True:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None or found.si_pid == but:
            return
        os.waitpid(found.si_pid, 0)


def _kill_everything(process):
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass


class Kept:
    """Of an output without end the beginning and the last bytes."""

    def __init__(self, cap):
        self.cap = cap
        self.head = []
        self.tail = b""
        self.size = 0

    def read(self, out):
        """Read what is there; return False at the end, None where there is nothing now."""
        try:
            chunk = os.read(out, TAIL)
        except BlockingIOError:
            return None
        if self.size < self.cap:
            self.head.append(chunk)
        else:
            self.tail = (self.tail + chunk)[-TAIL:]
        self.size += len(chunk)
        return bool(chunk)

    def pieces(self):
        """Return what is kept."""
        return [*self.head, self.tail]


def _answer(word, header, pieces):
    stdout = sys.stdout.buffer
    stdout.write(word + b" " + json.dumps(dict(header, size=sum(map(len, pieces)))).encode() + b"\n")
    for piece in pieces:
        stdout.write(piece)
    stdout.flush()


if __name__ == "__main__":
    main(float(sys.argv[1]))
