"""Live sources of pictures and sound. Each is iterated in a thread of its own by `LivePipeline`.

Times are seconds on the stream's clock, which starts near zero with the first piece and never runs backwards, not even
over a lost and regained connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from avgn.runtime.media import AudioBlock, AudioEnd, VideoFrame

State = Literal["connecting", "live", "lost", "ended"]


@dataclass(frozen=True, kw_only=True)
class StateChange:
    """What became of a source; `reason` is one sentence where it was lost."""

    state: State
    reason: str = ""


LiveEvent = VideoFrame | AudioBlock | AudioEnd | StateChange


class Source(Protocol):
    """Something live. `events` blocks while nothing comes and ends soon after `close`.

    A source that knows says in `has_audio` whether it has sound, which may come after its first picture.
    """

    @property
    def name(self) -> str: ...

    def events(self) -> Iterator[LiveEvent]: ...

    def close(self) -> None:
        """Make `events` end; may be called from any thread, any number of times."""
        ...


def has_audio(source: Source) -> bool | None:
    """Return whether a source has sound; None where it doesn't say."""
    # deprecated: has_sound, the name until version 0.1
    found: bool | None = getattr(source, "has_audio", getattr(source, "has_sound", None))
    return found
