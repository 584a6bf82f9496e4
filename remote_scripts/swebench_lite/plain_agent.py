"""The default agent: a plain loop over the client `openai`, which is imported only here."""

import json
import queue
import threading
import time

import openai
from ending import Cut, Ended
from session import MAX_ANSWER, functions, usage_of

RETRIES = 4
"""By the client: refused for the rate (it waits as long as the provider says), overloaded, not reachable."""
SILENCE_S = 120.0
"""Without a byte a call has failed."""


def drive(session, key):
    """Let the model work until the session ends."""
    client = openai.OpenAI(base_url=session.model.base_url, api_key=key.value, max_retries=RETRIES, timeout=SILENCE_S)
    messages = session.opening()
    while True:
        answer = _answer(session, client, messages)
        calls = answer["tool_calls"]
        messages.append(_sent_back(answer))
        for call in calls:
            result = session.use_tool(call["name"], call["arguments"])
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        if not calls:
            messages.append({"role": "user", "content": session.nudge()})


def _answer(session, client, messages):
    """Return the model's next answer; one that broke off is asked for again."""
    while True:
        left = session.next_call()
        begun = time.monotonic()
        try:
            answer, usage = _within(left, lambda: _ask(client, session.model, messages))
        except TimeoutError:
            session.next_call()  # says so
            raise Ended("time-budget", "time limit: the model did not answer in what was left") from None
        except Exception as error:
            session.failed(error, messages, time.monotonic() - begun)
            continue
        for number, call in enumerate(answer["tool_calls"], 1):
            call["id"] = call["id"] or "call_%d_%d" % (session.turns + 1, number)
        session.answered(messages, answer, usage, time.monotonic() - begun)
        return answer


def _within(seconds, work):
    """Return what `work` returns; TimeoutError when it takes longer. It may trickle on, in a thread that nobody waits for."""
    done = queue.Queue()

    def run():
        try:
            done.put((work(), None))
        except BaseException as error:
            done.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = done.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return result


def _ask(client, model, messages):
    asked = {"model": model.id, "messages": messages, "tools": functions()}
    if model.stream:
        with client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **asked) as chunks:
            return _gathered(chunks)
    whole = client.chat.completions.create(**asked)
    choices = getattr(whole, "choices", None)
    if not choices:
        raise Cut("what came is not an answer")
    message = choices[0].message
    calls = [_call(one.id, one.function.name, one.function.arguments) for one in message.tool_calls or ()]
    return _made(message.content, calls, choices[0].finish_reason), _usage(whole)


def _gathered(chunks):
    """Put a streamed answer together; the usage comes in a chunk of its own, or in any."""
    content, calls, usage, reason, size = [], {}, None, None, 0
    for chunk in chunks:
        usage = _usage(chunk) or usage
        for choice in (getattr(chunk, "choices", None) or ())[:1]:
            reason = choice.finish_reason or reason
            content.append(choice.delta.content or "")
            size += len(content[-1])
            for part in choice.delta.tool_calls or ():
                call = calls.setdefault(part.index, _call("", "", ""))
                call["id"] = part.id or call["id"]
                if part.function:
                    call["name"] += part.function.name or ""
                    call["arguments"] += part.function.arguments or ""
                    size += len(part.function.arguments or "")
        if size > MAX_ANSWER:
            raise Cut("more than %d characters and no end" % MAX_ANSWER)
    if reason is None:
        raise Cut("the stream ended before the answer did")
    return _made("".join(content), [calls[index] for index in sorted(calls)], reason), usage


def _call(call_id, name, arguments):
    return {"id": call_id or "", "name": name or "", "arguments": arguments or ""}


def _made(content, calls, reason):
    return {"content": content or "", "tool_calls": calls, "finish_reason": reason}


def _usage(answer):
    usage = getattr(answer, "usage", None)
    return usage_of(getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)) if usage else None


def _sent_back(answer):
    """Return an answer as the next call repeats it; arguments that are no JSON are refused by some servers."""
    message = {"role": "assistant", "content": answer["content"]}
    if answer["tool_calls"]:
        message["tool_calls"] = [
            {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": _json(call["arguments"])}}
            for call in answer["tool_calls"]
        ]
    return message


def _json(text):
    try:
        return text if isinstance(json.loads(text), dict) else "{}"
    except (ValueError, RecursionError):
        return "{}"
