"""How an agent's run ends. What the model did is judged in every case; an error is recorded beside it.

solved          the runner's own judgement passed while the agent was at work
submitted       the agent handed in
silent          the model went on talking without calling a tool
max-turns       a limit: calls of the model
token-budget    a limit: tokens of all calls
time-budget     a limit: minutes
context         the conversation no longer fits into the model
provider        the provider refused or failed
sandbox         the project could not be prepared, or its container is gone
framework       the code between model and tools failed
"""

LIMITS = ("max-turns", "token-budget", "time-budget", "context")
FAILURES = ("provider", "sandbox", "framework")
"""After these there is nothing to say about the model."""

# Of these libraries an exception is the provider's or the network's fault.
_CLIENTS = ("openai", "httpx", "httpx2", "httpcore", "httpcore2", "h11")
_FULL = ("context_length_exceeded", "maximum context length", "context window", "prompt is too long")


class Ended(Exception):
    """The run is over; `error` is None where nothing went wrong."""

    def __init__(self, ending, error=None):
        super().__init__(error or ending)
        self.ending = ending
        self.error = error


class Cut(Exception):
    """An answer that broke off, or is none."""


def printable(text):
    """Return foreign text without what a terminal would obey."""
    return "".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in text)


def explain(error, clean):
    """Return (ending, words, whether another try may help) of an exception that a call of the model raised."""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    home = type(error).__module__.partition(".")[0]
    told = str(error) + (" %s" % error.__cause__ if error.__cause__ is not None else "")
    words = printable(clean(" ".join(told.split())))[:1000]
    if isinstance(error, Cut) or (home in _CLIENTS and home != "openai"):
        return "provider", "openai.APIConnectionError: the answer broke off: %s" % words, True
    if home != "openai":
        return "framework", "%s: %s" % (kinds[0], words), False
    status = getattr(error, "status_code", None)
    if status == 400 and any(one in words.lower() for one in _FULL):
        return "context", "openai.BadRequestError: context window: %s" % words, False
    # What can be tried again was, by the client itself; only an answer that broke off was not, or that a stream calls an error.
    broke = kinds[0] in ("APIConnectionError", "APIError")
    return "provider", "openai.%s: %s%s" % (kinds[0], "HTTP %d: " % status if status else "", words), broke
