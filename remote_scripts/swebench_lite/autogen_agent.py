"""The same agent over AutoGen's AssistantAgent, which is imported only here.

Calls of the model go through a client that asks the session first and records what came, also when the answer is streamed.
"""

import asyncio
import json
import time

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.messages import TextMessage
from autogen_core import CancellationToken
from autogen_core.tools import TextResultContent, ToolResult, Workbench
from autogen_ext.models.openai import OpenAIChatCompletionClient
from ending import Cut, Ended
from errors import StageError
from plain_agent import RETRIES, SILENCE_S
from session import MAX_ANSWER, functions, usage_of

NO_END = 1000000
"""AutoGen's own limit of tool calls is none: the session's limits count."""
ABILITIES = {"vision": False, "function_calling": True, "json_output": False, "structured_output": False, "family": "unknown"}


def drive(session, key):
    """Let the model work until the session ends."""
    asyncio.run(_drive(session, key))


async def _drive(session, key):
    client = RecordingClient(session, key)
    system, user = session.opening()
    agent = AssistantAgent(
        "engineer",
        client,
        workbench=SessionWorkbench(session, client),
        system_message=system["content"],
        model_client_stream=session.model.stream,
        max_tool_iterations=NO_END,
    )
    words = user["content"]
    try:
        while True:
            # It comes back when the model called no tool.
            await agent.on_messages([TextMessage(content=words, source="user")], CancellationToken())
            words = session.nudge()
    finally:
        await client.close()


class RecordingClient(OpenAIChatCompletionClient):
    """AutoGen's own client between the agent and the provider, with the session asked before and told after each call."""

    def __init__(self, session, key):
        model = session.model
        super().__init__(
            model=model.id, base_url=model.base_url, api_key=key.value, model_info=ABILITIES,
            max_retries=RETRIES, timeout=SILENCE_S, include_name_in_message=False,
        )  # fmt: skip
        self._session = session
        self.written = {}
        """Call id → name and arguments as the model wrote them."""

    async def create(self, messages, **given):
        """Return one whole answer."""
        return await self._recorded(messages, lambda: super(RecordingClient, self).create(messages, **_ours(given)))

    async def create_stream(self, messages, **given):
        """Yield the answer alone, once all of it is there."""

        async def last():
            parts = super(RecordingClient, self).create_stream(messages, include_usage=True, **_ours(given))
            size, result = 0, None
            async for part in parts:
                size += len(part) if isinstance(part, str) else 0
                if size > MAX_ANSWER:
                    raise Cut("more than %d characters and no end" % MAX_ANSWER)
                result = part
            return result

        yield await self._recorded(messages, last)

    async def _recorded(self, messages, ask):
        shown = [message.model_dump(mode="json") for message in messages]
        while True:
            left = self._session.next_call()
            begun = time.monotonic()
            try:
                result = await asyncio.wait_for(ask(), left)
                if not result.content and not result.usage.prompt_tokens and result.finish_reason == "unknown":
                    raise Cut("what came is not an answer")
            except asyncio.TimeoutError:
                self._session.next_call()  # says so
                raise Ended("time-budget", "time limit: the model did not answer in what was left") from None
            except Exception as error:
                self._session.failed(error, shown, time.monotonic() - begun)
                continue
            usage = usage_of(result.usage.prompt_tokens, result.usage.completion_tokens)
            self._session.answered(shown, self._answer(result), usage, time.monotonic() - begun)
            return result

    def _answer(self, result):
        """Return the answer as the session records it; what AutoGen would stumble over is put right in `result`."""
        calls = []
        for number, call in enumerate(result.content if isinstance(result.content, list) else (), 1):
            call.id = call.id or "call_%d_%d" % (self._session.turns + 1, number)
            self.written[call.id] = (call.name, call.arguments)
            calls.append({"id": call.id, "name": call.name, "arguments": call.arguments})
            call.arguments = call.arguments if _is_object(call.arguments) else "{}"
        content = result.content if isinstance(result.content, str) else result.thought or ""
        return {"content": content, "tool_calls": calls, "finish_reason": result.finish_reason}


class SessionWorkbench(Workbench):
    """The session's tools as AutoGen takes them; a call never raises, because AutoGen would wait for its end for ever."""

    component_type = "workbench"

    def __init__(self, session, client):
        self._session = session
        self._client = client

    async def list_tools(self):
        """Return the tools, and every name that the model made up: it is answered by the session, as any other."""
        tools = [one["function"] for one in functions()]
        names = {one["name"] for one in tools}
        made_up = {name for name, _ in self._client.written.values()} - names
        return [*tools, *({"name": name, "description": "", "parameters": {"type": "object"}} for name in sorted(made_up))]

    async def call_tool(self, name, arguments=None, cancellation_token=None, call_id=None):  # noqa: ARG002
        """Return what the session's tool says."""
        try:
            written = self._client.written.get(call_id, (name, json.dumps(arguments)))
            return _result(name, self._session.use_tool(*written))
        except StageError as error:
            self._session.stop("sandbox", "the sandbox container died: %s" % error)
            return _result(name, "The run has ended.")
        except Exception as error:
            self._session.stop("framework", "%s in tool %s: %s" % (type(error).__name__, name, error))
            return _result(name, "The run has ended.")

    async def start(self):
        """Do nothing: the sandbox is open."""

    async def stop(self):
        """Do nothing: the sandbox is closed by whoever opened it."""

    async def reset(self):
        """Do nothing."""

    async def save_state(self):
        """Return nothing: the state is the sandbox."""
        return {}

    async def load_state(self, state):
        """Do nothing."""


def _result(name, text):
    return ToolResult(name=name, result=[TextResultContent(content=text)])


def _ours(given):
    """Return what the agent asks for with the tools that there are, and none that the model made up."""
    return dict(given, tools=[one["function"] for one in functions()])


def _is_object(text):
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
