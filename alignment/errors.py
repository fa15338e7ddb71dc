"""The errors for the person at the keyboard: where, what, and what to do. Printed without a traceback."""


class PlumblineError(Exception):
    """Anything the user can mend. The command line prints it and exits with code 2."""


class RecipeError(PlumblineError):
    """A recipe, or an edit to it, that cannot be meant as it stands."""


class RunError(PlumblineError):
    """A run directory that is missing, unfinished, changed or foreign."""


class DataError(PlumblineError):
    """Data that is missing, empty or unreadable."""


class HardwareError(PlumblineError):
    """A machine that is not what the profile says."""


class ModelError(PlumblineError):
    """A model, tokenizer or template that does not fit, or a training that went wrong."""


class HubError(PlumblineError):
    """A hub name without a revision, or a hub that does not answer."""


class SandboxError(PlumblineError):
    """A machine that cannot contain model-written code."""
