"""The paper's figures, drawn from checkpoints, bundles and manifests."""
