"""The options of an agent; each may also stand in the environment, so an assignment's `env` or pipeline.yaml sets it."""

import os

from agent_setup import PINS
from key import find_key, forget
from model import BASE_URL, FRAMEWORKS, JUDGES, Limits, Model

TURNS, TOKENS, MINUTES = 50, 1000000, 20.0


def add_options(parser):
    """Add what says how an agent works."""
    parser.add_argument("--model-id", default=_set("MODEL_ID"), help="what the provider calls the model")
    parser.add_argument("--base-url", default=_set("BASE_URL", BASE_URL))
    parser.add_argument("--key-file", help="a file that only you can read")
    parser.add_argument("--framework", choices=FRAMEWORKS, default=_set("FRAMEWORK", "plain"))
    parser.add_argument("--judge", choices=JUDGES, default=_set("JUDGE", "end"))
    parser.add_argument("--price", default=_set("PRICE"), metavar="PROMPT,COMPLETION", help="USD per million tokens")
    parser.add_argument("--max-turns", type=int, default=_set("MAX_TURNS", TURNS))
    parser.add_argument("--max-tokens", type=int, default=_set("MAX_TOKENS", TOKENS))
    parser.add_argument("--max-minutes", type=float, default=_set("MAX_MINUTES", MINUTES))
    parser.add_argument("--no-stream", action="store_true", default=_set("STREAM") == "0")


def agent_of(options, say):
    """Return the agent that the options describe; its key is then nowhere else in this process."""
    from agent import Agent

    model = Model(options.model, options.base_url, options.model_id, options.price, not options.no_stream)
    limits = Limits(options.max_turns, options.max_tokens, options.max_minutes)
    key = find_key(model.base_url, options.key_file)
    forget()
    if model.in_clear:
        say("the key and all that is said can be read on the way to %s: it is plain http" % model.base_url)
    if options.framework not in PINS or options.judge not in JUDGES:  # from the environment, argparse does not look
        raise SystemExit("LITE_FRAMEWORK is plain or autogen, LITE_JUDGE is end or patch")
    return Agent(model, key, limits, options.framework, options.judge)


def _set(name, default=None):
    return os.environ.get("LITE_" + name) or default
