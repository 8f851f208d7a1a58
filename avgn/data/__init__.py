"""Scenes of manifests and shards as training batches: reading, augmenting, mixing, sampling."""
