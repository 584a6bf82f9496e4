"""One agent on one task: prepare the project, let the model work on it, and judge what it leaves as any other patch.

The runner decides what came out, never a message. The task's test patch and its solution are nowhere near the agent; its
patch is judged by a run of its own, in a fresh sandbox. With `judge` "end", the default, that happens once, after the agent
has handed in or a limit has ended it. A task without hidden tests is also judged as soon as pytest's report says that the
chosen tests pass, and ends there when the judgement agrees. With "patch" the hidden tests are tried after every patch that
applies, and end the run when they pass: one bit per patch that a model would not have, so such results say so.
"""

import json
import secrets
import time

from agent_layout import write_result
from agent_setup import NEEDED
from ending import Ended, printable
from errors import InputError, StageError
from run import Run, Settings
from session import Session
from tools import Workspace
from transcript import Transcript

SCHEMA = "fleet.lite-agent/1"
SPARE_S = 120.0
"""What the agent's container outlives its time budget by."""


class Agent:
    """A model, what it may use up, and how it is driven."""

    def __init__(self, model, key, limits, framework="plain", judge="end"):
        self.model = model
        self.key = key
        self.limits = limits
        self.framework = framework
        self.judge = judge


class AgentRun:
    """One run; `execute` returns the result document and leaves everything in `directory`."""

    def __init__(self, task, settings, agent, directory=None, say=print, number=1):
        if settings.kind != "docker":
            raise InputError("an agent needs Docker: what a model wrote is not run where nothing isolates it")
        self.drive = _driver(agent.framework)
        self.task = task
        self.settings = settings
        self.agent = agent
        self.number = number
        self.directory = directory or settings.directory / "agents" / (
            "%s-%s-%s" % (time.strftime("%Y%m%dT%H%M%S", time.gmtime()), task.task_id, secrets.token_hex(3))
        )
        self.directory.mkdir(parents=True, exist_ok=True)
        self.say = lambda text: say(printable(agent.key.clean(text)))
        self.started = time.monotonic()
        self.patch, self.left_out = "", {}
        self.judged = None
        """(patch, run, its result) of the last judgement."""

    def execute(self):
        """Let the agent work, judge what it leaves, and write the outputs."""
        begun = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        transcript = Transcript(self.directory, self.task.task_id, self.agent.key)
        try:
            session, ending, error = self._work(transcript)
            patch, run, result = self._judgement(self.patch)
            document = self._document(session, ending, error, result)
            transcript.note("end", ending=ending, error=error, status=result["status"], resolved=result["resolved"])
        finally:
            transcript.close()
        write_result(self, document, run, result, patch, transcript.history, begun)
        return document

    def _work(self, transcript):
        """Return (session, ending, error); without a session where the project could not be prepared."""
        try:
            sandbox = self._open()
        except StageError as error:
            self.say("%s\n%s" % (error.output[-2000:].rstrip(), error))
            return None, "sandbox", "runtime not ready, the sandbox failed in stage %s: %s" % (error.stage, error)
        session = None
        try:
            shown = not (self.task.fail_to_pass or self.task.test_patch)
            workspace = Workspace(self.task, sandbox, shown)
            session = Session(
                self.agent.model, self.agent.limits, workspace, lambda tool: self._solved(workspace, tool), transcript,
                self.agent.key.clean, self.say,
            )  # fmt: skip
            ending, error = _driven(self.drive, session, self.agent.key)
            self.patch, self.left_out = workspace.difference()
            return session, ending, error
        except StageError as error:
            return session, "sandbox", "the sandbox container died: %s" % error
        finally:
            sandbox.close()

    def _open(self):
        """Return a sandbox made from the kept environment; the one that cloned has the project's later commits within reach."""
        life_s = self.agent.limits.seconds + SPARE_S
        run = Run(self.task, self.settings)
        sandbox = run.prepared(life_s)
        if not run.cached:
            sandbox.close()
            run = Run(self.task, self.settings)
            sandbox = run.prepared(life_s)
            if not run.cached:
                sandbox.close()
                raise StageError("start", "the installed project could not be kept for the agent")
        self.say("%s: the project is ready after %.1f s" % (self.task.task_id, time.monotonic() - self.started))
        return sandbox

    def _solved(self, workspace, tool):
        """Tell whether the runner's own judgement ends the run now; it is asked where the agent has reason to expect it."""
        tried = tool == "swe_apply_patch" and self.agent.judge == "patch"
        if not (tried or workspace.chosen_passed):
            return False
        patch, _ = workspace.difference()
        return bool(patch) and self._judgement(patch)[2]["status"] == "pass"

    def _judgement(self, patch):
        """Return (patch, run, result) of a patch; the same is not judged twice."""
        if self.judged is None or self.judged[0] != patch:
            directory, before = str(self.directory / "lite"), bool(self.task.fail_to_pass)
            kept = Settings(directory, self.settings.kind, self.settings.image, before=before)
            run = Run(self.task, kept, patch)
            self.judged = (patch, run, run.execute())
        return self.judged

    def _document(self, session, ending, error, result):
        self.say("%s: %s, %s%s" % (self.task.task_id, ending, result["status"], ": " + error if error else ""))
        agent = self.agent
        document = {
            "schema": SCHEMA,
            "task_id": self.task.task_id,
            "model": agent.model.name,
            "model_id": agent.model.id,
            "base_url": agent.model.base_url,
            "framework": agent.framework,
            "judge": agent.judge,
            "status": result["status"],
            "resolved": result["resolved"],
            "ending": ending,
            "error": error,
            "turns": session.turns if session else 0,
            "tool_calls": session.tool_calls if session else 0,
            "usage": session.usage() if session else None,
            "cost_usd": session.cost() if session else None,
            "limits": agent.limits.as_json(),
            "duration_s": round(time.monotonic() - self.started, 3),
            "patch_bytes": len(self.patch.encode("utf-8", "replace")),
            "left_out": self.left_out,
            "run": result,
            "directory": str(self.directory),
        }
        return json.loads(agent.key.clean(json.dumps(document)))


def _driven(drive, session, key):
    try:
        drive(session, key)
    except Ended as end:
        return end.ending, end.error
    except StageError:
        raise
    except Exception as error:
        return "framework", printable(key.clean("%s: %s" % (type(error).__name__, error)))[:1000]
    return session.ending or "silent", session.error


def _driver(framework):
    """Return the function that lets a model work; the package behind it is imported now, before anything is started."""
    try:
        if framework == "autogen":
            from autogen_agent import drive
        else:
            from plain_agent import drive
    except ImportError as error:
        raise InputError("this Python has no %s: %s" % (error.name, NEEDED[framework])) from None
    return drive
