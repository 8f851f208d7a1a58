"""Localizes large collections offline: many items of a manifest, on one machine or on a cluster, resumable."""

from avgn.runtime.collections.job import Entry, Job, Outcome, list_entries
from avgn.runtime.collections.run import CLUSTERS, CollectionSummary, localize_collection

__all__ = ["CLUSTERS", "CollectionSummary", "Entry", "Job", "Outcome", "list_entries", "localize_collection"]
