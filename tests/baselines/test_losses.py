"""Each system's loss against its formula written out in loops, in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from avgn.baselines import (
    attention10k,
    clusters,
    coarse_to_fine,
    dmc,
    dsol,
    ez_vsl,
    hard_pos,
    lvs,
    mix_and_localize,
    parts,
    slavc,
)

B, P, D = 4, 5, 6


def unit(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=g, dtype=torch.float64), dim=-1)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def same(found: Tensor, truth: float) -> None:
    assert found.dtype == torch.float64
    assert float(found) == pytest.approx(truth, rel=1e-9)


def test_attention10k_ratio_loss() -> None:
    seen, heard = unit(B, D), unit(B, D, seed=1)
    terms = []
    for i, j in itertools.permutations(range(B), 2):
        near = math.dist(seen[i].tolist(), heard[i].tolist())
        far = math.dist(seen[i].tolist(), heard[j].tolist())
        plus = math.exp(near) / (math.exp(near) + math.exp(far))
        minus = math.exp(far) / (math.exp(near) + math.exp(far))
        terms.append((plus - 0) ** 2 + (minus - 1) ** 2)
    same(attention10k.ratio_loss(seen, heard), sum(terms) / len(terms))


def test_ots_and_the_matching_of_others_is_balanced_cross_entropy() -> None:
    logits = numbers(B, B)
    matched = [-math.log(sigmoid(float(logits[i, i]))) for i in range(B)]
    others = [-math.log(1 - sigmoid(float(logits[i, j]))) for i, j in itertools.permutations(range(B), 2)]
    same(parts.matching_loss(logits), 0.5 * sum(matched) / len(matched) + 0.5 * sum(others) / len(others))


def test_dmc_clusters_and_margin() -> None:
    torch.manual_seed(0)
    options = dmc.DeepMultimodalClusteringOptions(rounds=2, sharpness=3.0)
    kmeans = dmc.SoftKMeans(D, 2, options).double()
    cells = unit(1, P, D)
    weight = kmeans.project.weight.detach().numpy().reshape(2, D, D)
    z = np.einsum("jed,pd->pje", weight, cells[0].numpy())
    z /= np.linalg.norm(z, axis=2, keepdims=True)
    centres = z.mean(axis=0)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    for _ in range(2):
        moved = np.zeros_like(centres)
        for p in range(P):
            weights = [math.exp(3.0 * float(z[p, j] @ centres[j])) for j in range(2)]
            for j in range(2):
                moved[j] += weights[j] / sum(weights) * z[p, j]
        centres = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    np.testing.assert_allclose(kmeans(cells)[0].detach().numpy(), centres, rtol=1e-9)

    heard, seen = unit(B, 2, D), unit(B, 3, D, seed=1)

    def far(b: int, m: int) -> float:
        nearest = [min(float((heard[b, k] - seen[m, j]).square().sum()) for j in range(3)) for k in range(2)]
        return sum(nearest) / 2

    pairs = list(itertools.permutations(range(B), 2))
    truth = sum(max(0.0, far(b, b) - far(b, m) + 0.5) for b, m in pairs) / len(pairs)
    truth += sum(max(0.0, far(b, b) - far(m, b) + 0.5) for b, m in pairs) / len(pairs)
    same(dmc.margin_loss(dmc.centre_distance(heard, seen), 0.5), truth)


def test_coarse_to_fine_category_contrast() -> None:
    heard, seen, category = unit(B, D), unit(B, D, seed=1), torch.tensor([0, 1, 0, 2])
    agree, apart = [], []
    for i, j in itertools.product(range(B), range(B)):
        d = math.dist(heard[i].tolist(), seen[j].tolist())
        if category[i] == category[j]:
            agree.append(d**2)
        else:
            apart.append(max(0.0, 1.2 - d) ** 2)
    truth = sum(agree) / len(agree) + sum(apart) / len(apart)
    same(coarse_to_fine.category_loss(heard, seen, category, 1.2), truth)


def test_coarse_to_fine_class_features_are_weighted_by_activation() -> None:
    torch.manual_seed(0)
    part = coarse_to_fine.ClassActivation(D, 3).double()
    cells = numbers(1, P, D)
    features, logits = part(cells)
    for c in range(3):
        activation = [float((part.classify.weight[c] @ cells[0, p] + part.classify.bias[c]).detach()) for p in range(P)]
        same(logits[0, c].detach(), sum(activation) / P)
        weights = [max(0.0, a) / (sum(max(0.0, x) for x in activation) + coarse_to_fine.TINY) for a in activation]
        mixed = part.project(sum((w * cells[0, p] for p, w in enumerate(weights)), torch.zeros(D).double()))
        torch.testing.assert_close(features[0, c], mixed / mixed.norm())


def test_dsol_distributions_and_shares() -> None:
    seen = numbers(B, 3).exp()
    heard = torch.log_softmax(numbers(B, 3, seed=1), dim=1)
    truth = 0.0
    for b in range(B):
        p = [float(value) / float(seen[b].sum()) for value in seen[b]]
        truth += sum(p[k] * (math.log(p[k]) - float(heard[b, k])) for k in range(3)) / B
    same(dsol.distribution_loss(seen, heard), truth)
    share = torch.softmax(numbers(B, 3), dim=1)
    torch.testing.assert_close(dsol.logit_of(share).sigmoid(), share)


def test_dsol_clusters_are_found_and_named() -> None:
    centres = torch.eye(4, D, dtype=torch.float64)
    which = torch.arange(40) % 4
    features = torch.nn.functional.normalize(centres[which] + 0.1 * numbers(40, D), dim=1)
    found = clusters.spherical_kmeans(features, 4)
    nearest = (features @ found.T).argmax(dim=1)
    assert len({(int(a), int(b)) for a, b in zip(which, nearest, strict=True)}) == 4
    kept = clusters.spherical_kmeans(features, 4, found[[2, 0, 1, 3]])
    torch.testing.assert_close(kept, found[[2, 0, 1, 3]], atol=1e-6, rtol=0)
    present = torch.nn.functional.one_hot(which, 4).double()
    order = clusters.match_clusters(torch.nn.functional.one_hot(nearest, 4).double(), present)
    assert (torch.tensor(order)[which] == nearest).all()
    # a cluster that wins nothing is moved to a feature
    lost = clusters.spherical_kmeans(features, 4, torch.cat([centres[:3], -features.mean(0)[None]]))
    assert len(set((features @ lost.T).argmax(dim=1).tolist())) == 4


def tri_map(
    similarity: Tensor, options: lvs.LocalizingVisualSoundsOptions, alike_ear: Tensor, alike_eye: Tensor
) -> float:
    count, cells = len(similarity), similarity.shape[2]

    def response(i: int, j: int) -> float:
        m = [sigmoid((float(similarity[i, j, p]) - options.positive) / options.mask_temperature) for p in range(cells)]
        return sum(w * float(similarity[i, j, p]) for p, w in enumerate(m)) / sum(m)

    total = 0.0
    for i in range(count):
        raised = [response(i, i)]
        raised += [response(i, j) for j in range(count) if alike_ear[i, j]]
        raised += [response(j, i) for j in range(count) if alike_eye[i, j]]
        n = [
            1 - sigmoid((float(similarity[i, i, p]) - options.negative) / options.mask_temperature)
            for p in range(cells)
        ]
        background = sum(w * float(similarity[i, i, p]) for p, w in enumerate(n)) / sum(n)
        others = [
            sum(float(similarity[i, j, p]) for p in range(cells)) / cells
            if options.others == "mean"
            else response(i, j)
            for j in range(count)
            if j != i and not alike_ear[i, j] and not alike_eye[i, j]
        ]
        best = sum(raised) / len(raised) / options.temperature
        total += -best + math.log(
            math.exp(best) + sum(math.exp(v / options.temperature) for v in (background, *others))
        )
    return total / count


@pytest.mark.parametrize("others", ["masked", "mean"])
def test_lvs_tri_map(others: lvs.Others) -> None:
    options = lvs.LocalizingVisualSoundsOptions(mask_temperature=0.2, others=others)
    similarity = 2 * torch.rand(B, B, P, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    nobody = torch.zeros(B, B, dtype=torch.bool)
    same(lvs.tri_map_loss(similarity, options), tri_map(similarity, options, nobody, nobody))
    # far from every threshold, sigmoids of the paper's temperature are 0 in float32
    dark = torch.full((B, B, P), -1.0).requires_grad_()
    loss = lvs.tri_map_loss(dark, lvs.LocalizingVisualSoundsOptions())
    loss.backward()
    assert dark.grad is not None and torch.isfinite(dark.grad).all() and torch.isfinite(loss)


def test_hard_positives_join_the_positives_and_leave_the_negatives() -> None:
    options = hard_pos.HardPositivesOptions(mask_temperature=0.2)
    similarity = 2 * torch.rand(B, B, P, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1
    by_ear, by_eye = torch.zeros(B, B, dtype=torch.bool), torch.zeros(B, B, dtype=torch.bool)
    by_ear[0, 1] = by_ear[1, 0] = by_eye[0, 2] = by_eye[2, 0] = by_ear[0, 2] = by_ear[2, 0] = True
    found = hard_pos.hard_positive_loss(similarity, by_ear, by_eye, options)
    same(found, tri_map(similarity, options, by_ear, by_eye))
    nobody = torch.zeros_like(by_ear)
    torch.testing.assert_close(
        hard_pos.hard_positive_loss(similarity, nobody, nobody, options), lvs.tri_map_loss(similarity, options)
    )


def test_hard_positives_have_so_many_neighbours_on_average() -> None:
    features = unit(20, D)
    least = hard_pos.least_similarity(features, 3)
    product = features @ features.T
    pairs = sum(bool(product[i, j] >= least) for i, j in itertools.permutations(range(20), 2))
    assert abs(pairs - 60) <= 1
    assert math.isinf(hard_pos.least_similarity(features[:1], 3))


def test_ez_vsl_contrast_in_both_directions() -> None:
    audio, cells = unit(B, D), unit(B, P, D, seed=1)
    sim = [[max(float(audio[b] @ cells[m, p]) for p in range(P)) / 0.03 for m in range(B)] for b in range(B)]
    truth = 0.0
    for b in range(B):
        truth -= (sim[b][b] - math.log(sum(math.exp(sim[b][m]) for m in range(B)))) / B
        truth -= (sim[b][b] - math.log(sum(math.exp(sim[m][b]) for m in range(B)))) / B
    same(ez_vsl.two_way_contrast(torch.tensor(sim, dtype=torch.float64)), truth)


def test_mix_and_localize_walks_home() -> None:
    logits = numbers(2, 3, 3)
    total = 0.0
    for g in range(2):
        x = logits[g]
        for i in range(3):
            home = 0.0
            for j in range(3):
                there = math.exp(x[i, j]) / sum(math.exp(x[i, k]) for k in range(3))
                back = math.exp(x[i, j]) / sum(math.exp(x[k, j]) for k in range(3))
                home += there * back
            total -= math.log(home)
    same(mix_and_localize.cycle_loss(logits), total / 6)
    assert float(mix_and_localize.cycle_loss(logits[:0])) == 0


def test_slavc_product_of_softmaxes() -> None:
    where, which = numbers(B, P), numbers(B, P, B, seed=1)
    truth = 0.0
    for i in range(B):
        chance = 0.0
        for p in range(P):
            location = math.exp(where[i, p]) / sum(math.exp(where[i, q]) for q in range(P))
            pair = math.exp(which[i, p, i]) / sum(math.exp(which[i, p, j]) for j in range(B))
            chance += location * pair
        truth -= math.log(chance) / B
    same(slavc.product_loss(where, which), truth)


def test_hungarian_is_the_best_of_all_orders() -> None:
    share, present = torch.rand(12, 4).double(), (torch.rand(12, 4) < 0.4).double()
    gain = ((share - share.mean(0)).T @ (present - present.mean(0))).numpy()
    order = clusters.match_clusters(share, present)
    best = max(sum(gain[k, c] for c, k in enumerate(p)) for p in itertools.permutations(range(4)))
    assert sum(gain[k, c] for c, k in enumerate(order)) == pytest.approx(best)
    assert linear_sum_assignment(-gain)[1].shape == (4,)
