"""Fits the audio rows of the world model on free recordings: fetch, mix, fit.

`python -m recipes.world --output runs/world-audio` writes refit.npz and licences.json.
"""
