"""Names from topologies of GROMACS."""

import mdtraj
import numpy as np
import pytest

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.trajectories.gromacs import gromacs_rows
from hpcbackmap.trajectories.read_particles import read_particles

MOLECULE = """[ moleculetype ]
; name nrexcl
Protein 1

[ atoms ]
 1 P2 1 ALA BB  1 0.0
 2 SC 1 ALA SC1 2 0.0
 3 P2 2 GLY BB  3 0.0
#ifdef GO
 4 XX 2 GLY CA  4 0.0
#else
 4 YY 3 SER BB  4 0.0
#endif
[ bonds ]
 1 3 1 0.35 4000
"""
SYSTEM = """#include "martini.itp"
#include "molecule.itp"
[ moleculetype ]
W 1
[ atoms ]
1 W 1 W W 1 0.0
[ system ]
Two of them ; in water
[ molecules ]
Protein 2
W       3
"""


def write(folder, system: str = SYSTEM, molecule: str = MOLECULE) -> str:
    (folder / "molecule.itp").write_text(molecule)
    (folder / "topol.top").write_text(system)
    return str(folder / "topol.top")


def test_a_topology_names_every_molecule_of_its_system(tmp_path):
    rows = gromacs_rows(write(tmp_path))
    assert rows.names == ["BB", "SC1", "BB", "BB"] * 2 + ["W"] * 3
    assert rows.residue_names[:4] == ["ALA", "ALA", "GLY", "SER"]
    assert rows.numbers[:4] == [1, 1, 2, 3]
    assert rows.strands == [0] * 4 + [1] * 4 + [2, 3, 4]
    defined = gromacs_rows(write(tmp_path, "#define GO\n" + SYSTEM))
    assert defined.names[:4] == ["BB", "SC1", "BB", "CA"]
    assert gromacs_rows(str(tmp_path / "molecule.itp")).names == ["BB", "SC1", "BB", "BB"]


def test_frames_are_named_by_it_molecule_by_molecule(tmp_path):
    top = mdtraj.Topology()
    chain = top.add_chain()
    for number in range(11):
        residue = top.add_residue("UNK", chain, number)
        top.add_atom("X", mdtraj.element.virtual, residue)
    places = np.random.default_rng(0).normal(size=(1, 11, 3))
    mdtraj.Trajectory(places, top).save_xtc(str(tmp_path / "run.xtc"))
    particles = read_particles(str(tmp_path / "run.xtc"), write(tmp_path))
    protein = [chain for chain in range(len(particles.chains))
               if any(row.name == "ALA" for row in particles.residues if row.chain == chain)]  # fmt: skip
    assert len(protein) == 2
    assert [row.number for row in particles.residues[:6]] == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize(
    ("system", "reason"),
    [
        (SYSTEM.replace("Protein 2", "Lipid 2"), "line 10: no .* named Lipid; not found: martini.itp"),
        (SYSTEM.replace("Protein 2", "Protein two"), "line 10: .* a name and a number"),
        (SYSTEM.replace("W       3", "W 999999999999"), "line 11: .* more than fit in memory"),
        (SYSTEM + "#endif\n", "line 12: #endif without #ifdef"),
        ('#include "topol.top"\n', "include each other"),
        (SYSTEM.replace("1 W 1 W W 1", "1 W one W W 1"), "line 6: 'one' is no number"),
        ("; nothing\n", "no \\[ atoms \\]"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, system, reason):
    with pytest.raises(InputError, match=reason):
        gromacs_rows(write(tmp_path, system))


def test_a_topology_of_amber_with_that_suffix_is_read_as_one(tmp_path):
    (tmp_path / "a.top").write_text("%VERSION  VERSION_STAMP = V0001.000\n%FLAG TITLE\n")
    with pytest.raises(InputError, match="truncated"):
        read_particles(str(tmp_path / "a.top"))
