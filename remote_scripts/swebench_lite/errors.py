"""What can go wrong, as four kinds.

LiteError
├── InputError      the task, the patch file or an option is not usable; nothing was started
├── StageError      a stage (image, clone, install, patch, tests) could not do its work
└── StageTimeout    a stage was ended at its limit
"""


class LiteError(Exception):
    """Anything that this runner says itself."""


class InputError(LiteError):
    """A task, dataset or option that cannot be used."""


class StageError(LiteError):
    """A stage that failed; `output` is what its command printed."""

    def __init__(self, stage, message, output=""):
        super().__init__(message)
        self.stage = stage
        self.output = output


class StageTimeout(StageError):
    """A stage that was ended at its limit."""

    def __init__(self, stage, limit_s, output=""):
        super().__init__(stage, "%s was ended after %.1f s" % (stage, limit_s), output)
