"""Planes that press on planes far along the chain, before there are side chains."""

import numpy as np
import torch

import hpcbackmap
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.protein.zmatrix import Role
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.genzprot.plane_tables import angle_tables
from hpcbackmap.stages.genzprot.relieve import OXYGEN, relieve


def test_an_oxygen_on_an_oxygen_is_turned_away_and_the_others_stay():
    """Two strands side by side whose middle planes face each other."""
    stage = hpcbackmap.load_stage()
    along = 0.34 * np.arange(7)
    zigzag = 0.08 * (-1.0) ** np.arange(7)
    strand = np.stack([along, zigzag, 0 * along], axis=1)
    calpha = np.stack([strand, strand + [0.0, 0.0, 0.42]]).reshape(1, 14, 3)
    topology = topology_from_sequence(["AAAAAAA", "AAAAAAA"])
    system = collate([stage.describe(build_ladder(topology, ["fg", "ca"]))])
    coarse = torch.tensor(calpha, dtype=torch.float32)
    with torch.no_grad():
        context = stage._context(coarse, system)
        expected = stage._rigid(context, coarse, system)
        tables = angle_tables(coarse, expected, system)

        def scene(turns):
            torsions = torch.zeros(1, 14, len(stage.bins))
            torsions[..., Role.PLANE] = turns
            return stage._backbone(context, torsions, expected, coarse, system)

        def gap(turns):
            oxygen = scene(turns).atoms[0, :, OXYGEN]
            return torch.cdist(oxygen[:6], oxygen[7:13])

        best, facing = min(
            (float(gap(turns)[3, 3]), turns)
            for turns in (
                torch.zeros(1, 14).index_put(
                    (torch.tensor(0), torch.tensor([3, 10])), torch.tensor([a, b])
                )
                for a in np.linspace(-3, 3, 13).tolist()
                for b in np.linspace(-3, 3, 13).tolist()
            )
        )
        assert best < 0.2
        turned = relieve(stage.planes, context.h, facing, scene(facing), tables, system)
        pressed = torch.tensor([3, 10])
        before, after = gap(facing), gap(turned)
        assert float(after[3, 3]) > 0.235
        moved = torch.nonzero((turned != facing)[0]).squeeze(-1)
        assert set(moved.tolist()) & set(pressed.tolist())
        free = (before > 0.24).all(1)
        assert not (turned != facing)[0, :6][free].any(), "planes that press on nothing stay"
        again = relieve(stage.planes, context.h, turned, scene(turned), tables, system)
        settled = gap(turned).min() > 0.24
        assert not settled or torch.equal(again, turned)
