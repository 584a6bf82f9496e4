"""The main job. A way through the room, from the top down:

recovery/   a journal from what hosts and results still say
(here)      at work: job resolves and prepares, controller and lanes run it, executor talks to hosts, spec says what they get
answers/    sentences, names, commands and exit codes for users; pure
rules/      (state) → what to do: the scheduler, retries, halts, quarantine, stalls; pure
files/      what is on disk, and whose it is: batch, journal, locks of writers
state/      records in, frozen views out; pure
"""
