"""Spherical k-means without chance, and how clusters get the names of classes.

Legend: N features, K clusters, C classes, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROUNDS = 20


def spherical_kmeans(features: Tensor, clusters: int, start: Tensor | None = None) -> Tensor:
    """Centres [K,D] of length one of features [N,D] of length one.

    Begins from `start` [K,D], or from features far from each other; a cluster that lost all of its features moves to
    the one that is farthest from every centre.
    """
    centres = _far_apart(features, clusters) if start is None else start.clone()
    for _ in range(ROUNDS):
        products = features @ centres.T
        best, nearest = products.max(dim=1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, features)
        counts = torch.bincount(nearest, minlength=clusters)
        farthest = best.argsort()
        for place, cluster in enumerate((counts == 0).nonzero().flatten().tolist()):
            sums[cluster] = features[farthest[place % len(features)]]
        moved = nn.functional.normalize(sums, dim=1)
        if torch.allclose(moved, centres, atol=1e-6):
            break
        centres = moved
    return centres


def _far_apart(features: Tensor, clusters: int) -> Tensor:
    """Return the feature nearest to the mean, then each time the one that is farthest from those taken."""
    taken = [features[int((features @ features.mean(dim=0)).argmax())]]
    while len(taken) < clusters:
        nearest = (features @ torch.stack(taken).T).amax(dim=1)
        taken.append(features[int(nearest.argmin())])
    return torch.stack(taken)


def match_clusters(share: Tensor, present: Tensor) -> list[int]:
    """Return the cluster of every class, by Hungarian assignment.

    share [N,K] says how much of a sample is in a cluster, present [N,C] in {0,1} which classes it has; K = C. What is
    maximised is their covariance, so that common classes don't take every cluster.
    """
    from scipy.optimize import linear_sum_assignment

    covariance = (share - share.mean(dim=0)).double().T @ (present - present.mean(dim=0)).double()
    clusters, classes = linear_sum_assignment(-covariance.numpy())
    return [int(cluster) for _, cluster in sorted(zip(classes, clusters, strict=True))]
