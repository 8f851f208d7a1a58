"""Recipes of the paper's tables: import, train, evaluate, and a row beside the published ones."""

from avgn.reproduce.recipe import Recipe, read_recipe, recipe_names
from avgn.reproduce.run import reproduce
from avgn.reproduce.settings import RunOptions
from avgn.reproduce.table import format_outcome

__all__ = ["Recipe", "RunOptions", "format_outcome", "read_recipe", "recipe_names", "reproduce"]
