"""The time that a stage takes, and may take."""

import time

from errors import StageTimeout


class Stage:
    """Times a stage, and gives it the smaller of its own limit and what is left of the run's cap."""

    def __init__(self, run, name, limit_s):
        self.run = run
        self.name = name
        self.limit_s = limit_s

    def __enter__(self):
        self.begun = time.monotonic()
        used = self.run.stages.get(self.name, 0.0)
        left = self.run.task.cap_s - (self.begun - self.run.started)
        if left <= 0:
            self.run.capped = True
            raise StageTimeout(self.name, self.run.task.cap_s)
        self.capped = left < self.limit_s - used
        return max(0.1, min(self.limit_s - used, left))

    def __exit__(self, _, error, __):
        self.run.stages[self.name] = self.run.stages.get(self.name, 0.0) + time.monotonic() - self.begun
        if self.capped and isinstance(error, StageTimeout):
            self.run.capped = True
            error.args = ("%s, at the cap of %.0f s for the whole run" % (error, self.run.task.cap_s),)
