"""The sandbox: one Docker container per run, on a network only while it clones and installs, gone at once when the run ends.

What an installation leaves is kept as an image of its own, by project, commit, requirements and base image; the next run of
the same starts from it, without network and within a second. Containers and images carry labels; only own ones are removed.
"""

import hashlib
import json
import os
import re
import secrets
import signal
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

from errors import StageError, StageTimeout

LABEL = "fleet.lite.run"
KEPT_LABEL = "fleet.lite.environment"
KEPT = 40
"""Environments that are kept; of more, the oldest are removed."""
PROJECT = "/workspace/project"
MAX_OUTPUT = 4 * 1024 * 1024
CERTIFICATES = "/etc/ssl/certs"
# Settings by which pip and git reach an index through a proxy; passed by name, so no value is in an argument list.
PASSED = re.compile(
    r"(PIP_(INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|CERT|DEFAULT_TIMEOUT|RETRIES)|SSL_CERT_FILE|(https?|no|all)_proxy)\Z",
    re.IGNORECASE,
)
# Root in a container without the rights that matter; it needs these to install and to clean up files.
RIGHTS = ["--cap-drop", "ALL", "--cap-add", "CHOWN", "--cap-add", "DAC_OVERRIDE", "--cap-add", "FOWNER",
          "--security-opt", "no-new-privileges", "--pids-limit", "1024"]  # fmt: skip


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
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, cwd=cwd, start_new_session=True
    )
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
        threads[0].join(2)
        raise StageTimeout(stage, limit_s, b"".join([*head, *tail]).decode("utf-8", "replace")) from None
    except BaseException:
        end_group(process)
        raise
    # A process that went to the background may hold the pipe open; what it prints later is nobody's.
    threads[0].join(2)
    return Done(process.returncode, b"".join([*head, *tail]))


def end_group(process):
    """Kill a command with the whole session that it leads."""
    try:
        os.killpg(process.pid, 9)
    except OSError:
        pass
    process.wait()


@contextmanager
def signals_held():
    """Let a request to end wait: a client that is killed while it asks for a container may get one that nobody knows of."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class DockerSandbox:
    """One container; `image` is the base or a kept environment, `online` whether it has a network until `go_offline`."""

    kind = "docker"
    mirror = "/cache/source.git"
    scratch = "/tmp"
    python = "python3"

    def __init__(self, image_id, life_s, mirror=None, online=False):
        self.name = "fleet-lite-" + secrets.token_hex(6)
        self.image_id = image_id
        self.online = online
        self.network = os.environ.get("LITE_NETWORK", "bridge")
        owner = "%d" % os.getpid()
        argv = ["docker", "run", "--detach", "--rm", "--name", self.name, "--label", LABEL + "=" + owner, *RIGHTS]
        argv += ["--network", self.network if online else "none", "--workdir", PROJECT]
        if online and Path(CERTIFICATES).is_dir():
            argv += ["--volume", CERTIFICATES + ":" + CERTIFICATES + ":ro"]
        if mirror:
            argv += ["--volume", "%s:%s:ro" % (mirror, self.mirror)]
        # The container ends by itself should this process be killed before it can remove it.
        argv += ["--entrypoint", "sleep", image_id, "%d" % (life_s + 30)]
        try:
            with signals_held():
                started = execute("image", argv, 30)
            if started.code != 0:
                raise StageError("image", "the container did not start", started.output)
        except BaseException:
            self.close()
            raise

    def run(self, stage, argv, limit_s, feed=None, env=None, check=False, online=False, raw=MAX_OUTPUT):
        """Run a command in the project directory; with `check` a failure is a StageError, the limit a StageTimeout."""
        words = ["docker", "exec", *(["--interactive"] if feed is not None else []), "--env", "GIT_CONFIG_COUNT=1"]
        words += ["--env", "GIT_CONFIG_KEY_0=safe.directory", "--env", "GIT_CONFIG_VALUE_0=*"]
        for name, value in (env or {}).items():
            words += ["--env", "%s=%s" % (name, value)]
        if online:
            words += [word for name in sorted(os.environ) if PASSED.match(name) for word in ("--env", name)]
        done = execute(stage, [*words, self.name, *argv], limit_s, feed=feed, cap=raw)
        if check and done.code != 0:
            raise StageError(stage, "%s: %s ended with %d" % (stage, " ".join(argv[:4])[:120], done.code), done.output)
        return done

    def go_offline(self):
        """Take the container off the network; from here on nothing in it reaches anything."""
        if self.online:
            done = execute("install", ["docker", "network", "disconnect", "--force", self.network, self.name], 20)
            if done.code != 0:
                raise StageError("install", "the container could not be taken off the network", done.output)
            self.online = False

    def keep(self, tag):
        """Keep what is installed as an image; a failure costs the next run its head start and nothing else."""
        change = "LABEL %s=%s" % (KEPT_LABEL, tag.partition(":")[2])
        try:
            execute("install", ["docker", "commit", "--change", change, "--change", "ENTRYPOINT []", self.name, tag], 60)
            forget_oldest()
        except StageError:
            pass

    def close(self):
        """Remove the container at once; no ten seconds are waited for processes that are not worth it."""
        subprocess.run(
            ["docker", "rm", "--force", "--volumes", self.name],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, check=False,
        )  # fmt: skip


def environment_tag(commit, task, image_id):
    """Return the name of the image that keeps what `task` installs at `commit` on `image_id`."""
    words = json.dumps([commit, task.requirements, task.install_project, image_id], sort_keys=True)
    return "swebench-lite-env:" + hashlib.sha256(words.encode()).hexdigest()[:24]


def image_id(name):
    """Return the id of an image that the engine has, or None."""
    done = execute("image", ["docker", "image", "inspect", "--format", "{{.Id}}", name], 20)
    found = done.output.strip()
    return found if done.code == 0 and found.startswith("sha256:") else None


def forget_oldest():
    """Remove the oldest kept environments beyond KEPT; one that is in use stays."""
    argv = ["docker", "images", "--filter", "label=" + KEPT_LABEL, "--format", "{{.CreatedAt}}|{{.Repository}}:{{.Tag}}"]
    lines = sorted(execute("image", argv, 20).output.splitlines(), reverse=True)
    for line in lines[KEPT:]:
        execute("image", ["docker", "rmi", line.partition("|")[2]], 30)
