"""Draws the paper's figures from checkpoints, bundles and manifests."""
