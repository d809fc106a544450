"""What a picture of structures shows."""

import numpy as np
from judged_campaign import load_example

from hpcbackmap.report.pictures import ladder_picture
from hpcbackmap.resolution.build import build_ladder


def test_members_have_a_panel_of_their_own(example_dir):
    topology, positions = load_example(example_dir, frames=3)
    ladder = build_ladder(topology, ["fg", "ca", "ucg:5"])
    truth, members = positions[0], positions[1:]
    levels = {name: values[0] for name, values in ladder.coarsen(members).items()}

    def captions(*more: np.ndarray) -> list[str]:
        figure = ladder_picture(ladder, truth, levels, *more)
        drawn = [len(ax.collections) for ax in figure.axes]
        assert all(drawn), "an empty panel"
        return [text.get_text() for text in figure.texts if text.get_weight() == "bold"]

    assert captions() == ["5 beads", "20 Cα", "154 heavy atoms", "Truth"]
    assert captions(members) == ["5 beads", "20 Cα", "154 heavy atoms", "2 members", "Truth"]
