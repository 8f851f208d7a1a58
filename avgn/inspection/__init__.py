"""Shows what is in a manifest: counts, statistics of sounds and boxes, and pictures with the truth drawn on them."""

from avgn.inspection.cards import Card, draw_cards, pick
from avgn.inspection.page import write_page
from avgn.inspection.sheet import write_sheet
from avgn.inspection.statistics import lines_of, summarize

__all__ = ["Card", "draw_cards", "lines_of", "pick", "summarize", "write_page", "write_sheet"]
