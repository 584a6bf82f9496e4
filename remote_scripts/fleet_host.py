"""The host agent: one file, standard library only, Python 3.8+, run on an eval host by the fleet controller.

The controller starts it over SSH, sends one JSON request line on stdin and reads nonce-framed JSON lines from stdout:

    <<NONCE {"ok": true, ...}>>            NONCE is fresh per request, so a noisy .bashrc cannot forge or break an answer

Everything an attempt is lives in `~/.fleet/attempts/<id>/`, each file written tmp + fsync + rename:

    spec.json      the durable intent: ACCEPTED            (the directory is renamed into place)
    baseline.json  outputs, containers and images that were there before
    started.json   exclusive start marker, before exec: STARTED {boot_id, pid, starttime, epoch}; or {never}: it will not start
    log            what the eval printed, capped
    rc.json        how the eval ended, written by its parent
    manifest.json  sealed last: size and sha256 of every output file
    acked          the controller has a verified copy

Beside them, `~/.fleet/quarantine.json` holds the host back from new attempts until a person releases it.

State is derived from these files and from one question to the kernel, "is ~/.fleet/host.lock held?"; it is never stored. The
supervisor, the runner and the eval all inherit the lock, so it lives exactly as long as any of them and cannot go stale.

    no directory                          unknown
    rc.json                               finished (sealed when manifest.json is there)
    left.json, and some of that lives     held: it ended, and processes or containers of it could not, or should not, be ended
    no started.json, lock free            accepted: safe to start, whoever starts must hold the lock
    no started.json, lock held            starting
    started.json, lock held               running
    started.json, lock free, no rc.json   lost: the host rebooted (boot id differs), or everything was killed
    started.json with `never`             refused for good; finished, when it was a cancel that forbade it

Whoever links started.json first decides, a supervisor or somebody who forbids it: there is no moment in between.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import select
import signal
import stat
import sys
import time


class Later:
    """A module that is imported at its first use: a request needs few of these, and all of them double the agent's start."""

    def __init__(self, name):
        self.name = name

    def load(self):
        module = globals()[self.name] = __import__(self.name)
        return module

    def __getattr__(self, attribute):
        return getattr(self.load(), attribute)


base64, ctypes, fnmatch, hashlib, shutil = map(Later, ("base64", "ctypes", "fnmatch", "hashlib", "shutil"))
socket, subprocess, threading, datetime = map(Later, ("socket", "subprocess", "threading", "datetime"))


def load_modules():
    """Import everything now: a supervisor lives for an hour, and its Python may be upgraded meanwhile."""
    for found in list(globals().values()):
        if isinstance(found, Later):
            found.load()


PROTOCOL = 1
LOGIN_UMASK = 0o022
HOME = os.path.expanduser("~")
ROOT = os.path.join(HOME, ".fleet")
ATTEMPTS = os.path.join(ROOT, "attempts")
ACCOUNTS = "/run/lock"
MAX_REQUEST = 1 << 20
OPS_WAIT_S = 10.0
START_WAIT_S = 10.0
UNIT_LOCK_WAIT_S = 2.0
RESERVE_BYTES = 32 << 20
RETENTION_S = 14 * 86400
LAST_LOG_BYTES = 4096
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")
PATH_PART = re.compile(r"[A-Za-z0-9._@=,+][A-Za-z0-9._@=,+~-]{0,254}\Z")
IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}\Z")
MAX_DEPTH = 8
PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 15, 36
IN_MODIFY, IN_MOVED_TO, IN_CREATE = 0x2, 0x80, 0x100
NETWORK_FILESYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "afs", "ceph", "lustre", "glusterfs")


class Refusal(Exception):
    """A request that is answered with a code instead of being carried out."""

    def __init__(self, code, message, **detail):
        super().__init__(message)
        self.code, self.message, self.detail = code, message, detail


# ---------------------------------------------------------------- small tools


def number(request, name, default, high):
    """Return a number of the request, from 0 to `high`; NaN would make a deadline that never comes."""
    value = request.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise Refusal("bad-request", "%s is not a number from 0 on: %r" % (name, value))
    return min(float(value), high)


def texts(request, name):
    """Return a list of strings of the request; a plain string would be taken apart into letters."""
    value = request.get(name)
    value = [] if value is None else value
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Refusal("bad-request", "%s is not a list of strings" % name)
    return value


def text_of(request, name):
    """Return a string of the request that is there and not empty."""
    value = request.get(name)
    if not isinstance(value, str) or not value or "\0" in value:
        raise Refusal("bad-request", "%s is not a text" % name)
    return value


def objects(request, name, fields):
    """Return a list of objects of the request, each with the named fields of the named types."""
    value = request.get(name) or []
    for one in value if isinstance(value, list) else [None]:
        if not isinstance(one, dict) or any(type(one.get(field)) is not kind for field, kind in fields.items()):
            raise Refusal("bad-request", "%s is not a list of objects with %s" % (name, ", ".join(sorted(fields))))
    return value


def now_iso(epoch_s=None):
    utc = datetime.timezone.utc
    moment = datetime.datetime.now(utc) if epoch_s is None else datetime.datetime.fromtimestamp(epoch_s, utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_json(path):
    """Return the JSON object at `path`, or None when it is not there or not whole."""
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read().decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def read_text(path, limit=65536):
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""


def sync_directory(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path, data, mode=0o600):
    """Write bytes so that `path` holds either the old content or all of the new; frees the reserve when the disk is full."""
    try:
        _write_durably(path, data, mode)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # A full disk must not cost the exit code of the eval that filled it.
        free_reserve()
        _write_durably(path, data, mode)


def free_reserve():
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(ROOT, "reserve"))


def _write_durably(path, data, mode):
    temporary = "%s.%d.tmp" % (path, os.getpid())
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    except OSError:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    os.close(descriptor)
    os.rename(temporary, path)
    sync_directory(os.path.dirname(path))


def write_json(path, document):
    write_durably(path, json.dumps(document, sort_keys=True).encode("utf-8"))


def expand(path):
    """Return `path` with a leading ~ or $HOME as this user's home; nothing else is expanded."""
    for prefix in ("~", "$HOME"):
        if path == prefix or path.startswith(prefix + "/"):
            return HOME + path[len(prefix) :]
    return path


def safe_relative(path):
    if not isinstance(path, str) or not path or len(path) > 1024:
        return False
    parts = path.split("/")
    return len(parts) <= MAX_DEPTH and all(part not in (".", "..") and PATH_PART.match(part) for part in parts)


def sha256_of(path):
    digest = hashlib.sha256()
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file:
        while True:
            chunk = file.read(1 << 20)
            if not chunk:
                return digest.hexdigest()
            digest.update(chunk)


def boot_id():
    return read_text("/proc/sys/kernel/random/boot_id").strip()


def run(argv, timeout_s, cwd=None, env=None):
    """Run a command in its own process group; return (rc or None, the last 16 MB of its output, timed out)."""
    process = subprocess.Popen(
        argv,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    # Not communicate(): it waits for the end of the output, which a daemon that the command left behind holds open.
    with process.stdout as stream:
        os.set_blocking(stream.fileno(), False)
        poller = select.poll()
        poller.register(stream.fileno(), select.POLLIN)
        output, deadline, open_ended = bytearray(), time.monotonic() + timeout_s, True
        while open_ended:
            ended = process.poll() is not None
            left = deadline - time.monotonic()
            if left <= 0 and not ended:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return None, bytes(output), True
            ready = poller.poll(0 if ended else min(left, 0.05) * 1000)
            if ended and not ready:
                break
            if ready:
                chunk = stream.read(1 << 16)
                open_ended = chunk != b""
                output += chunk or b""
                del output[: -(16 << 20)]
            if ended and left <= 0:
                break
    try:
        return process.wait(max(0.0, deadline - time.monotonic())), bytes(output), False
    except subprocess.TimeoutExpired:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None, bytes(output), True


def environment(extra=None):
    """Return the environment of commands: the login's without its session's, UTF-8, `$HOME` and `$PATH` filled in `extra`."""
    # What names the session is wrong after logout, when logind has removed its runtime directory.
    gone = ("SSH_", "FLEET_", "XDG_SESSION_", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
    env = {name: text for name, text in os.environ.items() if not name.startswith(gone)}
    env.setdefault("LANG", "C.UTF-8")
    env["HOME"] = HOME
    path = env.get("PATH") or "/usr/local/bin:/usr/bin:/bin"
    for name, text in sorted((extra or {}).items()):
        env[name] = str(text).replace("$HOME", HOME).replace("$PATH", path)
    return env


# ---------------------------------------------------------------- processes


def process_stat(pid):
    """Return (parent pid, start time in ticks, state), or None when the process is gone."""
    text = read_text("/proc/%d/stat" % pid)
    if ")" not in text:
        return None
    fields = text.rsplit(")", 1)[1].split()
    return int(fields[1]), int(fields[19]), fields[0]


def all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def is_process(pid, starttime):
    """Tell whether `pid` is still the process that started at `starttime`: a reused pid is never signalled."""
    found = process_stat(pid) if pid else None
    return found is not None and found[1] == starttime and found[2] != "Z"


def process_environ(pid, containing=b""):
    """Return a process's environment; nothing when `containing` is nowhere in it, which spares most processes the look."""
    try:
        with open("/proc/%d/environ" % pid, "rb") as file:
            data = file.read()
    except OSError:
        return []
    return data.split(b"\0") if containing in data else []


def command_line(pid):
    return read_text("/proc/%d/cmdline" % pid).replace("\0", " ").strip()


def carried(pid):
    """Return the attempt of this account's ~/.fleet that a process carries in its environment, or None."""
    found = {}
    for item in process_environ(pid, b"FLEET_ATTEMPT="):
        if item.startswith((b"FLEET_ATTEMPT=", b"FLEET_OUTPUT_DIR=")):
            name, _, text = item.partition(b"=")
            found[name] = os.fsdecode(text)
    attempt = found.get(b"FLEET_ATTEMPT")
    # Another account, or another HOME of this one, may know an attempt by the same name.
    output = found.get(b"FLEET_OUTPUT_DIR", "")
    return None if attempt is None or os.path.dirname(os.path.dirname(output)) not in ("", ATTEMPTS) else attempt


def holds_fifo(pid, fifo):
    """Tell whether a process inherited the attempt's fifo: for reading and writing, while those who wait only read."""
    try:
        for number in os.listdir("/proc/%d/fd" % pid):
            with contextlib.suppress(OSError):
                if os.readlink("/proc/%d/fd/%s" % (pid, number)) == fifo:
                    flags = re.search(r"flags:\s*(\d+)", read_text("/proc/%d/fdinfo/%s" % (pid, number)))
                    if flags and int(flags.group(1), 8) & os.O_ACCMODE == os.O_RDWR:
                        return True
    except OSError:
        pass
    return False


def is_keeper(pid):
    """Tell whether a process is a supervisor or a runner of ours: they end by themselves when their eval has ended."""
    return SUPERVISOR in read_text("/proc/%d/cmdline" % pid).split("\0")


def members(attempt, root_pid=None):
    """Return the live pids of an attempt, known by five marks, because a process can shed any one of them.

    Descendants of `root_pid`, whoever carries its FLEET_ATTEMPT, whoever inherited its fifo, whoever is in its unit, and
    whoever was seen at its end: a program with another user's rights shows none of the others once its parents are gone.
    """
    fifo = os.path.join(os.path.realpath(os.path.join(ATTEMPTS, attempt)), "alive")
    unit = "/" + unit_name(attempt) if os.path.isdir("/run/systemd/system") else None
    left = read_json(os.path.join(ATTEMPTS, attempt, "left.json")) or {}
    parents, found = {}, {one["pid"] for one in noted_processes(left, boot_id())}
    for pid in all_pids():
        info = process_stat(pid)
        if info is None or info[2] == "Z":
            continue
        parents[pid] = info[0]
        if carried(pid) == attempt or holds_fifo(pid, fifo):
            found.add(pid)
        elif unit and any(line.endswith(unit) or unit + "/" in line for line in read_text("/proc/%d/cgroup" % pid).split("\n")):
            found.add(pid)
    if root_pid is not None:
        for pid in parents:
            ancestor = pid
            while ancestor in parents and ancestor > 1:
                ancestor = parents[ancestor]
                if ancestor == root_pid:
                    found.add(pid)
                    break
    return {pid for pid in found - {os.getpid(), os.getppid()} if not is_keeper(pid)}


def attempt_processes():
    """Return [(pid, attempt)] of processes that carry an attempt of this account, its own supervisors apart."""
    found = []
    for pid in all_pids():
        attempt = carried(pid)
        info = process_stat(pid) if attempt is not None and NAME.match(attempt) else None
        if info is not None and info[2] != "Z" and pid != os.getpid() and pid != os.getppid():
            found.append((pid, attempt))
    return found


def foreign_processes(patterns):
    """Return processes that match a pipeline's busy patterns and that fleet did not start."""
    found = []
    try:
        expressions = [(text, re.compile(text)) for text in patterns]
    except (re.error, TypeError) as error:
        raise Refusal("bad-request", "not a pattern: %s" % error) from None
    if not expressions:
        return found
    ours = {os.getpid(), os.getppid()}
    try:
        ticks, uptime = os.sysconf("SC_CLK_TCK"), float(read_text("/proc/uptime").split()[0])
    except (ValueError, IndexError):
        ticks, uptime = 100, 0.0
    for pid in all_pids():
        command = command_line(pid)
        pattern = next((text for text, expression in expressions if command and expression.search(command)), None)
        if pattern is None or pid in ours:
            continue
        if any(item.startswith(b"FLEET_ATTEMPT=") for item in process_environ(pid, b"FLEET_ATTEMPT=")):
            continue
        info = process_stat(pid)
        if info is None or info[2] == "Z":
            continue
        found.append(
            {
                "pid": pid,
                "user": owner_of(pid),
                "command": command[:300],
                "pattern": pattern,
                "elapsed_s": round(max(0.0, uptime - info[1] / ticks), 1),
            }
        )
    return found


def owner_of(pid):
    try:
        return account_name(os.stat("/proc/%d" % pid).st_uid)
    except OSError:
        return ""


def account_name(uid):
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (KeyError, ImportError):
        return str(uid)


def prctl(option, value):
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


# ---------------------------------------------------------------- docker


def docker_containers():
    """Return (containers, error): every container of this host, as `docker ps -a` tells."""
    try:
        rc, output, timed_out = run(["docker", "ps", "-a", "--no-trunc", "--format", "{{json .}}"], 10, env=environment())
    except OSError as error:
        return [], "docker: %s" % error.strerror
    if timed_out:
        return [], "docker ps gave no answer within 10 s"
    text = output.decode("utf-8", "replace")
    if rc != 0:
        return [], text.strip()[-300:] or "docker ps ended with %s" % rc
    found = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
            labels = dict(item.split("=", 1) for item in row.get("Labels", "").split(",") if "=" in item)
            found.append(
                {
                    "id": row["ID"],
                    "name": row["Names"],
                    "image": row["Image"],
                    "state": row.get("State", ""),
                    "created": _docker_time(row.get("CreatedAt", "")),
                    "labels": labels,
                }
            )
        except (ValueError, KeyError, AttributeError):
            continue
    return found, None


def image_ids(names):
    """Return {name: id of the image that has this name now, None where there is none}."""
    found = {}
    for name in names:
        found[name] = None
        with contextlib.suppress(OSError):
            argv = ["docker", "image", "inspect", "--format", "{{.Id}}", "--", name]
            rc, output, _ = run(argv, 10, env=environment())
            if rc == 0 and IMAGE_ID.match(output.decode("utf-8", "replace").strip()):
                found[name] = output.decode().strip()
    return found


def used_images(containers):
    """Return {image name: id} of what these containers run; what was removed before its end cannot be asked any more."""
    found = {}
    if containers:
        argv = ["docker", "inspect", "--format", "{{.Image}} {{.Config.Image}}", *(one["id"] for one in containers)]
        with contextlib.suppress(OSError):
            _, output, _ = run(argv, 10, env=environment())
            for line in output.decode("utf-8", "replace").splitlines():
                image, _, name = line.partition(" ")
                if IMAGE_ID.match(image) and name:
                    found[name] = image
    return found


def _docker_time(text):
    with contextlib.suppress(ValueError):
        return datetime.datetime.strptime(" ".join(text.split()[:3]), "%Y-%m-%d %H:%M:%S %z").timestamp()
    return None


def new_containers(directory, containers):
    """Return the containers that appeared between this attempt's start and the next one's; no other is ever touched."""
    baseline = read_json(os.path.join(directory, "baseline.json")) or {}
    if baseline.get("containers") is None:
        return []
    later = []
    for other in attempt_ids():
        # One eval at a time: what was not there when the next one started is that one's, or a person's.
        following = read_json(os.path.join(ATTEMPTS, other, "baseline.json")) or {}
        if following.get("containers") is not None and following.get("order", 0) > baseline.get("order", 0):
            later.append((following["order"], set(following["containers"])))
    known, until = set(baseline["containers"]), min(later, key=lambda one: one[0])[1] if later else None
    return [one for one in containers if one["id"] not in known and (until is None or one["id"] in until)]


# ---------------------------------------------------------------- the host directory, its locks and identity


def open_root():
    """Create or verify `~/.fleet`: a directory of ours, 0700, on a local file system."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(ROOT, 0o700)
    info = os.lstat(ROOT)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
        raise Refusal("refused", "%s is not a directory owned by this user" % ROOT)
    if info.st_mode & 0o077:
        os.chmod(ROOT, 0o700)
    with contextlib.suppress(FileExistsError):
        os.mkdir(ATTEMPTS, 0o700)


def filesystem_type(path):
    path = os.path.realpath(path)
    best, kind = "", "?"
    for line in read_text("/proc/self/mountinfo", 1 << 20).splitlines():
        fields = line.split(" ")
        if "-" not in fields:
            continue
        point = fields[4].replace("\\040", " ")
        if len(point) >= len(best) and (path + "/").startswith(point.rstrip("/") + "/"):
            best, kind = point, fields[fields.index("-") + 1]
    return kind


def host_identity():
    """Return {host_uid, machine_id}, created once and never overwritten (link fails where a file exists)."""
    path = os.path.join(ROOT, "host.json")
    known = read_json(path)
    if known is None:
        fresh = "%s.%d.new" % (path, os.getpid())
        document = {"host_uid": os.urandom(16).hex(), "machine_id": read_text("/etc/machine-id").strip() or None}
        write_json(fresh, document)
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        os.unlink(fresh)
        known = read_json(path) or document
    return known


def take_lock(name, wait_s):
    """Return a descriptor that holds `~/.fleet/<name>` exclusively, or None when somebody else does."""
    path = os.path.join(ROOT, name)
    deadline = time.monotonic() + wait_s
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The file may have been deleted and made anew since: a lock on a nameless inode guards nothing.
            if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
                os.close(descriptor)
                raise
        os.close(descriptor)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.02)


def lock_held(name="host.lock"):
    """Tell whether the lock is held, by a shared try that cannot hurt another reader."""
    try:
        descriptor = os.open(os.path.join(ROOT, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(descriptor)


def guard_name():
    """Name of the abstract socket that still guards the host when somebody deletes ~/.fleet under a running eval."""
    return "\0fleet-host-" + hashlib.sha256(("%d %s" % (os.geteuid(), os.path.realpath(HOME))).encode()).hexdigest()[:24]


def take_guard():
    guard = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        guard.bind(guard_name())
        guard.listen(1)
        return guard
    except OSError:
        guard.close()
        return None


def guard_held():
    """Tell whether somebody listens on the guard; asking does not take it, so two askers cannot mislead each other."""
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    caller.setblocking(False)
    try:
        caller.connect(guard_name())
        return True
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
    finally:
        caller.close()


def stands_for_the_machine():
    """Tell whether this HOME is the account's own; hosts of a demo, several on one machine, say nothing of the machine."""
    try:
        import pwd

        return os.path.realpath(pwd.getpwuid(os.geteuid()).pw_dir) == os.path.realpath(HOME)
    except (KeyError, ImportError):
        return False


def take_account():
    """Return a descriptor by which other accounts of this machine see that this one runs an eval; None where there can be none.

    Whoever wants to start takes its own first and then looks at the others': of two that do so at once both may be refused,
    and never both let in. Nobody needs to write what another account owns.
    """
    if not stands_for_the_machine():
        return None
    try:
        path = os.path.join(ACCOUNTS, "fleet-eval-%d" % os.geteuid())
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError:
        return None
    for _ in range(20):
        with contextlib.suppress(OSError):
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
                break
            # Shared, and for a moment refused while another account looks.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.fchmod(descriptor, 0o644)
            return descriptor
        time.sleep(0.01)
    os.close(descriptor)
    return None


def other_accounts():
    """Return [{uid, user, pid, at}] of the other accounts of this machine that run an eval of fleet."""
    found = []
    try:
        names = sorted(os.listdir(ACCOUNTS)) if stands_for_the_machine() else []
    except OSError:
        names = []
    for name in names:
        match = re.match(r"fleet-eval-(\d{1,10})\Z", name)
        if match is None or int(match.group(1)) == os.geteuid():
            continue
        told = account_held(os.path.join(ACCOUNTS, name), int(match.group(1)))
        if told is not None:
            found.append(told)
    return found


def account_held(path, uid):
    """Return what an account's file says when its lock is held; None when it is free, or not that account's file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode) or info.st_uid != uid:
            return None
        for _ in range(3):
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return None
            # Perhaps by somebody else who looks.
            time.sleep(0.02)
        fields = os.read(descriptor, 100).decode("ascii", "replace").split()
    except OSError:
        return None
    finally:
        os.close(descriptor)
    pid = int(fields[0]) if fields and fields[0].isdigit() and len(fields[0]) < 10 else None
    try:
        # What an account writes about others' processes is not believed.
        pid = pid if pid and os.stat("/proc/%d" % pid).st_uid == uid else None
    except OSError:
        pid = None
    return {"uid": uid, "user": account_name(uid), "pid": pid}


def refuse_other_accounts():
    others = other_accounts()
    if others:
        one = others[0]
        who = "%s (uid %d%s)" % (one["user"], one["uid"], "" if one["pid"] is None else ", pid %d" % one["pid"])
        raise Refusal("busy", "another account of this machine runs an eval of fleet: %s" % who, status={}, accounts=others)


def tree_lives(directory):
    """Tell whether a process of the attempt's tree still has its fifo open for writing; None without a fifo to ask."""
    try:
        descriptor = os.open(os.path.join(directory, "alive"), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return None
        # End of file means that no writer is left; whoever only waits has it open for reading and does not count.
        return os.read(descriptor, 1) != b""
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def take_host(wait_s=0.3):
    """Return a descriptor that holds the host against any other eval, or None; the wait covers a supervisor about to exit."""
    lock = take_lock("host.lock", wait_s)
    deadline = time.monotonic() + wait_s
    while lock is not None and guard_held():
        if time.monotonic() >= deadline:
            os.close(lock)
            return None
        time.sleep(0.01)
    return lock


@contextlib.contextmanager
def operation():
    """Serialise the calls that change something: two controllers may ask at the same moment."""
    descriptor = take_lock("ops.lock", OPS_WAIT_S)
    if descriptor is None:
        raise Refusal("busy", "another controller's call is in progress on this host")
    try:
        yield
    finally:
        os.close(descriptor)


def next_epoch():
    path = os.path.join(ROOT, "epoch")
    text = read_text(path).strip()
    if not text.isdigit():
        # The counter was removed or damaged; the attempts remember how far it had come.
        known = [read_json(os.path.join(ATTEMPTS, one, "spec.json")) or {} for one in attempt_ids()]
        text = max([int(one.get("epoch", 0)) for one in known], default=0)
    epoch = int(text) + 1
    write_durably(path, str(epoch).encode())
    return epoch


# ---------------------------------------------------------------- attempts and their derived state


def attempt_directory(attempt):
    # A name that ends in .new would be taken for an intent that was never finished.
    if not isinstance(attempt, str) or not NAME.match(attempt) or ".." in attempt or attempt.endswith(".new"):
        raise Refusal("bad-request", "not an attempt id: %r" % (attempt,))
    return os.path.join(ATTEMPTS, attempt)


def attempt_ids():
    return sorted(name for name in os.listdir(ATTEMPTS) if NAME.match(name) and not name.endswith(".new"))


class Situation:
    """The host at one moment: is it held, and by which attempt; read once per request."""

    def __init__(self, containers=None):
        self.listed = containers if containers is None else (containers, None)
        self.locked, self.guarded = lock_held(), guard_held()
        self.held = self.locked or self.guarded
        self.boot_id = boot_id()
        self.holder = self.starting = None
        if self.held:
            # Only the last one started can hold the lock. A sync or a seal holds it too, for a moment: the fifo tells.
            started = self.by("started.json", "boottime")
            self.holder = next((one for one in started if tree_lives(os.path.join(ATTEMPTS, one)) is not False), None)
            if self.holder is None:
                marker = os.path.join(ATTEMPTS, "%s", "started.json")
                taken = (one for one in self.by("spec.json", "epoch") if not os.path.lexists(marker % one))
                self.starting = next(taken, None)

    def containers(self):
        """Return (containers, error), asking the engine once and only when an attempt is known to have left something."""
        if self.listed is None:
            self.listed = docker_containers()
        return self.listed

    def by(self, name, field):
        """Return the attempts of this boot that have the file `name`, the highest `field` first."""
        found = []
        for attempt in attempt_ids():
            document = read_json(os.path.join(ATTEMPTS, attempt, name)) or {}
            if document.get("boot_id", self.boot_id) == self.boot_id and isinstance(document.get(field), (int, float)):
                found.append((document[field], attempt))
        return [attempt for _, attempt in sorted(found, reverse=True)]


def derive(attempt, situation=None):
    """Return (state, reason) of an attempt from its files and the lock."""
    directory = attempt_directory(attempt)
    if not os.path.isdir(directory):
        return "unknown", "this host has no such attempt"
    # The lock is asked before the files: an eval that ends in between is then seen as finished, never as lost.
    situation = situation or Situation()
    started = read_json(os.path.join(directory, "started.json"))
    if os.path.exists(os.path.join(directory, "rc.json")):
        left = remaining(directory, situation)
        return ("held", "left over: " + ", ".join(left)) if left else ("finished", "")
    never = forbidden(started)
    if never is not None:
        return ("finished" if never.get("cancelled") else "refused"), str(never.get("reason"))
    if started is None and os.path.lexists(os.path.join(directory, "started.json")):
        # Only a damaged disk leaves half a marker; it says "started" all the same.
        return ("running", "") if tree_lives(directory) else ("lost", "its start marker cannot be read")
    if started is None:
        return ("starting", "") if situation.starting == attempt else ("accepted", "not started")
    if started.get("boot_id") != situation.boot_id:
        return "lost", "the host rebooted during the eval"
    # The fifo too: one marker that could not be read at that moment (no descriptor was left) must not make a live eval lost.
    if situation.held and (situation.holder == attempt or tree_lives(directory)):
        return "running", ""
    return "lost", "the eval, its runner and its supervisor were killed; no exit code was kept"


def remaining(directory, situation):
    """Name what was left of an ended attempt and is still there; nothing is asked unless something was left."""
    left = read_json(os.path.join(directory, "left.json")) if sealed(directory) else None
    if left is None:
        return []
    found = ["process %d (%s)" % (one["pid"], one.get("command", "")[:80]) for one in noted_processes(left, situation.boot_id)]
    listed = left.get("containers")
    if listed != []:
        containers, error = situation.containers()
        mine = new_containers(directory, containers) if listed is None else [one for one in containers if one["id"] in listed]
        found += ["container %s" % one["name"] for one in mine]
        if error and listed:
            found.append("a container that cannot be looked for (%s)" % error)
    return found


def noted_processes(left, boot):
    """Return the noted processes that live; those of another boot are gone, whoever has their numbers now."""
    noted = left.get("processes") or []
    return [one for one in noted if left.get("boot_id") == boot and is_process(one.get("pid"), one.get("starttime"))]


def held_attempts(situation):
    """Return [(attempt, what is left of it)] of ended attempts that keep the host from taking another."""
    found = [(one, remaining(os.path.join(ATTEMPTS, one), situation)) for one in attempt_ids()]
    return [(one, left) for one, left in found if left]


def refuse_held(attempt, left, situation):
    verb = "is" if len(left) == 1 else "are"
    message = "%s %s left over from attempt %s, which has ended" % (" and ".join(left), verb, attempt)
    raise Refusal("held", message, status=status_of(attempt, situation))


def forbidden(marker):
    """Return why an attempt will never start, in the form of an rc.json; None when its marker does not say so."""
    never = (marker or {}).get("never")
    return never if isinstance(never, dict) else None


def forbid(attempt, reason, cancelled=False):
    """Decide, under ops.lock, that an attempt will never start; tell whether that was in time.

    It need not be here: a launch that is still on its way then finds the marker. A unit that comes up late finds it too.
    """
    directory = attempt_directory(attempt)
    never = {"rc": None, "at": now_iso(), "elapsed_s": 0.0, "cancelled": cancelled, "reason": reason}
    # While an eval runs the reserve is kept for its exit code.
    write = _write_durably if held_now() else write_durably
    data = json.dumps({"never": never}, sort_keys=True).encode("utf-8")
    if os.path.isdir(directory):
        return link_marker(directory, data, write)
    fresh = directory + ".new"
    if os.path.isdir(fresh):
        shutil.rmtree(fresh)
    os.mkdir(fresh, 0o700)
    write(os.path.join(fresh, "started.json"), data, 0o600)
    os.rename(fresh, directory)
    sync_directory(ATTEMPTS)
    return True


def link_marker(directory, data, write):
    """Make the start marker of an attempt, exclusively: link(2) fails where one exists, whatever happened before."""
    marker = os.path.join(directory, "started.json")
    fresh = marker + ".%d.new" % os.getpid()
    write(fresh, data, 0o600)
    try:
        os.link(fresh, marker)
        sync_directory(directory)
        return True
    except FileExistsError:
        return False
    finally:
        os.unlink(fresh)


def status_of(attempt, situation=None):
    """Return everything a controller asks about one attempt."""
    directory = attempt_directory(attempt)
    state, reason = derive(attempt, situation)
    if state == "unknown":
        return {"attempt": attempt, "state": state, "reason": reason}
    intent = read_json(os.path.join(directory, "spec.json")) or {}
    started = read_json(os.path.join(directory, "started.json")) or {}
    ended = read_json(os.path.join(directory, "rc.json")) or forbidden(started) or {}
    manifest = read_json(os.path.join(directory, "manifest.json"))
    size, last_line = last_log_line(directory)
    elapsed = ended.get("elapsed_s")
    if elapsed is None and state == "running":
        elapsed = round(boottime() - started.get("boottime", boottime()), 3)
    return {
        "attempt": attempt,
        "key": intent.get("key"),
        "batch": intent.get("batch"),
        "controller": intent.get("controller"),
        "accepted_at": intent.get("at"),
        "pipeline": (intent.get("spec") or {}).get("pipeline"),
        "state": state,
        "reason": reason or ended.get("reason", ""),
        "rc": ended.get("rc"),
        "signal": ended.get("signal"),
        "epoch": intent.get("epoch"),
        "boot_id": started.get("boot_id"),
        "started_at": started.get("at"),
        "finished_at": ended.get("at"),
        "elapsed_s": elapsed,
        "timed_out": bool(ended.get("timed_out")),
        "cancelled": bool(ended.get("cancelled")),
        "sealed": manifest is not None,
        "acked": os.path.exists(os.path.join(directory, "acked")),
        "verdict": (read_json(os.path.join(directory, "acked")) or {}).get("verdict"),
        "log_size": size,
        "last_line": last_line,
        "progress": progress_of(attempt, intent, started, size) if state == "running" else None,
        "outputs": None if manifest is None else {"files": len(manifest.get("files") or ()), "bytes": manifest.get("bytes")},
        "leftovers": (manifest or {}).get("leftovers", {"processes": [], "containers": []}),
    }


# ---------------------------------------------------------------- progress: does a running eval still move?


def progress_of(attempt, intent, started, log_size):
    """Return what changes while an eval works; None where this host cannot tell. Nothing of the attempt has to answer."""
    tree = attempt_tree(attempt, started)
    number, containers_cpu_s = containers_cpu(attempt)
    log_bytes = log_size
    if log_size >= int((intent.get("spec") or {}).get("max_log_mb", 64)) << 20:
        # A log at its cap grows no longer; whoever pumps it reads on.
        log_bytes = max(log_size, sum(bytes_read(pid) for pid in tree if is_keeper(pid)))
    ticks = os.sysconf("SC_CLK_TCK")
    return {
        "log_bytes": log_bytes,
        "cpu_s": round(sum(tree.values()) / ticks, 2) if tree else None,
        "containers": number,
        "containers_cpu_s": containers_cpu_s,
    }


def attempt_tree(attempt, started):
    """Return {pid: CPU ticks, those of its reaped children included} of an attempt's supervisor, runner, eval and children."""
    parents, used = {}, {}
    for pid in all_pids():
        text = read_text("/proc/%d/stat" % pid)
        if ")" in text:
            fields = text.rsplit(")", 1)[1].split()
            parents[pid], used[pid] = int(fields[1]), sum(int(one) for one in fields[11:15])
    roots = {started.get("pid")}
    if not is_process(started.get("pid"), started.get("starttime")):
        fifo = os.path.join(os.path.realpath(os.path.join(ATTEMPTS, attempt)), "alive")
        roots = {pid for pid in parents if carried(pid) == attempt or holds_fifo(pid, fifo)}
    found = {}
    for pid in parents:
        ancestor = pid
        while ancestor in parents and ancestor not in roots:
            ancestor = parents[ancestor]
        if ancestor in roots:
            found[pid] = used[pid]
    return found


def bytes_read(pid):
    found = re.search(r"rchar: (\d+)", read_text("/proc/%d/io" % pid))
    return int(found.group(1)) if found else 0


CONTAINER_GROUP = re.compile(r"(?:[a-z]+-)?([0-9a-f]{64})(?:\.scope)?\Z")


def containers_cpu(attempt, root="/sys/fs/cgroup"):
    """Return (number, CPU seconds) of running containers that are new since the attempt's baseline, or (None, None).

    Asked of the control groups: `docker stats` takes two seconds and a good part of a core.
    """
    known = (read_json(os.path.join(ATTEMPTS, attempt, "baseline.json")) or {}).get("containers")
    accounts = [os.path.join(root, name) for name in ("cpuacct", "cpu,cpuacct") if os.path.isdir(os.path.join(root, name))]
    unified = os.path.exists(os.path.join(root, "cgroup.controllers"))
    if known is None or not (accounts or unified):
        return None, None
    number, total = 0, 0.0
    for identity, group in container_groups(accounts[0] if accounts else root).items():
        if identity not in known:
            number += 1
            spent = read_text(os.path.join(group, "cpuacct.usage")).strip()
            stat = re.search(r"usage_usec (\d+)", read_text(os.path.join(group, "cpu.stat")))
            total += int(spent) / 1e9 if spent.isdigit() else int(stat.group(1)) / 1e6 if stat else 0.0
    return number, round(total, 2)


def container_groups(root, depth=5):
    """Return {container id: its control group} below `root`."""
    found, pending = {}, [(root, depth)]
    while pending:
        directory, left = pending.pop()
        try:
            entries = [entry for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        for entry in entries:
            match = CONTAINER_GROUP.match(entry.name)
            if match:
                found[match.group(1)] = entry.path
            elif left > 1:
                pending.append((entry.path, left - 1))
    return found


def boottime():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def last_log_line(directory):
    path = os.path.join(directory, "log")
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LAST_LOG_BYTES))
            tail = file.read(LAST_LOG_BYTES)
    except OSError:
        return 0, ""
    lines = [line for line in tail.replace(b"\r", b"\n").split(b"\n") if line.strip()]
    return size, lines[-1][:500].decode("utf-8", "replace") if lines else ""


# ---------------------------------------------------------------- probe


def verb_probe(request, _stdin):
    """Answer every readiness question in one go; commands, docker and digests run side by side."""
    questions = request.get("questions") or {}
    if not isinstance(questions, dict):
        raise Refusal("bad-request", "questions is not an object")
    wanted = {name: texts(questions, name) for name in ("files", "tools", "processes", "containers")}
    identity = host_identity()
    situation = Situation()
    facts = {
        "time": time.time(),
        "python": "%d.%d.%d" % sys.version_info[:3],
        "uid": os.geteuid(),
        "user": os.environ.get("USER") or os.environ.get("LOGNAME") or str(os.geteuid()),
        "hostname": socket.gethostname(),
        "boot_id": boot_id(),
        "machine_id": read_text("/etc/machine-id").strip() or None,
        "host_uid": identity["host_uid"],
        "home": {"path": HOME, "fstype": filesystem_type(ROOT), "writable": os.access(ROOT, os.W_OK), "error": None},
        "agent": {"sha256": request.get("agent"), "installed": True},
        "attempts": statuses(None, situation),
        "lock": lock_facts(situation),
        "quarantine": quarantine(),
    }
    jobs = []

    def part(name, function, *arguments):
        def work():
            try:
                facts[name] = function(*arguments)
            except Exception as error:
                # One unreadable part must not cost the answers of all the others.
                facts[name] = {"ok": False, "error": str(error), "containers": []} if name == "docker" else None

        thread = threading.Thread(target=work)
        thread.start()
        jobs.append(thread)

    if "commands" in questions:
        facts["commands"] = {}
        for question in objects(questions, "commands", {"name": str, "argv": list}):
            thread = threading.Thread(target=answer_command, args=(question, facts["commands"]))
            thread.start()
            jobs.append(thread)
    if questions.get("docker"):
        part("docker", docker_facts, wanted["containers"], questions.get("disk"))
    if "logind" in questions:
        part("logind", logind_facts)
    if "tools" in questions:
        part("tools", tool_facts, wanted["tools"])
        part("rsync_version", rsync_version)
    if "files" in questions:
        facts["files"] = {path: file_facts(path) for path in wanted["files"]}
    if "disk" in questions:
        facts["disk"] = disk_facts(text_of(questions, "disk"))
    if "memory" in questions:
        facts["memory"] = memory_facts()
    if "processes" in questions:
        facts["processes"] = foreign_processes(wanted["processes"])
    for thread in jobs:
        thread.join()
    return {"facts": facts}


def lock_facts(situation):
    found = {
        "state": "held" if situation.locked else "free",
        "guard": "held" if situation.guarded else "free",
        "attempt": None,
        "since": None,
        "batch": None,
        "task": None,
        "accounts": other_accounts(),
    }
    if situation.holder:
        status = status_of(situation.holder, situation)
        key = status.get("key") or {}
        found.update(
            attempt=situation.holder,
            since=status.get("started_at"),
            batch=status.get("batch"),
            task="%s/%s/run%s" % (key.get("instance_id"), key.get("model"), key.get("run")),
        )
    return found


def answer_command(question, answers):
    begun = time.monotonic()
    answer = {"rc": None, "timed_out": False, "tail": "", "error": None}
    try:
        cwd = expand(question["cwd"]) if question.get("cwd") else HOME
        env = environment(question.get("env"))
        argv = list(question["argv"])
        # Popen looks a bare name up in the agent's PATH, not in the one the command is given.
        argv[0] = shutil.which(argv[0], path=env.get("PATH")) or argv[0]
        rc, output, timed_out = run(argv, float(question.get("timeout_s", 60)), cwd, env)
        answer.update(rc=rc, timed_out=timed_out, tail=output[-2048:].decode("utf-8", "replace"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        answer["error"] = str(error)
    answer["seconds"] = round(time.monotonic() - begun, 3)
    answers[question.get("name", "?")] = answer


def file_facts(path):
    answer = {"exists": False, "size": None, "mode": None, "sha256": None, "md5": None, "error": None}
    try:
        # Not blocking: a fifo of this name would hold the answer up for ever.
        with open(os.open(expand(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                answer["error"] = "not a regular file"
                return answer
            digests = {"sha256": hashlib.sha256()}
            with contextlib.suppress(ValueError):
                # A FIPS host has no md5; only old lists of expected digests ask for it.
                digests["md5"] = hashlib.md5()
            size = 0
            for chunk in iter(lambda: file.read(1 << 20), b""):
                size += len(chunk)
                for digest in digests.values():
                    digest.update(chunk)
        answer.update({name: digest.hexdigest() for name, digest in digests.items()})
        answer.update(exists=True, size=size, mode=stat.S_IMODE(info.st_mode))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        answer["error"] = getattr(error, "strerror", None) or str(error)
    return answer


def disk_facts(path):
    path = expand(path)
    while not os.path.isdir(path) and path != "/":
        path = os.path.dirname(path)
    try:
        info = os.statvfs(path)
    except OSError as error:
        return {"path": path, "error": error.strerror}
    used = info.f_blocks - info.f_bfree
    usable = used + info.f_bavail
    return {
        "path": path,
        "total": info.f_blocks * info.f_frsize,
        "free": info.f_bavail * info.f_frsize,
        "used_percent": round(100.0 * used / usable, 1) if usable else 0.0,
        # File systems without a fixed inode table (btrfs, overlay on it) report zero of zero.
        "inodes_free": info.f_favail if info.f_files else None,
        "error": None,
    }


def memory_facts():
    fields = {}
    for line in read_text("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        with contextlib.suppress(ValueError, IndexError):
            fields[name] = int(rest.split()[0]) * 1024
    return {"total": fields.get("MemTotal"), "available": fields.get("MemAvailable")}


def tool_facts(names):
    path = environment()["PATH"] + ":" + os.path.join(HOME, ".local/bin")
    return {name: shutil.which(name, path=path) for name in names}


def rsync_version():
    try:
        _, output, _ = run(["rsync", "--version"], 5)
    except OSError:
        return None
    match = re.search(rb"version\s+v?(\d+\.\d+\.\d+)", output)
    return match.group(1).decode() if match else "openrsync" if b"openrsync" in output else None


def docker_facts(globs, workdir):
    containers, error = docker_containers()
    leftovers = leftover_containers(containers)
    for one in containers:
        one["leftover_of"] = leftovers.get(one["id"])
        one["matched"] = next((glob for glob in globs if fnmatch.fnmatchcase(one["name"], glob)), None)
    disk = None if error or not isinstance(workdir, str) else engine_disk(workdir)
    return {"ok": error is None, "error": error, "containers": containers, "disk": disk}


def engine_disk(workdir):
    """Return the facts of the disk that holds Docker's images, None where that is the work directory's own or is not told."""
    rc, output, _ = run(["docker", "info", "--format", "{{.DockerRootDir}}"], 10, env=environment())
    root = output.decode("utf-8", "replace").strip()
    # The directory is root's alone; what it is mounted on can be asked about all the same, of a remote engine it cannot.
    if rc != 0 or not root.startswith("/") or not os.path.isdir(root):
        return None
    here = disk_facts(workdir)
    with contextlib.suppress(OSError):
        return disk_facts(root) if os.stat(root).st_dev != os.stat(here["path"]).st_dev else None
    return None


def leftover_containers(containers):
    """Return {container id: attempt} for containers that an ended attempt left behind."""
    present = {one["id"] for one in containers}
    found = {}
    if not present:
        return found
    situation = Situation(containers)
    for attempt in attempt_ids():
        directory = os.path.join(ATTEMPTS, attempt)
        marker = os.path.join(directory, "started.json")
        if not os.path.exists(marker) or forbidden(read_json(marker)) or derive(attempt, situation)[0] == "running":
            continue
        # A file of its own: manifests are large, and most attempts left nothing.
        left = read_json(os.path.join(directory, "left.json"))
        if left is None and sealed(directory):
            continue
        known = left is not None and left.get("containers") is not None
        listed = left["containers"] if known else [one["id"] for one in new_containers(directory, containers)]
        found.update({one: attempt for one in listed if one in present})
    return found


def logind_facts():
    facts = {"kill_user_processes": None, "linger": None, "systemd_run": False}
    if not os.path.isdir("/run/systemd/system"):
        return facts
    user = os.environ.get("USER", "")
    facts["linger"] = os.path.exists(os.path.join("/var/lib/systemd/linger", user)) if NAME.match(user) else None
    name = ["org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager", "KillUserProcesses"]
    with contextlib.suppress(OSError):
        rc, output, _ = run(["busctl", "get-property", *name], 5)
        if rc == 0:
            facts["kill_user_processes"] = output.strip() == b"b true"
    facts["systemd_run"] = can_use_units()
    return facts


def sudo():
    return [] if os.geteuid() == 0 else ["sudo", "-n"]


def can_use_units():
    """Tell whether a transient system unit can be started here without a password."""
    if not os.path.isdir("/run/systemd/system") or shutil.which("systemd-run") is None:
        return False
    try:
        rc, _, _ = run([*sudo(), "systemd-run", "--version"], 5)
        return rc == 0
    except OSError:
        return False


def enclosure():
    """Return how an eval survives the end of the SSH session here: `unit`, `session`, or None when it would not."""
    if can_use_units():
        return "unit"
    return None if logind_facts()["kill_user_processes"] else "session"


# ---------------------------------------------------------------- launch


def verb_launch(request, _stdin):
    """Take an attempt durably and start it, at most once; the same request again gives the same answer."""
    attempt, key, spec = request.get("attempt"), request.get("key"), request.get("spec")
    directory = attempt_directory(attempt)
    check_spec(key, spec)
    digest, after = text_of(request, "spec_sha256"), texts(request, "after")
    if filesystem_type(ROOT) in NETWORK_FILESYSTEMS:
        raise Refusal("not-ready", "%s is on a network file system; flock cannot be trusted there" % ROOT)
    with operation():
        known = read_json(os.path.join(directory, "spec.json"))
        if known is not None:
            if known.get("spec_sha256") != digest:
                raise Refusal("conflict", "attempt %s was taken with another specification" % attempt)
        state, reason = derive(attempt)
        if state not in ("unknown", "accepted", "refused"):
            return answer_launch("already", attempt)
        # Also for an attempt taken earlier: while it was waiting to be sent again, another one may have done its work.
        refuse_duplicate(key, after, attempt)
        if state == "refused":
            raise Refusal("busy", "attempt %s will not start here: %s" % (attempt, reason), status={})
        refuse_quarantined()
        lock = take_host()
        if lock is None:
            refuse_busy()
        # Until the supervisor has its own: between the look at the others and its start nobody else may come in.
        account = take_account()
        try:
            refuse_other_accounts()
            before, kind = preflight(spec)
            if known is None:
                accept(directory, attempt, request, before)
            else:
                # What was here when it was taken is not what is here now that it starts.
                write_baseline(directory, directory, spec, before, next_epoch())
            supersede(attempt)
            start(attempt, directory, lock, kind)
        finally:
            for descriptor in (lock, account):
                if descriptor is not None:
                    os.close(descriptor)
        prune()
        return answer_launch("started", attempt)


def supersede(attempt):
    """Forbid every other attempt that was taken here and not started: it may come up late, when this one is over."""
    for other in attempt_ids():
        directory = os.path.join(ATTEMPTS, other)
        begun = any(os.path.lexists(os.path.join(directory, name)) for name in ("started.json", "rc.json"))
        if other != attempt and not begun:
            forbid(other, "attempt %s was started before it could" % attempt)


def verb_withdraw(request, _stdin):
    """Settle whether an attempt has started: one that has not never will. Makes a refusal final, for copies under way too."""
    attempt = request.get("attempt")
    attempt_directory(attempt)
    with operation():
        forbid(attempt, str(request.get("reason") or "withdrawn")[:300])
        return {"status": status_of(attempt)}


def check_spec(key, spec):
    """Refuse a specification that could not be started, before anything of it is written."""
    if not isinstance(key, dict) or not isinstance(spec, dict) or not isinstance(key.get("instance_id"), str):
        raise Refusal("bad-request", "launch needs a key with an instance_id, and a spec")
    if not texts(spec, "argv"):
        raise Refusal("bad-request", "argv is empty")
    text_of(spec, "workdir")
    number(spec, "timeout_s", 5400, float("inf"))
    for name in ("env", "inputs", "outputs", "cleanup", "preflight", "images"):
        if not isinstance(spec.get(name) or {}, dict):
            raise Refusal("bad-request", "%s is not an object" % name)
    for name in ("env", "inputs"):
        if not all(isinstance(value, str) and "\0" not in value for value in (spec.get(name) or {}).values()):
            raise Refusal("bad-request", "%s holds something that is not a text" % name)
    text_of(spec.get("outputs") or {}, "root")
    texts(spec.get("preflight") or {}, "processes")
    texts(spec.get("preflight") or {}, "containers")
    texts(spec.get("images") or {}, "names")


def answer_launch(outcome, attempt):
    status = status_of(attempt)
    return {"outcome": outcome, "attempt": attempt, "epoch": status.get("epoch"), "status": status}


def refuse_duplicate(key, after, attempt):
    """Refuse when another attempt of the same work is here, unless the operator's retry names it or it is known to be void."""
    for other in attempt_ids():
        if other == attempt or other in after:
            continue
        intent = read_json(os.path.join(ATTEMPTS, other, "spec.json")) or {}
        if intent.get("key") != key:
            continue
        state, _ = derive(other)
        acked = read_json(os.path.join(ATTEMPTS, other, "acked")) or {}
        if state in ("accepted", "refused") or acked.get("verdict") in ("rejected", "lost", "cancelled"):
            continue
        raise Refusal("duplicate", "this host already has attempt %s of the task" % other, status=status_of(other))


def refuse_quarantined():
    held_back = quarantine()
    if held_back is not None:
        since, reason = held_back.get("at"), held_back.get("reason")
        raise Refusal("not-ready", "quarantined since %s: %s" % (since, reason), quarantine=held_back)


def refuse_busy():
    situation = Situation()
    if situation.holder is None:
        raise Refusal("busy", "the host lock is held", status={})
    for attempt, left in held_attempts(situation):
        if attempt == situation.holder:
            refuse_held(attempt, left, situation)
    status = status_of(situation.holder, situation)
    key = status.get("key") or {}
    who = "%s/%s/run%s of batch %s" % (key.get("instance_id"), key.get("model"), key.get("run"), status.get("batch"))
    raise Refusal("busy", "an eval is running here: %s since %s" % (who, status.get("started_at")), status=status)


def preflight(spec):
    """Refuse, with every reason at once, before anything is written; return (containers and images here now, enclosure)."""
    wanted = spec.get("preflight") or {}
    problems = []
    situation = Situation()
    # The lock is ours, so these outlived their attempt and let go of it: Python closes what it inherits in its children.
    survivors = attempt_processes()
    if survivors:
        pid, attempt = survivors[0]
        raise Refusal(
            "held",
            "process %d of attempt %s, which has ended, is still running: %s" % (pid, attempt, command_line(pid)[:120]),
            status=status_of(attempt),
        )
    for attempt, left in held_attempts(situation):
        refuse_held(attempt, left, situation)
    processes = foreign_processes(wanted.get("processes") or [])
    if processes:
        first = processes[0]
        raise Refusal(
            "busy",
            "an eval that fleet did not start is running: pid %d, %s" % (first["pid"], first["command"][:120]),
            processes=processes,
        )
    limit = wanted.get("disk") or {}
    problems += disk_problems(disk_facts(spec["workdir"]), limit)
    if not os.path.isdir(expand(spec["workdir"])):
        problems.append("workdir: %s is not there" % spec["workdir"])
    for sha, name in sorted((spec.get("inputs") or {}).items()):
        if not os.path.isfile(input_path(sha, name)):
            problems.append("input %s is not staged" % name)
    before = {"containers": None, "images": None}
    if wanted.get("docker"):
        containers, error = docker_containers()
        if error:
            problems.append("docker: %s" % error)
        else:
            problems += disk_problems(engine_disk(spec["workdir"]) or {}, limit)
        before = {"containers": [one["id"] for one in containers], "images": {} if error else image_ids(image_names(spec))}
        expected = (spec.get("images") or {}).get("expected")
        for name, image in sorted(before["images"].items()):
            if expected and image not in (None, expected):
                problems.append("image: %s is %s here, the assignment says %s: docker rmi %s" % (name, image, expected, name))
        leftovers = leftover_containers(containers)
        for one in containers:
            if one["id"] in leftovers:
                refuse_held(leftovers[one["id"]], ["container %s" % one["name"]], situation)
            if one["state"] == "running" and any(fnmatch.fnmatchcase(one["name"], g) for g in wanted.get("containers") or []):
                problems.append("container %s of another eval is running" % one["name"])
    kind = enclosure()
    if kind is None:
        problems.append(
            "logind ends a user's processes at logout (KillUserProcesses=yes), and no system unit can be started here: "
            "allow `sudo -n systemd-run`, or set KillUserProcesses=no"
        )
    if problems:
        raise Refusal("not-ready", "; ".join(problems), problems=problems)
    return before, kind


def disk_problems(disk, limit):
    """Return which limits a disk is over; none for one that nothing is known of."""
    if disk.get("error"):
        return ["disk: %s" % disk["error"]]
    if "free" not in disk:
        return []
    if disk["used_percent"] >= limit.get("max_used_percent", 101) or disk["free"] < limit.get("min_free_gb", 0) * 1e9:
        return ["disk of %s: %.0f %% used, %.1f GB free" % (disk["path"], disk["used_percent"], disk["free"] / 1e9)]
    if disk["inodes_free"] is not None and disk["inodes_free"] < limit.get("min_free_inodes", 0):
        return ["disk of %s: %d inodes free" % (disk["path"], disk["inodes_free"])]
    return []


def image_names(spec):
    return (spec.get("images") or {}).get("names") or []


def accept(directory, attempt, request, before):
    """Write the durable intent: the directory appears whole or not at all."""
    fresh = directory + ".new"
    if os.path.isdir(fresh):
        shutil.rmtree(fresh)
    os.mkdir(fresh, 0o700)
    epoch = next_epoch()
    write_baseline(fresh, directory, request["spec"], before, epoch)
    intent = {
        "attempt": attempt,
        "key": request["key"],
        "spec": request["spec"],
        "spec_sha256": request["spec_sha256"],
        "batch": request.get("batch"),
        "controller": request.get("controller"),
        "epoch": epoch,
        "at": now_iso(),
    }
    write_json(os.path.join(fresh, "spec.json"), intent)
    os.rename(fresh, directory)
    sync_directory(ATTEMPTS)
    reserve = os.path.join(ROOT, "reserve")
    if not os.path.exists(reserve) and shutil.disk_usage(ROOT).free > 10 * RESERVE_BYTES:
        with contextlib.suppress(OSError), open(reserve, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)


def write_baseline(target, directory, spec, before, order):
    """Note what was here before: whatever differs at the end is the attempt's own; `order` puts baselines in sequence."""
    root = output_root(spec, directory)
    outputs = {} if root.startswith(directory + "/") else snapshot(root)
    write_json(os.path.join(target, "baseline.json"), dict(before, outputs=outputs, order=order))


def output_root(spec, directory):
    return expand(fill(spec["outputs"]["root"], spec, directory))


def fill(text, spec, directory):
    """Fill the host's own fields of a template; task fields were filled by the controller."""
    values = {
        "workdir": expand(spec["workdir"]),
        "output_dir": os.path.join(directory, "out"),
        "inputs": os.path.join(ROOT, "inputs"),
        "attempt": os.path.basename(directory),
    }
    for sha, name in (spec.get("inputs") or {}).items():
        if sha == spec.get("dataset_sha256"):
            values["dataset"] = input_path(sha, name)
    return re.sub(r"\{([a-z_]+)\}", lambda match: values.get(match.group(1), match.group(0)), text)


def snapshot(root):
    """Return {relative path: [size, mtime_ns, inode]} of every file below `root`."""
    found = {}
    for path, info in walk(root):
        found[os.path.relpath(path, root)] = [info.st_size, info.st_mtime_ns, info.st_ino]
    return found


def walk(root):
    """Yield (path, lstat) of everything below `root` that is not a directory, never following a link."""
    pending = [root]
    while pending:
        try:
            entries = sorted(os.scandir(pending.pop()), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    yield entry.path, entry.stat(follow_symlinks=False)


SUPERVISOR = (
    "import os,sys;sys.path.insert(0,os.environ['FLEET_AGENT_DIR']);import fleet_host;fleet_host.supervise(sys.argv[1:])"
)


def start(attempt, directory, lock, kind):
    """Start the supervisor, detached, with the lock; wait until its start marker is on disk."""
    env = environment()
    env["FLEET_UMASK"] = "%o" % LOGIN_UMASK
    env["FLEET_AGENT_DIR"] = os.path.dirname(os.path.abspath(__file__))
    argv = [sys.executable, "-I", "-S", "-c", SUPERVISOR, attempt]
    if kind == "unit":
        start_unit(attempt, directory, lock, argv, env)
    else:
        start_session(lock, argv, env)
    if not os.path.exists(os.path.join(directory, "started.json")):
        raise Refusal(
            "internal", "the supervisor did not start: %s" % read_text(os.path.join(directory, "supervisor.log"))[-500:]
        )


def start_session(lock, argv, env):
    """Double fork into a session of its own; the lock travels as an inherited descriptor."""
    ready_read, ready_write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if os.fork() != 0:
                os._exit(0)
            os.set_inheritable(lock, True)
            os.set_inheritable(ready_write, True)
            null = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(null, standard)
            os.execve(argv[0], [*argv, str(lock), str(ready_write)], env)
        finally:
            os._exit(127)
    os.close(ready_write)
    os.waitpid(child, 0)
    select.select([ready_read], [], [], START_WAIT_S)
    os.close(ready_read)


def start_unit(attempt, directory, lock, argv, env):
    """Start a transient system unit; a service inherits no descriptor, so it takes the lock itself, under our ops.lock."""
    stored = os.path.join(directory, "env.json")
    write_json(stored, env)
    fcntl.flock(lock, fcntl.LOCK_UN)
    unit = ["systemd-run", "--quiet", "--collect", "--unit=" + unit_name(attempt)]
    unit += ["--uid=%d" % os.geteuid(), "--gid=%d" % os.getegid()]
    # Not control-group: systemd would then end the eval together with a killed supervisor, and what policy wants kept.
    unit += ["-p", "KillMode=process", "-p", "OOMPolicy=continue", "-p", "TimeoutStopSec=60", "-p", "UMask=0077"]
    unit += ["-p", "TasksMax=infinity"]
    unit += ["--setenv=HOME=" + HOME, "--setenv=FLEET_AGENT_DIR=" + env["FLEET_AGENT_DIR"], "--"]
    rc, output, _ = run(sudo() + unit + argv, START_WAIT_S)
    # A failed call may still have an effect, late, or an earlier one of a launch that died: the marker tells, not the call.
    deadline = time.monotonic() + (START_WAIT_S if rc == 0 else UNIT_LOCK_WAIT_S + 0.5)
    marker = os.path.join(directory, "started.json")
    while not os.path.exists(marker):
        if time.monotonic() >= deadline:
            with contextlib.suppress(OSError):
                os.unlink(stored)
            if rc != 0:
                raise Refusal("not-ready", "systemd-run: %s" % output.decode("utf-8", "replace").strip()[-300:])
            return
        time.sleep(0.01)


def unit_name(attempt):
    return "fleet-%s.service" % attempt


# ---------------------------------------------------------------- supervisor and runner


def supervise(arguments):
    """Entry of the detached supervisor: mark the start, run the eval through a runner, sweep, seal, end."""
    os.umask(0o077)
    attempt = arguments[0]
    directory = attempt_directory(attempt)
    log = os.open(os.path.join(directory, "supervisor.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for name in (signal.SIGHUP, signal.SIGPIPE, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_NAME, ctypes.c_char_p(b"fleet-sup"))
    if len(arguments) > 1:
        lock, ready = int(arguments[1]), int(arguments[2])
        os.set_inheritable(ready, False)
    else:
        lock, ready = take_lock("host.lock", UNIT_LOCK_WAIT_S), None
        stored = os.path.join(directory, "env.json")
        os.environ.clear()
        os.environ.update(read_json(stored) or {"PATH": "/usr/local/bin:/usr/bin:/bin"})
        with contextlib.suppress(FileNotFoundError):
            os.unlink(stored)
    guard = take_guard()
    if lock is None or guard is None:
        print("the host lock or its guard is held by somebody else", flush=True)
        os._exit(1)
    account = take_account()
    others = other_accounts()
    if others:
        print("another account of this machine runs an eval: %s" % others, flush=True)
        os._exit(1)
    if account is not None:
        os.ftruncate(account, 0)
        os.pwrite(account, b"%d\n" % os.getpid(), 0)
    os.chdir(directory)
    held = [aside(one) for one in (lock, guard.detach(), account) if one is not None]
    Supervisor(attempt, directory, held, ready).run()
    os._exit(0)


def aside(descriptor):
    """Return a copy with a high number: a script's own `exec 3>file` must not close what the eval holds the host by."""
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 400)
    os.close(descriptor)
    return copy


class Supervisor:
    """Parent of the runner; does what is left to do when the eval, or the runner, has ended."""

    def __init__(self, attempt, directory, held, ready):
        self.attempt, self.directory, self.ready = attempt, directory, ready
        self.intent = read_json(os.path.join(directory, "spec.json"))
        self.spec = self.intent["spec"]
        alive = os.path.join(directory, "alive")
        with contextlib.suppress(FileExistsError):
            os.mkfifo(alive, 0o600)
        # Opened for both directions so that neither end blocks; whoever waits sees EOF when the last holder is gone.
        self.held = (*held, aside(os.open(alive, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)))
        self.begun = boottime()
        self.stop_ordered = False
        self.eval_pid = None

    def run(self):
        # Blocked from here on and fetched by sigwaitinfo: a stop order can then never fall between a test and a wait.
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
        if os.path.exists(os.path.join(self.directory, "rc.json")):
            print("this attempt has ended already", flush=True)
            return
        if not self.mark_started():
            print("another start of this attempt has written its marker, or it was forbidden", flush=True)
            return
        if self.ready is not None:
            os.close(self.ready)
        load_modules()
        log_read, log_write = os.pipe()
        pid_read, pid_write = os.pipe()
        supervisor_pid = os.getpid()
        runner = os.fork()
        if runner == 0:
            try:
                os.close(pid_read)
                Runner(self, log_read, log_write, pid_write).run(supervisor_pid)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                # Whatever went wrong, the copy must not go on as a second supervisor.
                os._exit(0)
        os.close(pid_write)
        os.close(log_write)
        told = os.read(pid_read, 64)
        self.eval_pid = int(told) if told else None
        self.wait_for(runner, log_read)
        self.finish()

    def mark_started(self):
        """Write the exclusive start marker; False when another start has written it, or somebody who forbids it."""
        document = {
            "boot_id": boot_id(),
            "pid": os.getpid(),
            "starttime": process_stat(os.getpid())[1],
            "epoch": self.intent["epoch"],
            "at": now_iso(),
            "boottime": self.begun,
        }
        return link_marker(self.directory, json.dumps(document, sort_keys=True).encode("utf-8"), write_durably)

    def wait_for(self, runner, log_read):
        """Block until the runner has ended; when it was killed, take its place until the eval has ended."""
        while True:
            try:
                pid, status = self.wait_child()
            except ChildProcessError:
                return
            if pid is None:
                self.stop_ordered = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(runner, signal.SIGTERM)
                continue
            if pid == runner:
                if os.path.exists(os.path.join(self.directory, "rc.json")):
                    os.close(log_read)
                    return
                # Only a killed runner leaves no rc: its eval is now our child, and its log our job.
                orphan = Runner(self, log_read, None, None)
                orphan.adopt(self.eval_pid, self.stop_ordered)
                return
            if pid == self.eval_pid:
                self.write_rc(status, "the runner was killed; the supervisor kept the exit code")

    def wait_child(self):
        """Return (pid, status) of the next ended child, or (None, None) when a stop was ordered meanwhile."""
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid:
                return pid, status
            if signal.sigwaitinfo({signal.SIGCHLD, signal.SIGTERM}).si_signo == signal.SIGTERM:
                return None, None

    def write_rc(self, status, reason="", timed_out=False):
        path = os.path.join(self.directory, "rc.json")
        if os.path.exists(path):
            return
        rc = None if status is None else os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        ending = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None
        if not reason and ending == signal.SIGKILL and not timed_out:
            reason = "killed by SIGKILL (out of memory? see the kernel log)"
        elif not reason and rc == 128 + signal.SIGKILL:
            reason = "ended with 137: what it ran was killed (by hand, by docker kill, or out of memory? see the kernel log)"
        write_json(
            path,
            {
                "rc": rc,
                "signal": ending,
                "at": now_iso(),
                "elapsed_s": round(boottime() - self.begun, 3),
                "timed_out": timed_out,
                "cancelled": os.path.exists(os.path.join(self.directory, "cancel.json")),
                "reason": reason,
            },
        )

    def finish(self):
        """After the eval: end what it left behind, then seal what it wrote. Order matters: nothing may write after the seal."""
        if not os.path.exists(os.path.join(self.directory, "rc.json")):
            self.write_rc(None, "the exit code was lost with the runner")
        seal(self.attempt, self.directory, self.intent, os.getpid())


class Runner:
    """Parent of the eval: keeps its log within the cap, its time within the limit, and its exit code."""

    def __init__(self, supervisor, log_read, log_write, pid_write):
        self.supervisor = supervisor
        self.spec, self.directory = supervisor.spec, supervisor.directory
        self.log_read, self.log_write, self.pid_write = log_read, log_write, pid_write
        self.grace_s = float((self.spec.get("cleanup") or {}).get("grace_s", 30.0))
        self.log = CappedLog(os.path.join(self.directory, "log"), int(self.spec.get("max_log_mb", 64)) << 20)

    def run(self, supervisor_pid):
        os.setsid()
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        try:
            process = self.spawn()
        except (OSError, ValueError) as error:
            self.log.write(("fleet: cannot start: %s\n" % error).encode())
            self.log.close()
            write_json(
                os.path.join(self.directory, "rc.json"),
                {"rc": 127, "at": now_iso(), "elapsed_s": 0.0, "reason": "cannot start: %s" % error},
            )
            return
        os.close(self.pid_write)
        os.close(self.log_write)
        self.watch(process.pid)
        if os.getppid() != supervisor_pid:
            # The supervisor was killed: nobody else is left to sweep and seal.
            seal(self.supervisor.attempt, self.directory, self.supervisor.intent, os.getpid())

    def spawn(self):
        argv = [fill(item, self.spec, self.directory) for item in self.spec["argv"]]
        env = {name: fill(text, self.spec, self.directory) for name, text in (self.spec.get("env") or {}).items()}
        env = environment(env)
        env["FLEET_ATTEMPT"] = self.supervisor.attempt
        env["FLEET_OUTPUT_DIR"] = os.path.join(self.directory, "out")
        os.makedirs(env["FLEET_OUTPUT_DIR"], 0o700, exist_ok=True)
        workdir = expand(self.spec["workdir"])
        if "/" not in argv[0]:
            argv[0] = shutil.which(argv[0], path=env["PATH"]) or argv[0]
        return subprocess.Popen(
            argv,
            cwd=workdir,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=self.log_write,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=self.supervisor.held,
            restore_signals=False,
            preexec_fn=self.introduce,
        )

    def introduce(self):
        """Tell the supervisor the eval's pid from the eval itself, before it can do anything: it may kill its parent."""
        with contextlib.suppress(BrokenPipeError):
            # Without a supervisor the runner goes on alone.
            os.write(self.pid_write, str(os.getpid()).encode())
        as_from_login()

    def adopt(self, eval_pid, stop_ordered):
        """Go on in a killed runner's place, inside the supervisor."""
        if eval_pid is not None:
            self.watch(eval_pid, stop_ordered, "the runner was killed; the supervisor kept the exit code")
        else:
            self.log.close()

    def watch(self, eval_pid, stop_ordered=False, reason=""):
        """Pump the log and wait for the end, blocking in poll(2) until something happens or the time is up."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        ordered = [stop_ordered]
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: ordered.__setitem__(0, True))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, signal.SIGTERM})
        deadline = self.supervisor.begun + float(self.spec.get("timeout_s", 5400))
        kill_at, timed_out, status = None, False, None
        poller = select.poll()
        poller.register(self.log_read, select.POLLIN)
        poller.register(wake_read, select.POLLIN)
        while status is None:
            status = reap(eval_pid)
            if status is not None:
                break
            if not is_child(eval_pid):
                # A runner that was killed right after it had reaped the eval took the exit code with it.
                reason = "the exit code was lost with the runner"
                break
            now = boottime()
            if kill_at is None and (ordered[0] or now >= deadline):
                timed_out = not ordered[0]
                signal_group(eval_pid, signal.SIGTERM)
                kill_at = now + self.grace()
            elif kill_at is not None and now >= kill_at:
                signal_group(eval_pid, signal.SIGKILL)
                kill_at = now + 5.0
            wait_s = max(0.0, (deadline if kill_at is None else kill_at) - now)
            for descriptor, event in poller.poll(min(wait_s, 3600.0) * 1000 + 1):
                if descriptor == wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_read, 512)
                elif not self.pump() and event & (select.POLLHUP | select.POLLIN):
                    poller.unregister(self.log_read)
        os.set_blocking(self.log_read, False)
        # Bounded: a child that the eval left behind may print for ever.
        for _ in range(32):
            if not self.pump():
                break
        self.log.close()
        if ordered[0] and not reason and not timed_out and not os.path.exists(os.path.join(self.directory, "cancel.json")):
            reason = "its supervisor got SIGTERM, not from fleet: the host shuts down, or somebody ended it"
        self.supervisor.write_rc(status, reason, timed_out)

    def grace(self):
        """Return how long the eval may take to end: what the cancel asks for, else what the pipeline allows."""
        order = read_json(os.path.join(self.directory, "cancel.json")) or {}
        return float(order.get("grace_s", self.grace_s))

    def pump(self):
        """Move what the eval printed into the log; return False at the end of the stream or when there is nothing."""
        try:
            chunk = os.read(self.log_read, 1 << 16)
        except BlockingIOError:
            return False
        self.log.write(chunk)
        return bool(chunk)


def is_child(pid):
    found = process_stat(pid)
    return found is not None and found[0] == os.getpid()


def reap(eval_pid):
    """Reap every ended child; return the eval's status once it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == eval_pid:
            found = status


def as_from_login():
    """Give the eval the signals and the umask of a login: containers of other users read the files it makes."""
    for name in (signal.SIGHUP, signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGXFSZ):
        signal.signal(name, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    os.umask(int(os.environ.get("FLEET_UMASK", "022"), 8))


def signal_group(pid, number):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


class CappedLog:
    """A log that keeps its first bytes and its last ones: an eval that prints 10 GB must not fill the disk."""

    TAIL = 256 << 10

    def __init__(self, path, cap):
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.room = cap - os.fstat(self.file).st_size
        self.tail, self.dropped = b"", 0

    def write(self, chunk):
        head, rest = chunk[: max(0, self.room)], chunk[max(0, self.room) :]
        if head:
            self.room -= len(head)
            try:
                os.write(self.file, head)
            except OSError:
                # The disk is full: what the eval says of it is its end, and is kept until there is room.
                self.room, rest = 0, head + rest
        if rest:
            self.tail += rest
            if len(self.tail) > 2 * self.TAIL:
                self.dropped += len(self.tail) - self.TAIL
                self.tail = self.tail[-self.TAIL :]

    def close(self):
        if self.tail:
            note = ("\nfleet: %d bytes of log left out here\n" % self.dropped).encode() if self.dropped else b""
            try:
                os.write(self.file, note + self.tail)
            except OSError:
                free_reserve()
                with contextlib.suppress(OSError):
                    os.write(self.file, note + self.tail)
        os.close(self.file)


# ---------------------------------------------------------------- the end of an attempt: sweep, then seal


def seal(attempt, directory, intent, own_pid):
    """Sweep what the eval left behind, then write the manifest; a sealed attempt is never sealed again."""
    if os.path.exists(os.path.join(directory, "manifest.json")):
        return
    cleanup = intent["spec"].get("cleanup") or {}
    swept, processes = sweep(attempt, own_pid, cleanup)
    images = images_of(directory, intent["spec"])
    removed, containers, error = sweep_containers(directory, intent["spec"], cleanup)
    note_left(directory, processes, containers, error)
    manifest = collect_outputs(directory, intent)
    manifest["images"] = images
    manifest["swept"] = {"processes": swept, "containers": removed}
    manifest["leftovers"] = {"processes": processes, "containers": containers, "error": error}
    manifest["sealed_at"] = now_iso()
    write_json(os.path.join(directory, "manifest.json"), manifest)


def images_of(directory, spec):
    """Return the ids of the pipeline's images at start and end, and of those that containers still here run; None unasked."""
    if not (spec.get("preflight") or {}).get("docker") or not image_names(spec):
        return None
    baseline = read_json(os.path.join(directory, "baseline.json")) or {}
    containers, error = docker_containers()
    end = {} if error else image_ids(image_names(spec))
    return {"start": baseline.get("images") or {}, "end": end, "used": used_images(new_containers(directory, containers))}


def note_left(directory, processes, containers, error):
    """Remember what is left of an attempt; an engine that gave no answer leaves it open which containers."""
    path = os.path.join(directory, "left.json")
    if processes or containers or error:
        ids = None if error else [one["id"] for one in containers]
        write_json(path, {"boot_id": boot_id(), "processes": processes, "containers": ids, "error": error})
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def sweep(attempt, own_pid, cleanup):
    """End the attempt's processes; return (how many were ended, those that could not be)."""
    found = members(attempt, own_pid)
    if cleanup.get("processes", "kill") == "keep":
        return 0, describe(found)
    count, denied = len(found), set()
    deadline = time.monotonic() + min(5.0, float(cleanup.get("grace_s", 30.0)))
    for number, until in ((signal.SIGTERM, deadline), (signal.SIGKILL, deadline + 10.0)):
        # Those that belong to another user are not waited for: they do not end by being asked again.
        while found - denied:
            for pid in found:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
                except PermissionError:
                    denied.add(pid)
            time.sleep(0.05)
            while True:
                try:
                    if os.waitpid(-1, os.WNOHANG)[0] == 0:
                        break
                except ChildProcessError:
                    break
            found = members(attempt, own_pid)
            if time.monotonic() > until:
                break
    return max(0, count - len(found)), describe(found)


def describe(pids):
    known = [(pid, process_stat(pid)) for pid in sorted(pids)]
    return [{"pid": pid, "starttime": info[1], "command": command_line(pid)[:200]} for pid, info in known if info]


def sweep_containers(directory, spec, cleanup):
    """Remove the containers that appeared during the attempt; return (removed, left, why it is not known or None)."""
    if not (spec.get("preflight") or {}).get("docker"):
        return [], [], None
    containers, error = docker_containers()
    if error:
        return [], [], error
    mine = new_containers(directory, containers)
    if not mine or cleanup.get("containers", "remove") != "remove":
        return [], mine, None
    with contextlib.suppress(OSError):
        run(["docker", "rm", "-f"] + [one["id"] for one in mine], 60, env=environment())
    after, error = docker_containers()
    if error:
        return [], mine, error
    left_ids = {one["id"] for one in after}
    return [one for one in mine if one["id"] not in left_ids], [one for one in mine if one["id"] in left_ids], None


def collect_outputs(directory, intent):
    """Find the run's own output directory, copy it aside so that no later eval can change it, and list it."""
    spec = intent["spec"]
    root = output_root(spec, directory)
    own = os.path.join(directory, "out")
    if root == own or root.startswith(own + "/"):
        return list_files(root, spec["outputs"], None, None)
    # Not into `out`: the eval could write there, and plant links that a copy would follow.
    kept = os.path.join(directory, "kept")
    if os.path.islink(kept):
        os.unlink(kept)
    shutil.rmtree(kept, ignore_errors=True)
    baseline = read_json(os.path.join(directory, "baseline.json")) or {}
    before = baseline.get("outputs") or {}
    fresh = {}
    for path, info in walk(root):
        relative = os.path.relpath(path, root)
        if before.get(relative) != [info.st_size, info.st_mtime_ns, info.st_ino]:
            fresh[relative] = info.st_mtime_ns
    where, how = own_directory(root, fresh, spec["outputs"].get("marker", "output.jsonl"), intent["key"]["instance_id"])
    if where is None:
        return {"root": kept, "source": None, "found_by": how, "files": [], "bytes": 0, "skipped": [], "stale": []}
    source = os.path.join(root, where) if where != "." else root
    manifest = list_files(source, spec["outputs"], kept, {os.path.relpath(os.path.join(root, one), source) for one in fresh})
    manifest["source"], manifest["found_by"] = source, how
    return manifest


def own_directory(root, fresh, marker, instance_id):
    """Return (directory below root, how it was found) among the files this attempt wrote; never "the newest"."""
    markers = sorted((one for one in fresh if os.path.basename(one) == marker), key=lambda one: -fresh[one])
    for relative in markers:
        if instance_id in instance_ids(os.path.join(root, relative)):
            return os.path.dirname(relative) or ".", "instance id in " + marker
    named = [one for one in markers if instance_id in one.split("/")]
    if named:
        return os.path.dirname(named[0]) or ".", "instance id in the path"
    if len(markers) == 1:
        return os.path.dirname(markers[0]) or ".", "the only %s written by this attempt" % marker
    if markers or not fresh:
        return None, "several %s, none of this instance" % marker if markers else "this attempt wrote no file"
    directories = [os.path.dirname(one) for one in fresh]
    common = os.path.commonpath(directories) if "" not in directories else ""
    return common or ".", "no %s; all files of this attempt" % marker


def instance_ids(path, limit=256 << 20):
    """Return the instance ids that a marker file names, line by line or as one document."""
    found = set()
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            data = file.read(limit)
    except OSError:
        return found
    lines = [line for line in data.split(b"\n") if line.strip()]
    # One object over many lines, or one per line; a single line is not read twice.
    for text in lines if len(lines) < 2 else [*lines, data]:
        try:
            row = json.loads(text.decode("utf-8", "replace"))
            found.add(str(row.get("instance_id") or row.get("id")))
        except (ValueError, AttributeError, RecursionError):
            continue
        if len(found) > 10000:
            break
    return found


def list_files(source, limits, copy_to, only):
    """Return the manifest of `source`; with `copy_to`, copy each file there while it is hashed."""
    files, skipped, stale, total, folded = [], [], [], 0, set()
    max_file, max_total = int(limits.get("max_file_mb", 2048)) << 20, int(limits.get("max_total_mb", 10240)) << 20
    max_files = int(limits.get("max_files", 50000))
    for path, info in sorted(walk(source)):
        relative = os.path.relpath(path, source)
        shown = relative.encode("utf-8", "backslashreplace").decode("utf-8")[:300]
        if only is not None and relative not in only:
            stale.append(shown)
            continue
        if not stat.S_ISREG(info.st_mode):
            skipped.append({"path": shown, "why": "not a regular file"})
        elif not safe_relative(relative):
            skipped.append({"path": shown, "why": "unsafe name"})
        elif relative.lower() in folded:
            # Two names that differ in case alone are one file on the operator's disk, when that is a Mac's.
            skipped.append({"path": shown, "why": "differs from another name in case alone"})
        elif info.st_size > max_file:
            skipped.append({"path": shown, "why": "%d bytes, over the limit of one file" % info.st_size})
        elif total + info.st_size > max_total or len(files) >= max_files:
            skipped.append({"path": shown, "why": "over the limit of one result"})
        else:
            try:
                size, digest = hash_file(path, os.path.join(copy_to, relative) if copy_to else None)
            except OSError as error:
                if copy_to and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    # No room for a copy: seal the files where they are rather than lose them.
                    shutil.rmtree(copy_to, ignore_errors=True)
                    return list_files(source, limits, None, only)
                skipped.append({"path": shown, "why": error.strerror})
                continue
            files.append({"path": relative, "size": size, "sha256": digest})
            folded.add(relative.lower())
            total += size
    root = copy_to or source
    return {
        "root": root,
        "source": source,
        "found_by": "",
        "files": files,
        "bytes": total,
        "skipped": skipped,
        "stale": stale[:1000],
    }


def hash_file(path, copy):
    digest, size, target = hashlib.sha256(), 0, None
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
        if copy:
            os.makedirs(os.path.dirname(copy), 0o700, exist_ok=True)
            target = open(copy, "xb", buffering=0)
        try:
            while True:
                chunk = file.read(1 << 20)
                if not chunk:
                    return size, digest.hexdigest()
                digest.update(chunk)
                size += len(chunk)
                while target and chunk:
                    chunk = chunk[target.write(chunk) :]
        finally:
            if target:
                target.close()


# ---------------------------------------------------------------- wait, status, logs


class Changes:
    """Blocks in the kernel until files of an attempt change, its last process ends, or the caller hangs up."""

    def __init__(self, directory, stdin, mask, path=None):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.inotify = self.libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        self.stdin = stdin.fileno()
        self.poller = select.poll()
        self.poller.register(self.stdin, select.POLLIN)
        # Without inotify (its instances are counted per user) changes are looked for once a second.
        self.longest_s = 1.0
        if self.inotify >= 0 and self.libc.inotify_add_watch(self.inotify, os.fsencode(path or directory), mask) >= 0:
            self.poller.register(self.inotify, select.POLLIN)
            self.longest_s = 3600.0
        self.alive, self.fifo, self.idle = os.path.join(directory, "alive"), None, False
        self.open_fifo()

    def open_fifo(self):
        """Watch the last holder's end; the fifo appears with the supervisor."""
        with contextlib.suppress(OSError):
            self.fifo = os.open(self.alive, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self.poller.register(self.fifo, select.POLLIN)

    def close(self):
        for descriptor in (self.inotify, self.fifo):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)

    def wait(self, timeout_s):
        """Return False when the caller hung up."""
        self.idle = False
        if self.fifo is None:
            self.open_fifo()
            if self.fifo is not None:
                # Its last holder may have gone before it was opened: look again before blocking on it.
                return True
        # Without a fifo nothing tells the end of a supervisor that dies before it has made one.
        longest_s = self.longest_s if self.fifo is not None else 1.0
        events = self.poller.poll(min(max(0.0, timeout_s), longest_s) * 1000)
        # Only a wait that would have seen a change proves that there was none.
        self.idle = not events and self.fifo is not None and longest_s > timeout_s
        for descriptor, _ in events:
            if descriptor == self.stdin:
                return False
            if descriptor == self.inotify:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.inotify, 65536)
            else:
                # The last holder is gone: an EOF stays readable, so it is looked at once.
                self.poller.unregister(self.fifo)
        return True


def verb_wait(request, stdin):
    """Stream the status: at once, on every change, and every beat; ends when the attempt needs the controller."""
    attempt = request.get("attempt")
    directory = attempt_directory(attempt)
    beat_s = max(number(request, "beat_s", 30.0, 300.0), 0.05)
    deadline = time.monotonic() + number(request, "max_s", 900.0, 3600.0)
    # Counting all processes' time takes some 10 ms: once a minute that is next to nothing, every beat it would not be.
    progress_s, counted = number(request, "progress_s", 60.0, 3600.0), 0.0
    if not os.path.isdir(directory):
        return {"status": status_of(attempt), "final": True}
    changes = Changes(directory, stdin, IN_MOVED_TO | IN_CREATE)
    status = None
    while True:
        fresh = not changes.idle or time.monotonic() - counted >= progress_s
        status = status_of(attempt) if fresh else beaten(status, directory)
        counted = time.monotonic() if fresh else counted
        ended = status["state"] == "finished" and (status["sealed"] or not being_sealed(directory))
        over = ended or status["state"] in ("accepted", "refused", "held", "lost", "unknown")
        if over or time.monotonic() >= deadline:
            return {"status": status, "final": over}
        send(request["nonce"], {"ok": True, "status": status, "final": False})
        if not changes.wait(min(beat_s, deadline - time.monotonic())):
            os._exit(0)


def beaten(status, directory):
    """Return the last status with the log as it is now: nothing else can have changed without waking the wait."""
    size, last_line = last_log_line(directory)
    elapsed = status["elapsed_s"]
    if status["state"] == "running" and elapsed is not None:
        started = read_json(os.path.join(directory, "started.json")) or {}
        elapsed = round(boottime() - started.get("boottime", boottime()), 3)
    progress = status["progress"]
    if progress is not None:
        progress = dict(progress, log_bytes=max(progress["log_bytes"], size))
    return dict(status, log_size=size, last_line=last_line, elapsed_s=elapsed, progress=progress)


def held_now():
    return lock_held() or guard_held()


def being_sealed(directory):
    """Tell whether somebody is left of the attempt who may still write its manifest."""
    lives = tree_lives(directory)
    return held_now() if lives is None else lives


def statuses(attempts, situation):
    """Return the status of the named attempts, or of the last 200 that no controller has acknowledged."""
    if attempts is None:
        held = {one for one, _ in held_attempts(situation)}
        attempts = [one for one in attempt_ids() if one in held or not os.path.exists(os.path.join(ATTEMPTS, one, "acked"))]
        found = [status for status in (status_of(one, situation) for one in attempts) if status["state"] != "refused"]
    else:
        found = [status_of(attempt, situation) for attempt in attempts]
    found.sort(key=lambda status: status.get("epoch") or 0)
    return found[-200:]


def verb_status(request, _stdin):
    """Answer the state of the named attempts, of all that no controller has acknowledged, or with `every` of all."""
    if request.get("every") is True:
        # Not beside a launch in progress: whoever asks for every attempt concludes from what is not there.
        with operation():
            situation = Situation()
            return host_status(situation, [status_of(one, situation) for one in attempt_ids()])
    situation = Situation()
    named = None if request.get("attempts") is None else texts(request, "attempts")
    return host_status(situation, statuses(named, situation))


def host_status(situation, attempts):
    return {
        "attempts": attempts,
        "lock": lock_facts(situation),
        "quarantine": quarantine(),
        "host_uid": host_identity()["host_uid"],
        "boot_id": boot_id(),
        "disk": disk_facts("~"),
    }


def verb_logs(request, stdin):
    """Answer a piece of the log from a byte offset on; with `wait_s`, block until there is more."""
    attempt = request.get("attempt")
    directory = attempt_directory(attempt)
    if not os.path.isdir(directory):
        raise Refusal("unknown-attempt", "this host has no attempt %s" % attempt)
    path, offset = os.path.join(directory, "log"), int(number(request, "offset", 0, 1 << 62))
    limit = int(number(request, "max_bytes", 65536, 1 << 20))
    deadline = time.monotonic() + number(request, "wait_s", 0, 300.0)
    while True:
        state = derive(attempt)[0]
        # After the state: what an ended eval printed is then in the size.
        size, _ = last_log_line(directory)
        if size > offset or state not in ("running", "starting") or time.monotonic() >= deadline:
            break
        changes = Changes(directory, stdin, IN_MODIFY, path if os.path.exists(path) else directory)
        if last_log_line(directory)[0] <= offset and not changes.wait(deadline - time.monotonic()):
            os._exit(0)
        changes.close()
    data = b""
    if size > offset:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(limit)
    return {"offset": offset, "data": base64.b64encode(data).decode(), "next": offset + len(data), "size": size, "state": state}


# ---------------------------------------------------------------- cancel, manifest, ack


def verb_cancel(request, stdin):
    """End an attempt's processes and containers, verify, and say what is left; idempotent."""
    attempt = request.get("attempt")
    directory = attempt_directory(attempt)
    grace_s = number(request, "grace_s", 30.0, 600.0)
    intent = read_json(os.path.join(directory, "spec.json"))
    if intent is None:
        with operation():
            # Its launch may be on the way; the operator is told that it never arrived.
            if not os.path.isdir(directory):
                forbid(attempt, "cancelled before it arrived")
        if not os.path.exists(os.path.join(directory, "spec.json")):
            raise Refusal("unknown-attempt", "this host has no attempt %s, and will start none" % attempt)
        return verb_cancel(request, stdin)
    if request.get("epoch") not in (None, intent["epoch"]):
        raise Refusal("stale-epoch", "attempt %s has epoch %s, not %s" % (attempt, intent["epoch"], request.get("epoch")))
    with operation():
        # Asked under the lock: a launch that was in progress has then started its eval, or never will.
        state, _ = derive(attempt)
        over = state in ("finished", "held", "lost", "refused")
        unstarted = state in ("accepted", "starting") and forbid(attempt, "cancelled before it started", cancelled=True)
        if not over and not unstarted:
            write_json(os.path.join(directory, "cancel.json"), {"at": now_iso(), "grace_s": grace_s})
    if not unstarted:
        await_end(attempt, directory, stdin, grace_s)
    cleanup = dict(intent["spec"].get("cleanup") or {}, processes="kill", containers="remove", grace_s=min(5.0, grace_s))
    swept, processes = sweep(attempt, None, cleanup)
    removed, containers, error = sweep_containers(directory, intent["spec"], cleanup)
    ended = os.path.join(directory, "rc.json")
    if not over and not processes and not os.path.exists(ended) and derive(attempt)[0] == "lost":
        write_json(ended, {"rc": None, "at": now_iso(), "cancelled": True, "reason": "cancelled; the exit code was lost"})
    note_left(directory, processes, containers, error)
    manifest = read_json(os.path.join(directory, "manifest.json"))
    if manifest is not None:
        swept += manifest["swept"]["processes"]
        removed = removed + manifest["swept"]["containers"]
        manifest["leftovers"] = {"processes": processes, "containers": containers, "error": error}
        write_json(os.path.join(directory, "manifest.json"), manifest)
    left = {"processes": processes, "containers": containers}
    if processes or containers:
        raise Refusal("held", "%d processes and %d containers could not be ended" % (len(processes), len(containers)), **left)
    if error:
        raise Refusal("held", "no process is left, but its containers cannot be verified: %s" % error, **left)
    state, _ = derive(attempt)
    if state in ("running", "starting"):
        raise Refusal("held", "the attempt is still %s after %.0f s" % (state, grace_s), **left)
    return {
        "outcome": "already-over" if over else "cancelled",
        "processes_ended": swept,
        "containers_removed": [one["name"] for one in removed],
        "processes_left": 0,
        "containers_left": 0,
        "status": status_of(attempt),
    }


def await_end(attempt, directory, stdin, grace_s):
    """Order the stop and block until the attempt has ended and is sealed, or its time is up."""
    changes = Changes(directory, stdin, IN_MOVED_TO | IN_CREATE)
    deadline, told = time.monotonic() + grace_s + 30.0, False
    while True:
        state = derive(attempt)[0]
        if state == "running" and not told:
            told = True
            if not stop_supervisor(directory):
                deadline = time.monotonic() + grace_s
        over = state not in ("running", "starting") and (sealed(directory) or not being_sealed(directory))
        left = deadline - time.monotonic()
        if over or left <= 0 or not changes.wait(min(2.0, left)):
            return


def sealed(directory):
    return os.path.exists(os.path.join(directory, "manifest.json"))


def stop_supervisor(directory):
    """Ask the supervisor to stop, else its runner; tell whether one was there. Without them the eval itself is asked."""
    started = read_json(os.path.join(directory, "started.json")) or {}
    fifo = os.path.join(os.path.realpath(directory), "alive")
    runners = [pid for pid in all_pids() if is_keeper(pid) and holds_fifo(pid, fifo)]
    for pid in runners:
        # One that was stopped would take note of no signal but this.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGCONT)
    if started.get("boot_id") == boot_id() and is_process(started.get("pid"), started.get("starttime")):
        os.kill(started["pid"], signal.SIGTERM)
        return True
    for pid in runners or members(os.path.basename(directory)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
    return bool(runners)


def verb_manifest(request, _stdin):
    """Answer the sealed manifest; an attempt whose supervisor was killed is sealed here, under the locks."""
    attempt = request.get("attempt")
    directory = attempt_directory(attempt)
    intent = read_json(os.path.join(directory, "spec.json"))
    if intent is None:
        raise Refusal("unknown-attempt", "this host has no attempt %s" % attempt)
    state, _ = derive(attempt)
    if not sealed(directory):
        if state not in ("finished", "lost"):
            raise Refusal("busy", "attempt %s is %s; its outputs are sealed when it has ended" % (attempt, state))
        with operation():
            lock = take_host()
            if lock is None:
                raise Refusal("busy", "the outputs of attempt %s are being sealed, or another eval runs" % attempt)
            try:
                seal(attempt, directory, intent, None)
            finally:
                os.close(lock)
    manifest = read_json(os.path.join(directory, "manifest.json"))
    if isinstance(manifest.get("skipped"), list):
        manifest["skipped"] = manifest["skipped"] + since_the_seal(manifest)
    answer = {"manifest": manifest, "status": status_of(attempt), "intent": public_intent(intent)}
    return dict(answer, log=log_tail(os.path.join(directory, "log")))


def since_the_seal(manifest):
    """Name the files that somebody has put among sealed outputs: they are left where they are, and said so."""
    # Only the attempt's own directories are sealed; in a shared one, later evals write what is theirs.
    if not str(manifest.get("root")).startswith(ATTEMPTS + "/"):
        return []
    # The eval may have written the manifest anew: whoever collects refuses that, and has to get to see it.
    listed = [one for name in ("files", "skipped") if isinstance(manifest.get(name), list) for one in manifest[name]]
    known = {one.get("path") for one in listed if isinstance(one, dict) and isinstance(one.get("path"), str)}
    found = sorted(os.path.relpath(path, manifest["root"]) for path, _ in walk(manifest["root"]))
    shown = [one.encode("utf-8", "backslashreplace").decode("utf-8")[:300] for one in found]
    return [{"path": one, "why": "written after the outputs were sealed"} for one in shown if one not in known][:100]


def log_tail(path, limit=1 << 20):
    """Return the end of a log with the manifest: a collector then needs no second question."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            offset = file.seek(max(0, size - limit))
            data = file.read(limit)
    except OSError:
        return {"offset": 0, "size": 0, "data": ""}
    return {"offset": offset, "size": size, "data": base64.b64encode(data).decode()}


def public_intent(intent):
    """What provenance may show of an intent: everything but the environment, which may hold keys."""
    spec = {name: value for name, value in intent["spec"].items() if name != "env"}
    return dict(intent, spec=spec)


def verb_find(request, _stdin):
    """List directories that hold a marker file of one of the instances; `own` names the attempt that wrote it, if one did."""
    root, marker = expand(text_of(request, "root")), request.get("marker", "output.jsonl")
    wanted = set(texts(request, "instance_ids"))
    sealed_here = sealed_outputs(marker)
    found = []
    for path, info in walk(root):
        if os.path.basename(path) != marker or not stat.S_ISREG(info.st_mode):
            continue
        ids = instance_ids(path)
        matching = sorted(ids & wanted) if wanted else sorted(ids - {"None"})
        for instance_id in matching[:100]:
            directory = os.path.dirname(path)
            sizes = [one.st_size for _, one in walk(directory)]
            found.append(
                {
                    "root": directory,
                    "instance_id": instance_id,
                    "mtime": info.st_mtime,
                    "rows": len(ids),
                    "files": len(sizes),
                    "bytes": sum(sizes),
                    "own": owner(sealed_here.get(os.path.realpath(directory)) or [], instance_id, path),
                }
            )
        if len(found) >= 5000:
            break
    return {"found": found}


def sealed_outputs(marker):
    """Return {directory: [(who wrote it, the digests of its marker file when it was sealed)]} of fleet's own attempts."""
    found = {}
    for attempt in attempt_ids():
        directory = os.path.join(ATTEMPTS, attempt)
        manifest = read_json(os.path.join(directory, "manifest.json")) or {}
        intent = read_json(os.path.join(directory, "spec.json")) or {}
        who = {"attempt": attempt, "batch": intent.get("batch"), "key": intent.get("key") or {}}
        digests = [one["sha256"] for one in manifest.get("files") or [] if one["path"] == marker]
        for root in (manifest.get("source"), os.path.join(directory, "out"), os.path.join(directory, "kept")):
            if root:
                found.setdefault(os.path.realpath(root), []).append((who, digests))
    return found


def owner(writers, instance_id, marker):
    """Return the last attempt of an instance that wrote into a directory whose marker file nobody changed since."""
    mine = [who for who, _ in writers if who["key"].get("instance_id") == instance_id]
    if not mine or sha256_of(marker) not in [digest for _, digests in writers for digest in digests]:
        return None
    return mine[-1]


def verb_manifest_of(request, _stdin):
    """List a directory that fleet did not write: path, size and sha256 of every regular file."""
    root = expand(text_of(request, "root"))
    if os.path.islink(root) or not os.path.isdir(root):
        raise Refusal("refused", "%s is not a directory" % root)
    manifest = list_files(root, request.get("limits") or {}, None, None)
    manifest.update(found_by="named by the operator", sealed_at=now_iso(), leftovers={"processes": [], "containers": []})
    return {"manifest": manifest}


def verb_ack(request, _stdin):
    """Note that the controller holds a verified copy; from here on retention may remove the host's."""
    directory = attempt_directory(request.get("attempt"))
    intent = read_json(os.path.join(directory, "spec.json"))
    if intent is None:
        raise Refusal("unknown-attempt", "this host has no such attempt")
    if request.get("epoch") != intent["epoch"]:
        raise Refusal("stale-epoch", "the attempt has epoch %s, not %s" % (intent["epoch"], request.get("epoch")))
    if derive(request["attempt"])[0] in ("running", "starting"):
        # An acknowledged attempt is no longer listed: one that still runs would be lost sight of.
        raise Refusal("busy", "the attempt has not ended")
    with operation():
        write_json(os.path.join(directory, "acked"), {"at": now_iso(), "verdict": request.get("verdict")})
        forget_environment(directory, intent)
    return {"acked": True}


def forget_environment(directory, intent):
    """Take the values of the eval's variables, which may be keys, out of the intent of an attempt that is over."""
    if intent["spec"].get("env"):
        write_json(os.path.join(directory, "spec.json"), dict(intent, spec=dict(intent["spec"], env={})))


# ---------------------------------------------------------------- quarantine


def quarantine():
    """Return why the host takes no new attempt, or None; a note that cannot be read holds it back all the same."""
    path = os.path.join(ROOT, "quarantine.json")
    if not os.path.lexists(path):
        return None
    return read_json(path) or {"at": None, "reason": "the note of its quarantine cannot be read"}


def verb_quarantine(request, _stdin):
    """Take no new attempt from anybody until a person releases the host; what runs goes on, and the first reason stands.

    `epoch` is that of the last attempt in the row. A row that was over when a person released the host is no reason any more:
    its order was under way meanwhile, or its controller has not heard of the release.
    """
    note = {"reason": text_of(request, "reason")[:2000], "tasks": texts(request, "tasks")[:100]}
    note.update({name: str(request.get(name) or "")[:200] for name in ("batch", "controller")})
    epoch = number(request, "epoch", float("inf"), float("inf"))
    with operation():
        if quarantine() is None and epoch > released_epoch():
            write_json(os.path.join(ROOT, "quarantine.json"), dict(note, at=now_iso()))
    return {"quarantine": quarantine()}


def verb_release(_request, _stdin):
    """Let the host take attempts again; says what had held it back."""
    with operation():
        held_back = quarantine()
        # First: an order that is under way must not find the host without either. A full disk holds no release up.
        with contextlib.suppress(OSError):
            _write_durably(os.path.join(ROOT, "released"), str(last_ended_epoch()).encode(), 0o600)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(ROOT, "quarantine.json"))
            sync_directory(ROOT)
    return {"released": held_back}


def released_epoch():
    """Return the epoch of the last attempt that was over when a person released the host, 0 when nobody did."""
    text = read_text(os.path.join(ROOT, "released")).strip()
    return int(text) if text.isdigit() else 0


def last_ended_epoch():
    """Return the highest epoch below that of every attempt that runs or may start: how those end is not known yet."""
    situation, ended, open_ended = Situation(), 0, float("inf")
    for attempt in attempt_ids():
        epoch = (read_json(os.path.join(ATTEMPTS, attempt, "spec.json")) or {}).get("epoch")
        if not isinstance(epoch, int):
            continue
        if derive(attempt, situation)[0] in ("accepted", "starting", "running"):
            open_ended = min(open_ended, epoch)
        else:
            ended = max(ended, epoch)
    return int(min(ended, open_ended - 1))


def prune():
    """Remove what was left unused for the retention: acknowledged outputs, notes of refusals, inputs, backups, agents.

    Nothing is removed that an attempt without an acknowledgement names, nor the last backup of a directory.
    """
    needed = set()
    for attempt in attempt_ids():
        directory = os.path.join(ATTEMPTS, attempt)
        marker = os.path.join(directory, "started.json")
        never = forbidden(read_json(marker))
        if never is not None and not never.get("cancelled"):
            if unused(marker):
                # At once: half removed, without its marker, it would look like an attempt that may start.
                with contextlib.suppress(OSError):
                    os.rename(directory, directory + ".new")
        elif not os.path.exists(os.path.join(directory, "acked")):
            intent = read_json(os.path.join(directory, "spec.json")) or {}
            needed.update((intent.get("spec") or {}).get("inputs") or {})
        elif unused(os.path.join(directory, "acked")):
            for name in ("out", "kept"):
                shutil.rmtree(os.path.join(directory, name), ignore_errors=True)
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(directory, "log"))
    for path in below(ATTEMPTS):
        if path.endswith(".new"):
            # Under ops.lock nobody is making one: a launch died over it, or a note of a refusal went above.
            shutil.rmtree(path, ignore_errors=True)
    mine = os.path.dirname(os.path.abspath(__file__))
    agents = [path for path in below(ROOT) if os.path.basename(path).startswith("agent-") and path != mine]
    inputs = [path for path in below(os.path.join(ROOT, "inputs")) if os.path.basename(path) not in needed]
    for path in agents + inputs + earlier_backups():
        if unused(path):
            shutil.rmtree(path, ignore_errors=True)


def unused(path):
    """Tell whether a file or directory was neither made nor used for the retention; False when it is not there."""
    try:
        return time.time() - os.stat(path).st_mtime > RETENTION_S
    except OSError:
        return False


def below(directory):
    """Return the paths of what is directly in a directory, [] when it is not there."""
    try:
        return [os.path.join(directory, name) for name in sorted(os.listdir(directory))]
    except OSError:
        return []


def earlier_backups():
    """Return the backups that are not the last one of their root that could still be rolled back."""
    earlier, roots = [], set()
    for path in reversed(below(os.path.join(ROOT, "backups"))):
        root = (read_json(os.path.join(path, "index.json")) or {}).get("root")
        if root in roots or os.path.exists(os.path.join(path, "restored")):
            earlier.append(path)
        else:
            roots.add(root)
    return earlier


# ---------------------------------------------------------------- files: inputs and sync


def input_path(sha, name):
    if not re.match(r"[0-9a-f]{64}\Z", sha) or not PATH_PART.match(name) or name in (".", ".."):
        raise Refusal("bad-request", "not an input name: %r" % (name,))
    return os.path.join(ROOT, "inputs", sha, name)


def verb_stage(request, stdin):
    """Store input files under their digest; asks for the bodies that are not here yet."""
    files = objects(request, "files", {"sha256": str, "name": str, "size": int})
    paths = {}
    missing = []
    for one in files:
        path = input_path(one["sha256"], one["name"])
        paths[one["sha256"]] = path
        with contextlib.suppress(OSError):
            os.utime(os.path.dirname(path))  # used now: retention counts from here
        if not os.path.isfile(path) or sha256_of(path) != one["sha256"]:
            missing.append(one)
    bodies = ask_bodies(request, stdin, missing)
    for one in missing:
        path = paths[one["sha256"]]
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        write_durably(path, bodies[one["sha256"]])
    return {"paths": paths, "stored": len(missing)}


def ask_bodies(request, stdin, files):
    """Ask the controller for file bodies on the same channel and return them by digest, verified."""
    if not files:
        return {}
    unique = {one["sha256"]: int(one["size"]) for one in files}
    send(request["nonce"], {"need": [{"sha256": sha, "size": size} for sha, size in unique.items()]})
    bodies = {}
    for sha, size in unique.items():
        if not 0 <= size <= 256 << 20:
            raise Refusal("bad-request", "a file of %d bytes is not sent this way" % size)
        body = stdin.read(size)
        if len(body) != size or hashlib.sha256(body).hexdigest() != sha:
            raise Refusal("bad-request", "the body of %s did not arrive whole" % sha)
        bodies[sha] = body
    return bodies


def inside(root, relative):
    """Return the path of `relative` below `root`, refusing one that a link would lead out of it."""
    if not safe_relative(relative):
        raise Refusal("bad-request", "not a relative path: %r" % (relative,))
    path = os.path.join(root, relative)
    parent = os.path.realpath(os.path.dirname(path))
    if parent != os.path.realpath(root) and not parent.startswith(os.path.realpath(root) + "/"):
        raise Refusal("refused", "%s leads out of %s" % (relative, root))
    return path


def verb_sync(request, stdin):
    """Bring files below a root to given contents: compare, back up, write atomically, verify. Refused while an eval runs."""
    root = expand(text_of(request, "root"))
    files = objects(request, "files", {"path": str, "sha256": str, "size": int, "mode": int})
    changed, unchanged = differing(root, files)
    backup = None
    if changed and not request.get("dry_run"):
        # Asked for before the host is held: a controller that stops in the middle of sending must not hold it.
        if held_now():
            refuse_busy()
        bodies = ask_bodies(request, stdin, files_once(changed))
        with idle_host(request):
            changed, unchanged = differing(root, [one for one in files if one["sha256"] in bodies])
            unchanged = [one["path"] for one in files if one["path"] not in {other["path"] for other in changed}]
            backup = back_up(root, changed)
            for one in changed:
                path = inside(root, one["path"])
                os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
                write_durably(path, bodies[one["sha256"]], one["mode"] & 0o777)
                if sha256_of(path) != one["sha256"]:
                    raise Refusal("internal", "%s does not hold what was written" % one["path"])
    listed = [{"path": one["path"], "before": one["before"], "after": one["sha256"]} for one in changed]
    return {"changed": listed, "unchanged": unchanged, "backup": backup}


def differing(root, files):
    """Return (entries that differ, with what is there before; paths that do not)."""
    changed, unchanged = [], []
    for one in files:
        path = inside(root, one["path"])
        facts = file_facts(path)
        if facts["error"] is not None:
            raise Refusal("refused", "%s: %s" % (one["path"], facts["error"]))
        if facts["sha256"] == one["sha256"] and facts["mode"] == one["mode"] and not os.path.islink(path):
            unchanged.append(one["path"])
        else:
            changed.append(dict(one, before=facts["sha256"], before_mode=facts["mode"]))
    return changed, unchanged


def files_once(files):
    return list({one["sha256"]: one for one in files}.values())


@contextlib.contextmanager
def idle_host(request):
    """Hold the host against evals while its files change."""
    with operation():
        lock = take_host()
        if lock is None:
            refuse_busy()
        try:
            foreign = foreign_processes(texts(request, "processes"))
            if foreign:
                raise Refusal(
                    "busy", "an eval that fleet did not start is running: pid %d" % foreign[0]["pid"], processes=foreign
                )
            yield
        finally:
            os.close(lock)


def back_up(root, changed):
    # To the nanosecond: the last of several syncs within a second must be the first to be rolled back.
    now = time.time_ns()
    identity = "%s-%09d" % (time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now // 10**9)), now % 10**9)
    directory = os.path.join(ROOT, "backups", identity)
    os.makedirs(directory, 0o700)
    index = []
    for number, one in enumerate(changed):
        entry = {"path": one["path"], "stored": None, "mode": one["before_mode"]}
        if one["before"] is not None:
            with open(inside(root, one["path"]), "rb") as file:
                write_durably(os.path.join(directory, "%d" % number), file.read())
            entry["stored"] = "%d" % number
        index.append(entry)
    write_json(os.path.join(directory, "index.json"), {"root": root, "files": index, "at": now_iso()})
    return identity


def verb_rollback(request, _stdin):
    """Put back what a sync replaced: the named backup, or the last one of this root that was not rolled back yet."""
    root = expand(text_of(request, "root"))
    base = os.path.join(ROOT, "backups")
    wanted = request.get("backup")
    names = sorted(os.listdir(base), reverse=True) if os.path.isdir(base) else []
    for name in names:
        index = read_json(os.path.join(base, name, "index.json"))
        if index is None or index["root"] != root or (wanted and name != wanted):
            continue
        if not wanted and os.path.exists(os.path.join(base, name, "restored")):
            continue
        restored, removed = [], []
        with idle_host(request):
            for entry in index["files"]:
                path = inside(root, entry["path"])
                if entry["stored"] is None:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)
                    removed.append(entry["path"])
                    continue
                with open(os.path.join(base, name, entry["stored"]), "rb") as file:
                    write_durably(path, file.read(), entry["mode"])
                restored.append(entry["path"])
            write_durably(os.path.join(base, name, "restored"), b"")
        return {"backup": name, "restored": restored, "removed": removed}
    raise Refusal("refused", "no backup %sto roll back to" % (wanted + " " if wanted else ""))


# ---------------------------------------------------------------- entry


VERBS = {
    "probe": (verb_probe, "questions"),
    "launch": (verb_launch, "attempt key spec spec_sha256 after batch controller"),
    "wait": (verb_wait, "attempt beat_s max_s progress_s"),
    "status": (verb_status, "attempts every"),
    "logs": (verb_logs, "attempt offset max_bytes wait_s"),
    "cancel": (verb_cancel, "attempt epoch grace_s"),
    "withdraw": (verb_withdraw, "attempt reason"),
    "manifest": (verb_manifest, "attempt"),
    "manifest_of": (verb_manifest_of, "root limits"),
    "find": (verb_find, "root marker instance_ids"),
    "ack": (verb_ack, "attempt epoch verdict"),
    "quarantine": (verb_quarantine, "reason tasks batch controller epoch"),
    "release": (verb_release, ""),
    "stage": (verb_stage, "files"),
    "sync": (verb_sync, "root files dry_run processes"),
    "rollback": (verb_rollback, "root backup processes"),
}
ENVELOPE = {"verb", "protocol", "nonce", "agent", "agent_size", "umask", "host_uid"}


def send(nonce, document):
    sys.stdout.write("<<%s %s>>\n" % (nonce, json.dumps(document)))
    sys.stdout.flush()


def main(request, stdin):
    """Carry out one request that the bootstrap has read; every outcome is a frame."""
    global LOGIN_UMASK
    os.umask(0o077)
    nonce = request.get("nonce", "")
    if not re.match(r"[0-9a-f]{32}\Z", str(nonce)):
        sys.exit(2)
    try:
        if request.get("protocol") != PROTOCOL:
            raise Refusal("protocol", "this agent speaks protocol %d, the controller %r" % (PROTOCOL, request.get("protocol")))
        verb, keys = VERBS.get(str(request.get("verb")), (None, ""))
        if verb is None:
            raise Refusal("bad-request", "no verb %r" % (request.get("verb"),))
        unknown = sorted(set(request) - ENVELOPE - set(keys.split()))
        if unknown:
            raise Refusal("bad-request", "%s knows no %s" % (request["verb"], ", ".join(unknown)[:200]))
        if isinstance(request.get("umask"), int):
            LOGIN_UMASK = request["umask"] & 0o777
        open_root()
        if request.get("host_uid") not in (None, host_identity()["host_uid"]):
            raise Refusal("another-machine", "another machine answers under this name (its fleet host id is another)")
        send(nonce, dict(verb(request, stdin), ok=True))
    except Refusal as refusal:
        send(nonce, {"ok": False, "error": {"code": refusal.code, "message": refusal.message, "detail": refusal.detail}})
    except BrokenPipeError:
        os._exit(1)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
        text = "%s%s" % (error.strerror, ": %s" % error.filename if error.filename else "")
        failure = {"code": "not-ready" if full else "internal", "message": "the host's disk: %s" % text if full else text}
        send(nonce, {"ok": False, "error": dict(failure, detail={})})
    except Exception as error:
        where = sys.exc_info()[2]
        while where.tb_next is not None:
            where = where.tb_next
        text = "%s: %s (line %d)" % (type(error).__name__, error, where.tb_lineno)
        send(nonce, {"ok": False, "error": {"code": "internal", "message": text, "detail": {}}})
