"""The model that works on a task: its name, where it is asked, what it may use, what it costs."""

import urllib.parse

from errors import InputError

BASE_URL = "https://llm.chutes.ai/v1"
FRAMEWORKS = ("plain", "autogen")
JUDGES = ("end", "patch")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Model:
    """A model at an OpenAI-compatible address.

    name       as the assignment calls it; `id` as the provider does, where that is another
    price      US dollars per million tokens (prompt, completion), or None: then nothing is said about costs
    stream     whether answers are asked for as they are made
    """

    def __init__(self, name, base_url=None, model_id=None, price=None, stream=True):
        self.name = name
        self.id = model_id or name
        self.base_url = _address(base_url or BASE_URL)
        self.price = _price(price)
        self.stream = stream
        if not self.id.isprintable() or len(self.id) > 200:
            raise InputError("model %r is not the name of a model" % self.id[:80])

    @property
    def in_clear(self):
        """Whether what is sent, the key too, can be read on the way."""
        parts = urllib.parse.urlsplit(self.base_url)
        return parts.scheme == "http" and parts.hostname not in LOOPBACK

    def cost(self, usage):
        """Return US dollars of a usage, None where the price or the usage is not known."""
        if self.price is None or usage is None:
            return None
        return (usage["prompt_tokens"] * self.price[0] + usage["completion_tokens"] * self.price[1]) / 1e6


class Limits:
    """What an agent may use up: calls of the model, tokens of all calls together, seconds."""

    def __init__(self, turns, tokens, minutes):
        if not (1 <= turns <= 10000 and 1 <= tokens <= 10**9 and 0 < minutes <= 24 * 60):
            raise InputError("turns, tokens and minutes of an agent must be above 0, and minutes at most a day")
        self.turns = turns
        self.tokens = tokens
        self.seconds = minutes * 60.0

    def as_json(self):
        """Return the limits as they are recorded."""
        return {"turns": self.turns, "tokens": self.tokens, "minutes": round(self.seconds / 60, 3)}


def _address(text):
    try:
        parts = urllib.parse.urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or not text.isprintable():
        raise InputError("base URL %r is not http(s)://HOST[:PORT][/PATH]" % text[:120])
    if "@" in parts.netloc:
        raise InputError("the base URL holds a user or password; a key belongs into the environment or a 0600 file")
    return text.rstrip("/")


def _price(text):
    if not text:
        return None
    try:
        prompt, completion = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError("price %r is not PROMPT,COMPLETION in US dollars per million tokens" % text[:80]) from None
    if not (0 <= prompt < 1e6 and 0 <= completion < 1e6):
        raise InputError("price %r is out of range" % text[:80])
    return prompt, completion
