"""paramiko's connection with the defaults that a fleet needs: see limits.py for what differs and why."""

from __future__ import annotations

import collections
import contextlib
import socket
import threading
import time
from typing import Any

from fleet.transport import limits
from fleet.transport.library import (
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_REQUEST_FAILURE,
    MSG_REQUEST_SUCCESS,
    Message,
    Packetizer,
    cMSG_CHANNEL_REQUEST,
    cMSG_CHANNEL_WINDOW_ADJUST,
    cMSG_GLOBAL_REQUEST,
    paramiko,
)


class _Packetizer(Packetizer):
    """No timer thread per handshake: Wire.handshake has the deadline."""

    def start_handshake(self, timeout: float) -> None:
        """Do nothing."""

    def complete_handshake(self) -> None:
        """Do nothing."""


class Wire(paramiko.Transport):
    """One SSH connection; `host_key_algorithms` is all it lets the server prove itself with."""

    _active_check_timeout = limits.IDLE_RECEIVE_S
    _preferred_kex = limits.KEX
    _preferred_ciphers = limits.CIPHERS
    _preferred_macs = limits.MACS

    _handler_table: dict[int, Any]
    _channel_handler_table: dict[int, Any]

    def __init__(self, sock: Any, host_key_algorithms: tuple[str, ...]) -> None:
        super().__init__(sock, packetizer_class=_Packetizer)
        self._algorithms = host_key_algorithms
        self._replies: collections.deque[threading.Event] = collections.deque()
        self._replies_lock = threading.Lock()
        self.dismissed = False
        """The server said goodbye, as it does after too many keys; a link that breaks says nothing."""
        self.channel_timeout = limits.CHANNEL_OPEN_S
        self._handler_table = {
            **self._handler_table,
            MSG_REQUEST_SUCCESS: self._replied,
            MSG_REQUEST_FAILURE: self._replied,
        }
        self._channel_handler_table = {**self._channel_handler_table, MSG_CHANNEL_EXTENDED_DATA: _keep_stderr}

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """The algorithms offered for the host key: pinned types only, so that a server cannot choose a weaker one."""
        return self._algorithms

    def handshake(self, banner_s: float, exchange_s: float) -> None:
        """Exchange keys; raises TimeoutError, or what ended the connection (EOFError, OSError, SSHException)."""
        done = threading.Event()
        self.start_client(event=done)
        if not done.wait(banner_s) and (not self.remote_version or not done.wait(exchange_s)):
            self.cut()
            raise TimeoutError
        if not self.is_active():
            raise self.get_exception() or EOFError()

    def execute(self, command: str) -> paramiko.Channel:
        """Start `command` on a new channel without waiting for "started": that saves a round trip per command.

        A refusal shows as a channel that ends with no output and no exit status.
        """
        channel = self.open_session(timeout=limits.CHANNEL_OPEN_S)
        message = Message()
        message.add_byte(cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        message.add_string("exec")
        message.add_boolean(True)
        message.add_string(command)
        self._say(message)
        return channel

    def get_exception(self) -> Exception | None:
        """Return and forget what ended the connection: an EOFError, an OSError, or an SSHException.

        A changed or hostile packet makes paramiko's thread fail with whatever its parsers and ciphers raise; that is the
        link's fault, and must not pass for one of ours.
        """
        error: Exception | None = super().get_exception()
        if error is None or isinstance(error, EOFError | OSError | paramiko.SSHException):
            return error
        return paramiko.SSHException(f"a packet arrived broken ({type(error).__name__})")

    def answers(self, timeout_s: float) -> bool:
        """Tell whether the server replies to keepalive@openssh.com in time; cuts the connection when it does not.

        paramiko's own keepalive asks for no reply and therefore notices nothing.
        """
        if not self.is_active():
            return False
        deadline = time.monotonic() + timeout_s
        reply = threading.Event()
        # A send can block for good on a full socket, so the deadline is also kept from outside.
        guard = threading.Timer(timeout_s, self.cut)
        guard.daemon = True
        guard.start()
        try:
            with self._replies_lock:
                self._replies.append(reply)
                message = Message()
                message.add_byte(cMSG_GLOBAL_REQUEST)
                message.add_string("keepalive@openssh.com")
                message.add_boolean(True)
                self._say(message)
            while not reply.wait(min(0.5, max(0.0, deadline - time.monotonic()))):
                if time.monotonic() >= deadline or not self.is_active():
                    self.cut()
                    return False
        except (OSError, EOFError, paramiko.SSHException):
            self.cut()
            return False
        finally:
            guard.cancel()
        return True

    def _say(self, message: Message) -> None:
        send: Any = getattr(self, "_send_user_message")  # noqa: B009  (not in the type stubs)
        send(message)

    def _parse_disconnect(self, message: Message) -> None:
        self.dismissed = True
        super()._parse_disconnect(message)  # type: ignore[misc]

    def _replied(self, _message: Any) -> None:
        with contextlib.suppress(IndexError):
            self._replies.popleft().set()

    def cut(self) -> None:
        """Close at once: shutting the socket down wakes the thread that sleeps in it, closing alone would not."""
        if isinstance(self.sock, socket.socket):
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
        else:
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                self.sock.close()
        self.close()
        if self.is_alive() and threading.current_thread() is not self:
            self.join(1.0)


def _keep_stderr(channel: Any, message: Any) -> None:
    """Take stderr out of the stream as it comes and keep its tail.

    paramiko buffers it until somebody reads: 5 MB of warnings fill the window and stdout stands still for ever.
    """
    message.get_int()
    data = message.get_binary()
    tail: bytearray = channel.__dict__.setdefault("fleet_stderr", bytearray())
    tail += data
    del tail[: -limits.STDERR_TAIL]
    wire = channel.transport
    # While keys are renegotiated this thread must not wait to send; the next chunk makes up for it.
    if not wire.clear_to_send.is_set():
        with channel.lock:
            channel.in_window_sofar += len(data)
        return
    room = channel._check_add_window(len(data))
    if room > 0:
        adjust = Message()
        adjust.add_byte(cMSG_CHANNEL_WINDOW_ADJUST)
        adjust.add_int(channel.remote_chanid)
        adjust.add_int(room)
        wire._say(adjust)
