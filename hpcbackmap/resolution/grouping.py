"""Groupings of particles into beads that look at structures: spatial blobs and the learned CGAE map."""

import numpy as np

__all__ = ["blobs", "cgae"]


def blobs(sites: np.ndarray, n_beads: int, seed: int) -> np.ndarray:
    """Spatial blobs: k-means on mean distances, no empty bead.

    sites: [F, N, 3], nm. Two particles are alike when their distances to all others, averaged over the
    frames, are alike; this needs no superposition. Returns the bead of each particle, int64 [N],
    beads numbered by their first particle.
    """
    frames = sites[:: max(1, len(sites) // 200)]
    features = np.zeros((sites.shape[1], sites.shape[1]))
    for frame in frames:
        features += np.linalg.norm(frame[:, None] - frame[None], axis=-1)
    return _renumber(_k_means(features / len(frames), n_beads, np.random.default_rng(seed)))


def _k_means(features: np.ndarray, n_beads: int, rng: np.random.Generator) -> np.ndarray:
    first = [features[rng.integers(len(features))]]
    while len(first) < n_beads:
        gap = np.min([((features - centre) ** 2).sum(-1) for centre in first], axis=0)
        first.append(features[int(np.argmax(gap))])
    centres = np.array(first)
    groups = np.zeros(len(features), dtype=np.int64)
    for _ in range(100):
        gap = ((features[:, None] - centres[None]) ** 2).sum(-1)
        new = _fill_empty(gap.argmin(1), gap, n_beads)
        if (new == groups).all():
            break
        groups = new
        centres = np.array([features[groups == b].mean(0) for b in range(n_beads)])
    return groups


def _fill_empty(groups: np.ndarray, cost: np.ndarray, n_beads: int) -> np.ndarray:
    """Give every empty bead the cheapest particle of a bead that can spare one."""
    groups = groups.copy()
    for bead in range(n_beads):
        if not (groups == bead).any():
            sizes = np.bincount(groups, minlength=n_beads)
            price = np.where(sizes[groups] > 1, cost[:, bead], np.inf)
            groups[int(np.argmin(price))] = bead
    return groups


def _renumber(groups: np.ndarray) -> np.ndarray:
    _, first = np.unique(groups, return_index=True)
    order = np.empty(len(first), dtype=np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    found: np.ndarray = order[groups]
    return found


def cgae(sites: np.ndarray, n_beads: int, seed: int, steps: int = 1500) -> np.ndarray:
    """Learned assignment of the coarse-graining auto-encoder (Wang & Gomez-Bombarelli 2019).

    A Gumbel-softmax assignment and a linear decoder are fitted to reconstruct the centred frames, with
    the lift regularisation of the reference (weight 0.25); the temperature is annealed from 1 to 0.1.
    The final assignment is the most probable bead, and a bead that would be empty takes the particle
    that wants it most. sites: [F, N, 3], nm. Returns int64 [N].
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    frames = torch.tensor(sites, dtype=torch.float32) * 10
    frames = frames - frames.mean(1, keepdim=True)
    n = frames.shape[1]
    logits = torch.randn(n, n_beads, generator=generator).requires_grad_()
    decoder = torch.randn(n_beads, n, generator=generator).requires_grad_()
    optimiser = torch.optim.Adam([logits, decoder], lr=2e-2)
    for step in range(steps):
        temperature = max(0.1, 1.0 - 0.9 * step / steps)
        batch = frames[torch.randint(len(frames), (32,), generator=generator)]
        uniform = torch.rand(n, n_beads, generator=generator).clamp(1e-9, 1 - 1e-9)
        soft = ((logits - torch.log(-torch.log(uniform))) / temperature).softmax(-1)
        beads = torch.einsum("nb,fnd->fbd", soft / soft.sum(0, keepdim=True).clamp_min(1e-6), batch)
        rebuilt = torch.einsum("bn,fbd->fnd", decoder, beads)
        lifted = torch.einsum("nb,fbd->fnd", soft, beads)
        loss = (batch - rebuilt).square().mean() + 0.25 * (batch - lifted).square().sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    cost = -logits.detach().numpy()
    return _renumber(_fill_empty(cost.argmin(1), cost, n_beads))
