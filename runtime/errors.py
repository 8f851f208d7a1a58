"""The errors that users can cause: one sentence that names the thing, the value and the way out."""

from avgn.runtime.memory import is_short, shortage


class InputError(ValueError):
    """What the user gave can't be used (exit status 2)."""


class FailureError(RuntimeError):
    """The input was right, but the work failed or its result was refused (exit status 1)."""


class MissingExtraError(InputError):
    """An optional dependency is not installed, or can't be loaded as `error` says."""

    def __init__(self, module: str, extra: str, error: ImportError | None = None) -> None:
        if error is not None and is_short(error):
            super().__init__(f"{module} can't be loaded, for {shortage()}")
        elif error is None or isinstance(error, ModuleNotFoundError):
            super().__init__(f"{module} is not installed: pip install 'avgn[{extra}]'")
        else:
            # a system library that is missing, a wheel of another machine
            reason = " ".join(str(error).split())[:200]
            super().__init__(f"{module} can't be loaded ({reason}): pip install --force-reinstall 'avgn[{extra}]'")
        self.module = module
        self.extra = extra
