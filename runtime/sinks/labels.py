"""Labels on a picture: inside of it, beside each other, and with their percentage whatever the name's length."""

from __future__ import annotations

from avgn.runtime.arrays import Pixels
from avgn.runtime.image import import_cv2
from avgn.runtime.sinks.text import line_height, put, shorten, text_width

Color = tuple[int, int, int]
Box = tuple[int, int, int, int]

WHITE = (255, 255, 255)
BLACK = (0, 0, 0)
GRAY = (70, 70, 70)
# the size of text for a picture's shorter side, and the least that can be read
SIDE_PER_SIZE = 25
LEAST = 11
TINIEST = 6
# how much smaller a long name may be written before it is shortened
SMALLER = 0.75


class Labels:
    """Places labels on a picture [H, W, 3], one after the other; none covers another as long as there is room."""

    def __init__(self, drawn: Pixels, edge: int) -> None:
        self.drawn = drawn
        self.height, self.width = drawn.shape[:2]
        self.size = max(LEAST, round(min(self.height, self.width) / SIDE_PER_SIZE))
        self.edge = edge
        self.taken: list[Box] = []

    def put(self, name: str, share: str, color: Color, at: tuple[int, int]) -> Box:
        """Return a label above the point `at` (the corner of what it belongs to), or as near as there is room."""
        name, share, size, width, height = self._fit(name, share, self.width)
        left = max(0, min(at[0], self.width - width))
        first = at[1] - height if at[1] >= height else at[1]
        return self._draw(name, share, size, self._free(left, first, width, height), color)

    def put_right(self, name: str, share: str, color: Color) -> Box:
        """Return a label in the upper right corner, below those that are there."""
        name, share, size, width, height = self._fit(name, share, self.width - 2 * self.edge)
        return self._draw(
            name, share, size, self._free(self.width - width - self.edge, self.edge, width, height), color
        )

    def _fit(self, name: str, share: str, room: int) -> tuple[str, str, int, int, int]:
        """(name, share, size, width, height): first the text gets smaller, then the name shorter; never the share."""
        size = self.size
        least = max(LEAST, round(SMALLER * size))
        while size > least and self._width(name, share, size) > room:
            size -= 1
        if self._width(name, share, size) > room:
            name = shorten(name, size, room - self._width("", share, size) - text_width(" ", size))
        while size > TINIEST and self._width(name, share, size) > room:
            size -= 1
        return name, share, size, self._width(name, share, size), line_height(size)

    def _width(self, name: str, share: str, size: int) -> int:
        gap = text_width(" ", size) if name and share else 0
        return text_width(name, size) + gap + text_width(share, size) + 2 * _margin(size)

    def _free(self, left: int, first: int, width: int, height: int) -> Box:
        """Return the place nearest to `first` from the top that is inside of the picture and covers no other label."""
        last = max(0, self.height - height)
        tops = {min(last, max(0, top)) for box in self.taken for top in (box[1] - height, box[3])}
        tops |= {min(last, max(0, first))}
        for top in sorted(tops, key=lambda top: abs(top - first)):
            box = (left, top, left + width, top + height)
            if not any(_overlap(box, other) for other in self.taken):
                return box
        top = min(last, max(0, first))
        return (left, top, left + width, top + height)

    def _draw(self, name: str, share: str, size: int, box: Box, color: Color) -> Box:
        self.taken.append(box)
        import_cv2().rectangle(self.drawn, box[:2], (box[2] - 1, box[3] - 1), color, -1)
        ink = BLACK if 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 120 else WHITE
        put(self.drawn, name, (box[0] + _margin(size), box[1]), size, ink)
        put(self.drawn, share, (box[2] - _margin(size) - text_width(share, size), box[1]), size, ink)
        return box


def _margin(size: int) -> int:
    return max(2, round(0.35 * size))


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
