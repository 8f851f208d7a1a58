"""Teaches a bundle of real things other classes: by examples, by names, or by leaving some out."""
