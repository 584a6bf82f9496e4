"""Commands on this machine, each with a limit, and ended together with whatever it started."""

import os
import subprocess
import threading

from errors import StageError, StageTimeout

MAX_OUTPUT = 4 * 1024 * 1024


class Done:
    """How a command ended: exit code, what it printed (both streams in their order), and the bytes as they came."""

    def __init__(self, code, raw):
        self.code = code
        self.raw = raw

    @property
    def output(self):
        return self.raw.decode("utf-8", "replace")


def execute(stage, argv, limit_s, feed=None, env=None, cwd=None, cap=MAX_OUTPUT):
    """Run a command to its end or its limit; of an output without end the beginning and the last lines are kept."""
    process = started(stage, argv, stderr=subprocess.STDOUT, env=env, cwd=cwd)
    head, tail, size = [], [b""], [0]

    def read():
        for chunk in iter(lambda: process.stdout.read1(65536), b""):
            if size[0] < cap:
                head.append(chunk)
            else:
                tail[0] = (tail[0] + chunk)[-65536:]
            size[0] += len(chunk)

    def write():
        try:
            process.stdin.write(feed or b"")
            process.stdin.close()
        except OSError:
            pass

    threads = [threading.Thread(target=one, daemon=True) for one in (read, write)]
    for thread in threads:
        thread.start()
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        end_group(process)
        _finish(threads, process)
        raise StageTimeout(stage, limit_s, b"".join([*head, *tail]).decode("utf-8", "replace")) from None
    except BaseException:
        end_group(process)
        raise
    _finish(threads, process)
    return Done(process.returncode, b"".join([*head, *tail]))


def _finish(threads, process):
    """Wait for what is still to be read; of a process in the background, which may hold the pipe open, nothing is."""
    for thread in threads:
        thread.join(2)
    if not threads[0].is_alive():
        process.stdout.close()


def started(stage, argv, **how):
    """Start a command in a session of its own, so that it and its children can be ended together."""
    try:
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, **how)
    except FileNotFoundError:
        hint = "; apt-get install docker.io, or use --sandbox venv" if argv[0] == "docker" else ""
        raise StageError(stage, "%s is not installed on this machine%s" % (argv[0], hint)) from None
    except (OSError, ValueError) as error:
        raise StageError(stage, "%s cannot be started: %s" % (argv[0], error)) from None


def end_group(process):
    """Kill a command with the whole session that it leads."""
    try:
        os.killpg(process.pid, 9)
    except OSError:
        pass
    process.wait()
