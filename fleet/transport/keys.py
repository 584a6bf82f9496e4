"""Logging in: the identity files of a hop, then ssh-agent. Never a password, never a prompt."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.errors import AuthFailed, TransportError, Unreachable
from fleet.model.hosts import Hop
from fleet.model.names import visible
from fleet.transport import limits
from fleet.transport.library import Agent, AgentKey, UnknownKeyType, paramiko
from fleet.transport.wire import Wire


@dataclass(frozen=True)
class Credential:
    """The key that let us in; rsync's ssh is told to offer exactly this one."""

    identity_file: Path | None
    public_line: str
    """The public key, for one that only ssh-agent holds."""


@dataclass(frozen=True)
class _Problem:
    text: str
    fix: str


class _SharedAgent(Agent):
    """One conversation with ssh-agent for all connections; paramiko's would mix up two signatures asked for at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        super().__init__()

    def _send_message(self, msg: Any) -> Any:
        with self._lock:
            send: Any = super()._send_message  # type: ignore[misc]
            return send(msg)


class Keyring:
    """The private keys of this process: every file is read once, ssh-agent is asked once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[Path, tuple[tuple[int, ...], paramiko.PKey | _Problem]] = {}
        self._agent: _SharedAgent | None = None

    def close(self) -> None:
        """Let ssh-agent go."""
        with self._lock:
            if self._agent is not None:
                self._agent.close()
                self._agent = None

    def login(self, wire: Wire, hop: Hop, host: str, timeout_s: float) -> Credential:
        """Authenticate `wire` as the hop's user; raises AuthFailed with what was tried and what to change."""
        problems: list[_Problem] = []
        tried: list[str] = []
        wire.auth_timeout = timeout_s
        for label, key, credential in self._candidates(hop, problems):
            if len(tried) == limits.MAX_KEYS_OFFERED:
                problems.append(_Problem("more keys are left, sshd would cut the connection", "set identity_file"))
                break
            tried.append(label)
            if self._accepted(wire, hop, host, key):
                return credential
        who = f"{hop.user}@{hop.address}"
        if not tried and not problems:
            problems.append(_no_key(hop))
        offered = f"{who} refuses {', '.join(tried)}" if tried else f"there is no key to offer to {who}"
        details = "".join(f"; {problem.text}" for problem in problems)
        named = str(hop.identity_files[0]) if hop.identity_files else "KEY"
        copy = f"ssh-copy-id -i {named} -p {hop.port} {who}, or set identity_file in hosts.yaml"
        fix = problems[0].fix if problems else copy
        raise AuthFailed(f"{host}: {offered}{details}", hint=fix, host=host)

    def _accepted(self, wire: Wire, hop: Hop, host: str, key: Any) -> bool:
        try:
            return not wire.auth_publickey(hop.user, key)
        except paramiko.BadAuthenticationType as error:
            allowed = ", ".join(error.allowed_types)
            raise AuthFailed(
                f"{host}: {hop.address} does not take keys, only {allowed}",
                hint="set PubkeyAuthentication yes there",
                host=host,
            ) from None
        except paramiko.AuthenticationException as error:
            if wire.is_active() and "timeout" not in str(error).lower():
                return False
            if "timeout" in str(error).lower():
                text = f"{host}: the login at {hop.address} did not answer within {wire.auth_timeout:.0f} s"
                raise Unreachable(text, hint="is the machine overloaded, or its home directory hung?", host=host) from None
            raise _hung_up(wire, hop, host) from None
        except (paramiko.SSHException, EOFError, OSError):
            raise _hung_up(wire, hop, host) from None

    def _candidates(self, hop: Hop, problems: list[_Problem]) -> Iterator[tuple[str, Any, Credential]]:
        seen: set[bytes] = set()
        for path in hop.identity_files:
            loaded = self._load(path)
            if isinstance(loaded, _Problem):
                problems.append(loaded)
            elif loaded.asbytes() not in seen:
                seen.add(loaded.asbytes())
                yield str(path), loaded, Credential(path, "")
        wanted = {blob for path in hop.identity_files if (blob := _public_blob(path)) is not None}
        for key in self._agent_keys():
            if key.asbytes() in seen or (hop.identities_only and key.asbytes() not in wanted):
                continue
            line = f"{key.get_name()} {key.get_base64()}\n"
            yield f"the agent's {key.fingerprint}", key, Credential(None, line)

    def _agent_keys(self) -> tuple[AgentKey, ...]:
        with self._lock:
            if self._agent is None:
                try:
                    self._agent = _SharedAgent()
                except (paramiko.SSHException, OSError):
                    return ()
            return tuple(self._agent.get_keys())

    def _load(self, path: Path) -> paramiko.PKey | _Problem:
        try:
            found = path.stat()
        except OSError as error:
            return _Problem(f"{path}: {error.strerror}", f"ls -l {path}, or set identity_file in hosts.yaml")
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode)
        with self._lock:
            if path not in self._files or self._files[path][0] != stamp:
                self._files[path] = (stamp, _read(path, found))
            return self._files[path][1]


def _hung_up(wire: Wire, hop: Hop, host: str) -> TransportError:
    """Tell a server that had enough of us from a link that broke."""
    text = f"{host}: {hop.address} closed the connection during the login as {hop.user}"
    if wire.dismissed:
        return AuthFailed(text, hint="too many keys? set identity_file", host=host)
    hint = f"run the command again; if it stays: ssh -v -p {hop.port} {hop.user}@{hop.address}"
    return Unreachable(text, hint=hint, host=host)


def _no_key(hop: Hop) -> _Problem:
    """Say why there is not even a key to try."""
    socket = os.environ.get("SSH_AUTH_SOCK")
    agent = (
        f"the agent at {visible(socket, 200)} holds none" if socket else "no ssh-agent is running (SSH_AUTH_SOCK is not set)"
    )
    return _Problem(
        f"no identity file is set for {hop.address}, and {agent}", "ssh-add KEY, or set identity_file in hosts.yaml"
    )


def _read(path: Path, found: os.stat_result) -> paramiko.PKey | _Problem:
    if found.st_mode & 0o077 and found.st_uid == os.getuid():
        return _Problem(f"{path}: mode {found.st_mode & 0o777:04o}, others can read it", f"chmod 600 {path}")
    try:
        key: paramiko.PKey = paramiko.PKey.from_path(path)
    except (TypeError, paramiko.PasswordRequiredException):
        return _Problem(f"{path}: needs its passphrase", f"ssh-add {path}")
    except PermissionError:
        return _Problem(f"{path}: cannot be read by you", f"ls -l {path}")
    except (OSError, ValueError, paramiko.SSHException, UnknownKeyType):
        return _Problem(f"{path}: is not a private key that can be used", f"ssh-keygen -y -f {path}")
    return key


def _public_blob(path: Path) -> bytes | None:
    """Return the public half of an identity file that the agent may hold, from the file beside it."""
    try:
        fields = path.with_name(path.name + ".pub").read_text("ascii").split()
        return paramiko.PKey.from_type_string(fields[0], base64.b64decode(fields[1], validate=True)).asbytes()
    except (OSError, ValueError, IndexError, paramiko.SSHException, UnknownKeyType):
        return None
