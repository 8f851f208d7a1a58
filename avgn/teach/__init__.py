"""Teaches a bundle of real things other classes: by examples, by names, or by leaving some out."""

from avgn.teach.lesson import Changes, Lesson, give_lesson, teach

__all__ = ["Changes", "Lesson", "give_lesson", "teach"]
