"""Every safe default of the SSH layer, in one place, each with the reason why the library's own does not do.

| point                | library default                        | here                                              |
|----------------------|----------------------------------------|---------------------------------------------------|
| connect              | no timeout; the kernel gives up after 2 min | `connect_timeout` for all addresses of a name together |
| banner, auth         | 15 s, 30 s                             | `banner_timeout`, `auth_timeout`                  |
| open a channel       | 3600 s                                 | CHANNEL_OPEN_S                                    |
| dead peer            | never noticed                          | `dead_after`: kernel keepalive, or `alive()`      |
| waiting              | polls its socket every 0.1 s           | IDLE_RECEIVE_S; closing wakes it                  |
| host keys            | accepted unseen (fabric)               | pinned types only, refused before authentication  |
| stderr               | fills the window, then all stands still | drained, a bounded tail kept                      |
"""

from __future__ import annotations

import socket
import sys

CHANNEL_OPEN_S = 20.0
SEND_STALL_S = 60.0
"""A remote command that does not read its stdin for this long is given up."""
IDLE_RECEIVE_S = 3600.0
"""How long a connection's thread sleeps in the kernel; 0.1 s costs 3.4 % of a core for 100 idle connections, this 0.08 %."""
STDERR_TAIL = 8 * 1024
RECEIVE_CHUNK = 256 * 1024
OPENINGS_IN_FLIGHT = 100
"""Latency decides at a distance: 100 hosts at 100 ms take 10 s with 16 openings at once, 3.3 s with 100."""
OPEN_ATTEMPTS = 4
"""sshd drops connections at random above MaxStartups; such a drop is tried again, with jitter."""
RETRY_BASE_S = 0.25
MAX_KEYS_OFFERED = 5
"""sshd's MaxAuthTries is 6."""

KEX = (
    "curve25519-sha256@libssh.org",
    "mlkem768x25519-sha256",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group14-sha256",
)
"""curve25519 first: a handshake costs 3 ms of CPU with it, and ssh's default costs 85."""
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr", "aes192-ctr")
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")
HOST_KEY_ALGORITHMS: dict[str, tuple[str, ...]] = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}
"""Key type in known_hosts → signature algorithms that may prove it, in order of preference; nothing with SHA-1."""

_KEEPALIVE_PROBES = 3


def tune(connection: socket.socket, dead_after_s: float) -> None:
    """Set on a TCP connection what lets the kernel notice a dead peer in time, and sends small packets at once.

    With 15 s the kernel probes after 5 s of silence and then every 3 s, and gives up at the first probe after 12 s.
    """
    idle_s, interval_s = max(1, int(dead_after_s / 3)), max(1, int(dead_after_s / 5))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(dead_after_s * 800))
    elif hasattr(socket, "TCP_KEEPALIVE"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPALIVE, idle_s)
    for option, value in (("TCP_KEEPINTVL", interval_s), ("TCP_KEEPCNT", _KEEPALIVE_PROBES)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


OPENSSH_OPTIONS: tuple[str, ...] = (
    "BatchMode yes",
    "StrictHostKeyChecking yes",
    "GlobalKnownHostsFile /dev/null",
    "UpdateHostKeys no",
    "VerifyHostKeyDNS no",
    "CheckHostIP no",
    "IdentitiesOnly yes",
    "PreferredAuthentications publickey",
    "PasswordAuthentication no",
    "KbdInteractiveAuthentication no",
    "ForwardAgent no",
    "ForwardX11 no",
    "ClearAllForwardings yes",
    "PermitLocalCommand no",
    "ControlMaster no",
    "ControlPath none",
    "RequestTTY no",
    "EscapeChar none",
    "Compression no",
    "ConnectionAttempts 1",
    "TCPKeepAlive yes",
    "KexAlgorithms ^curve25519-sha256,curve25519-sha256@libssh.org",
    "Ciphers ^aes128-gcm@openssh.com",
    "LogLevel ERROR",
)
"""For the ssh that rsync runs: the same rules, so that both ways to a host trust the same key and nothing else."""

RSYNC_IO_TIMEOUT_S = 60
RSYNC_LARGE_FILE = 256 << 20
"""From this size of the largest file on nothing is compressed."""
RSYNC_OLDEST = (3, 2, 6)
"""The first with --secluded-args, --fsync and a check of the sender's file list."""
RSYNC_FIXED = (3, 5, 0)
"""33 vulnerabilities were closed here; distributions carry some of the fixes back, so older is a warning."""
