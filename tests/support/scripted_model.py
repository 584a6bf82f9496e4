"""An OpenAI-compatible server that plays a script over real HTTP; standard library only, so it also runs on a test host.

A script is {model: [step, …]}; each request for a model takes its next step, and the last one is repeated:

    {"say": "text", "calls": [{"name": …, "arguments": {…} or text, "id": …}], "usage": [100, 10] or null, "reason": "stop"}
    {"status": 429, "retry_after": 1, "body": {…}}        an error
    {"cut": true, "say": …}                               the connection ends in the middle of the answer
    {"trickle": 30}                                       a byte now and then for so many seconds, and never an answer
    {"raw": "text"}                                       200 and something else
    "expect": "words"                                     in any step: the last message must hold them, or the answer is 599
    "echo_key": true                                      what was sent as the key comes back in what the model says

As a program: python3 scripted_model.py SCRIPT PORT_FILE LOG
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Script:
    """The steps of every model, and the requests that were made."""

    def __init__(self, steps: dict[str, list[dict[str, Any]]], log: Path | None = None) -> None:
        self.steps = steps
        self.requests: list[dict[str, Any]] = []
        self._log = log
        self._next: dict[str, int] = {}
        self._lock = threading.Lock()

    def take(self, request: dict[str, Any]) -> dict[str, Any]:
        """Note a request and return the step that answers it."""
        model = request["body"]["model"]
        with self._lock:
            self.requests.append(request)
            if self._log is not None:
                with self._log.open("a") as file:
                    file.write(json.dumps(request) + "\n")
            number = self._next.get(model, 0)
            self._next[model] = number + 1
        steps = self.steps[model]
        step = steps[min(number, len(steps) - 1)]
        last = json.dumps(request["body"]["messages"][-1])
        if step.get("expect", "") not in last:
            return {"status": 599, "body": {"error": {"message": f"step {number}: {step['expect']!r} is not in {last[:2000]}"}}}
        return step


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Script

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        step = self.script.take({"path": self.path, "key": key, "body": body, "t": time.time()})
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._play(step, body, key)

    def _play(self, step: dict[str, Any], body: dict[str, Any], key: str) -> None:
        if "status" in step:
            headers = {"Retry-After": str(step["retry_after"])} if "retry_after" in step else {}
            answer = step.get("body", {"error": {"message": f"status {step['status']}"}})
            self._whole(step["status"], json.dumps(answer).replace("KEY", key), headers)
        elif "raw" in step:
            self._whole(200, step["raw"], {})
        elif step.get("trickle"):
            self._begin()
            for _ in range(int(step["trickle"] * 10)):
                self._chunk(": still here\n\n")
                time.sleep(0.1)
        elif body.get("stream"):
            self._stream(step, body, key)
        else:
            self._answer(step, body, key)

    def _answer(self, step: dict[str, Any], body: dict[str, Any], key: str) -> None:
        message = {"role": "assistant", "content": said(step, key), "tool_calls": calls(step) or None}
        choice = {"index": 0, "message": message, "finish_reason": reason(step)}
        document = {"id": "a", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
        usage = step.get("usage", [100, 10])
        whole = json.dumps({**document, **({"usage": shown_usage(usage)} if usage else {})})
        if step.get("cut"):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole[:20].encode())
            self._hang_up()
        else:
            self._whole(200, whole, {})

    def _stream(self, step: dict[str, Any], body: dict[str, Any], key: str) -> None:
        self._begin()
        text = said(step, key) or ""
        pieces: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        pieces += [{"content": text[at : at + 7]} for at in range(0, len(text), 7)]
        for index, call in enumerate(calls(step)):
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            first = {"index": index, "id": call["id"], "type": "function", "function": {"name": name, "arguments": ""}}
            pieces.append({"tool_calls": [first]})
            for at in range(0, len(arguments), 50):
                pieces.append({"tool_calls": [{"index": index, "function": {"arguments": arguments[at : at + 50]}}]})
        for piece in pieces[: len(pieces) // 2] if step.get("cut") else pieces:
            self._event(body, [{"index": 0, "delta": piece, "finish_reason": None}])
        if step.get("cut"):
            self._hang_up()
            return
        self._event(body, [{"index": 0, "delta": {}, "finish_reason": reason(step)}])
        usage = step.get("usage", [100, 10])
        if usage and (body.get("stream_options") or {}).get("include_usage"):
            self._event(body, [], usage=shown_usage(usage))
        self._chunk("data: [DONE]\n\n")
        self._chunk("")

    def _event(self, body: dict[str, Any], choices: list[Any], **more: Any) -> None:
        event = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": body["model"], "choices": choices, **more}
        self._chunk(f"data: {json.dumps(event)}\n\n")

    def _begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _whole(self, status: int, text: str, headers: dict[str, str]) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


def said(step: dict[str, Any], key: str) -> str | None:
    """Return what the model says in a step."""
    return f"{step.get('say', '')} {key}" if step.get("echo_key") else step.get("say")


def calls(step: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tool calls of a step as the API writes them."""
    made = []
    for number, call in enumerate(step.get("calls", ())):
        given = call.get("arguments", {})
        function = {"name": call["name"], "arguments": given if isinstance(given, str) else json.dumps(given)}
        made.append({"id": call.get("id", f"c{number}"), "type": "function", "function": function})
    return made


def reason(step: dict[str, Any]) -> str:
    """Return why the answer ended."""
    found: str = step.get("reason", "tool_calls" if step.get("calls") else "stop")
    return found


def shown_usage(usage: list[int]) -> dict[str, int]:
    """Return a usage as the API writes it."""
    return {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}


class _Server(ThreadingHTTPServer):
    daemon_threads = True


def _listen(script: Script) -> _Server:
    return _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"script": script}))


@contextlib.contextmanager
def scripted_model(**steps: list[dict[str, Any]]) -> Iterator[tuple[str, Script]]:
    """Yield the base URL of a server in this process, and the script with the requests that were made."""
    script = Script(steps)
    server = _listen(script)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", script
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def main(script: str, port_file: str, log: str) -> None:
    """Play a script until the process is ended."""
    server = _listen(Script(json.loads(Path(script).read_text()), Path(log)))
    Path(port_file).write_text(str(server.server_port))
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
