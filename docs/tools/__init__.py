"""Writes what pages say from the results that were measured."""
