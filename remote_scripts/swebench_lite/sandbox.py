"""The sandbox: one Docker container per run, on a network only while it clones and installs, gone at once when the run ends.

What an installation leaves is kept as an image of its own, by project, commit, requirements and base image; the next run of
the same starts from it, without network and within a second. Containers and images carry labels; only own ones are removed.
"""

import hashlib
import json
import os
import re
import select
import subprocess
import time
from pathlib import Path

from errors import StageError, StageTimeout
from process import MAX_OUTPUT, Done, end_group, execute, started

LABEL = "fleet.lite.run"
KEPT_LABEL = "fleet.lite.environment"
KEPT = 40
"""Environments that are kept; of more, the oldest are removed."""
PROJECT = "/workspace/project"
DRIVER = Path(__file__).with_name("driver.py")
GRACE_S = 10.0
"""How long a driver may be late with the answer to a command that it should have ended."""
CLOSE_S = 5.0
SLACK_S = 90.0
"""What keeping an environment, a moment without commands, may add to a container's life."""
CHUNK = 1024 * 1024
CERTIFICATES = "/etc/ssl/certs"
# Settings by which pip and git reach an index through a proxy; they go to the driver's stdin, so none is in an argument list.
PASSED = re.compile(
    r"(PIP_(INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|CERT|DEFAULT_TIMEOUT|RETRIES)|SSL_CERT_FILE|(https?|no|all)_proxy)\Z",
    re.IGNORECASE,
)
# Root in a container without the rights that matter; it needs these to install and to clean up files.
RIGHTS = ["--cap-drop", "ALL", "--cap-add", "CHOWN", "--cap-add", "DAC_OVERRIDE", "--cap-add", "FOWNER",
          "--security-opt", "no-new-privileges", "--pids-limit", "1024"]  # fmt: skip


class DockerSandbox:
    """One container; `image` is the base or a kept environment, `online` whether it has a network until `go_offline`.

    Its process 1 is driver.py, which carries out the commands: one exchange over stdin and stdout each, and no client of Docker
    is started for it. When this process ends, however it does, so does the container.
    """

    kind = "docker"
    mirror = "/cache/source.git"
    project = PROJECT
    scratch = "/tmp"
    python = "python3"

    def __init__(self, image, life_s, mirror=None, online=False, start_s=30.0):
        self.name = "fleet-lite-" + os.urandom(6).hex()
        self.network = os.environ.get("LITE_NETWORK", "bridge")
        self.online = online and self.network != "none"
        self._word = os.urandom(16).hex().encode()
        argv = ["docker", "run", "--rm", "--interactive", "--pull", "never", "--log-driver", "none", "--name", self.name]
        argv += ["--label", "%s=%d" % (LABEL, os.getpid()), *RIGHTS, "--workdir", PROJECT]
        memory = os.environ.get("LITE_MEMORY", "4g")
        argv += ["--memory", memory, "--memory-swap", memory]
        argv += ["--network", self.network if self.online else "none"]
        if online and Path(CERTIFICATES).is_dir():
            argv += ["--volume", CERTIFICATES + ":" + CERTIFICATES + ":ro"]
        if mirror:
            argv += ["--volume", "%s:%s:ro" % (mirror, self.mirror)]
        argv += [
            "--entrypoint",
            "python3",
            image,
            "-I",
            "-S",
            "-c",
            DRIVER.read_text(encoding="utf-8"),
            "%d" % (life_s + SLACK_S),
        ]
        self._said = None  # on stderr, once it has ended
        self._client = started("image", argv, stderr=subprocess.PIPE)
        try:
            self.version = self._exchange("image", self._word + b"\n", start_s)[0]["python"]
        except BaseException:
            self.close()
            raise

    def run(self, stage, argv, limit_s, feed=None, env=None, check=False, online=False, raw=MAX_OUTPUT):
        """Run a command in the project directory; with `check` a failure is a StageError, the limit a StageTimeout.

        What the command leaves running is killed when it ends.
        """
        given = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
        if online:
            given.update((name, value) for name, value in os.environ.items() if PASSED.match(name))
        given.update(env or {})
        request = {"argv": argv, "env": given, "cwd": PROJECT, "limit_s": limit_s, "cap": raw, "feed": len(feed or b"")}
        header, output = self._exchange(stage, json.dumps(request).encode() + b"\n" + (feed or b""), limit_s)
        done = Done(header["code"], output)
        if header["late"]:
            raise StageTimeout(stage, limit_s, done.output)
        if check and done.code != 0:
            raise StageError(stage, "%s: %s ended with %d" % (stage, " ".join(argv[:4])[:120], done.code), done.output)
        return done

    def _exchange(self, stage, request, limit_s):
        """Send a request and return the answer, header and bytes; the driver keeps the limit, this side sees to it."""
        into, out = self._client.stdin.fileno(), self._client.stdout.fileno()
        deadline = time.monotonic() + limit_s + GRACE_S
        request, answer, header, size = memoryview(request), bytearray(), None, 1
        while header is None or len(answer) < size:
            left = deadline - time.monotonic()
            readable, writable, _ = select.select([out], [into] * bool(len(request)), [], max(0, left))
            if left <= 0:
                raise StageTimeout(stage, limit_s)
            try:
                if writable:
                    request = request[os.write(into, request[:CHUNK]) :]
                chunk = os.read(out, CHUNK) if readable else None
            except BrokenPipeError:
                chunk = b""
            if chunk == b"":
                self._ended(CLOSE_S)
                raise StageError(stage, "the container ended: " + (self._said or "").strip()[-300:], self._said or "")
            answer += chunk or b""
            if header is None and b"\n" in answer:
                line, _, rest = bytes(answer).partition(b"\n")
                word, _, text = line.partition(b" ")
                if word != self._word:
                    raise StageError(stage, "what the container answers is not from its driver")
                header, answer = json.loads(text.decode()), bytearray(rest)
                size = header["size"]
        return header, bytes(answer)

    def go_offline(self):
        """Take the container off the network; from here on nothing in it reaches anything."""
        if self.online:
            done = execute("install", ["docker", "network", "disconnect", "--force", self.network, self.name], 20)
            if done.code != 0:
                raise StageError("install", "the container could not be taken off the network", done.output)
            self.online = False

    def keep(self, tag):
        """Keep what is installed as an image; a failure costs the next run its head start and nothing else."""
        changes = ("LABEL %s=%s" % (KEPT_LABEL, tag.partition(":")[2]), "ENTRYPOINT []", "CMD []")
        try:
            words = [word for change in changes for word in ("--change", change)]
            execute("install", ["docker", "commit", *words, self.name, tag], 60)
            forget_oldest()
        except StageError:
            pass

    def close(self):
        """End the container at once, with everything in it, and come back when it is removed.

        Its process 1 ends with its stdin. A container that does not is removed. A client that still asks for one is left to get
        it, and the end with it: killed now, it could leave one that nobody knows of.
        """
        if self._ended(CLOSE_S):
            return
        execute("image", ["docker", "rm", "--force", "--volumes", self.name], 60)
        if not self._ended(60):
            end_group(self._client)

    def _ended(self, limit_s):
        """Close the client's stdin and tell whether it ends; read on, for it would be killed by what nobody reads."""
        if self._said is None:
            try:
                self._said = self._client.communicate(timeout=limit_s)[1].decode("utf-8", "replace")
            except subprocess.TimeoutExpired:
                return False
        return True


def environment_tag(commit, task, image_id):
    """Return the name of the image that keeps what `task` installs at `commit` on `image_id`."""
    words = json.dumps([commit, task.requirements, task.install_project, image_id], sort_keys=True)
    return "swebench-lite-env:" + hashlib.sha256(words.encode()).hexdigest()[:24]


def image_id(name):
    """Return the id of an image that the engine has, or None; StageError when the engine does not answer."""
    done = execute("image", ["docker", "image", "inspect", "--format", "{{.Id}}", name], 20)
    found = done.output.strip()
    if done.code == 0 and found.startswith("sha256:"):
        return found
    if "no such image" in found.lower():
        return None
    raise StageError("image", "the Docker engine does not answer, see docker info: " + found[-300:], done.output)


def forget_oldest():
    """Remove the oldest kept environments beyond KEPT, and those that another took the name of; one that is in use stays."""
    execute("install", ["docker", "image", "prune", "--force", "--filter", "label=" + KEPT_LABEL], 30)
    argv = ["docker", "images", "--filter", "label=" + KEPT_LABEL, "--format", "{{.CreatedAt}}|{{.Repository}}:{{.Tag}}"]
    lines = sorted(execute("install", argv, 20).output.splitlines(), reverse=True)
    for line in lines[KEPT:]:
        execute("install", ["docker", "rmi", line.partition("|")[2]], 30)
