"""The errors that users can cause: one sentence that names the thing, the value and the way out."""


class InputError(ValueError):
    """What the user gave can't be used (exit status 2)."""


class FailureError(RuntimeError):
    """The input was right, but the work failed or its result was refused (exit status 1)."""


class MissingExtraError(InputError):
    """An optional dependency is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"{module} is not installed: pip install 'avgn[{extra}]'")
        self.module = module
        self.extra = extra
