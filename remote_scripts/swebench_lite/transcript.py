"""What an agent did, written as it happens: transcript.jsonl, one line per event, and one file per call of the model.

`history` is the same as OpenHands writes it: event dicts, an observation naming the action that it answers. Nothing is written
that was not cleaned of the provider's key first.
"""

import json
import os
import time

# OpenHands' own words for what a tool does; an action and its observation carry the same one.
KINDS = {"swe_read": "read", "swe_list": "read", "swe_search": "run", "swe_apply_patch": "edit", "swe_submit": "finish"}
MAX_TEXT = 200000


class Transcript:
    """The record of one agent's run, below `directory`."""

    def __init__(self, directory, task_id, key):
        self.history = []
        self._key = key
        self._calls = 0
        self._completions = directory / "llm_completions" / task_id
        self._completions.mkdir(parents=True, exist_ok=True)
        self._file = open(str(directory / "transcript.jsonl"), "a", encoding="utf-8", errors="replace")

    def note(self, kind, **fields):
        """Write one event; a reader sees it at once, and a run that is killed leaves all before it."""
        event = dict({"t": round(time.time(), 3), "type": kind}, **fields)
        self._file.write(self._key.clean(json.dumps(event)) + "\n")
        self._file.flush()

    def call(self, messages, answer, usage, seconds, cost):
        """Keep one call of the model whole, as OpenHands does."""
        self._calls += 1
        body = {"messages": messages, "response": answer, "usage": usage, "cost": cost}
        body.update(latency=round(seconds, 3), timestamp=time.time())
        path = self._completions / ("%04d.json" % self._calls)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(self._key.clean(json.dumps(body)), encoding="utf-8", errors="replace")
        os.replace(str(temporary), str(path))

    def said(self, source, text):
        """Add a message to the history."""
        self._event(source, action="message", args={"content": text[:MAX_TEXT]}, message=text[:500])

    def used(self, name, arguments, thought, result):
        """Add a tool call and what it answered to the history."""
        kind = KINDS.get(name, "run")
        args = {"command": name, "thought": thought, "arguments": arguments[:MAX_TEXT]}
        self._event("agent", action=kind, args=args, message=thought[:500] or name)
        cause = len(self.history) - 1
        self._event("agent", observation=kind, cause=cause, content=result, extras={"tool": name}, message=result[:500])

    def close(self):
        """Close the file."""
        self._file.close()

    def _event(self, source, **fields):
        event = dict({"id": len(self.history), "timestamp": _now(), "source": source}, **fields)
        self.history.append(json.loads(self._key.clean(json.dumps(event))))


def _now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
