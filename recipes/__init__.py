"""Holds the recipes of the models in the package."""
