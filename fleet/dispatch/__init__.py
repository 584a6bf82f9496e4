"""The main job. A way through the room:

files     batch, journal, journal_line, collected, process     what is on disk, and whose it is
state     views, state, draft, reduce_*, endings, images       records in, frozen views out; pure
rules     scheduler, waiting, care, faults, retries, halt      (state) → what to do; pure
at work   job, resolve, spec, controller, executor, lanes, stalls, clockwatch, machines
recovery  recover, rebuild, evidence, casebook, salvage, orders   a journal from what hosts and results still say
answers   why, find, resume, outcome, orphans                  sentences, names, commands and exit codes for users
"""
