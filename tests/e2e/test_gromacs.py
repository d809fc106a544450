"""From C-alpha atoms to `gmx mdrun`, as docs/md-ready.md says it; where GROMACS is installed."""

import shutil
import subprocess

import mdtraj
import pytest

import hpcbackmap

GMX = shutil.which("gmx")
STEEP = "integrator = steep\nnsteps = 50\ncutoff-scheme = Verlet\nrlist = 1.0\nrcoulomb = 1.0\nrvdw = 1.0\n"

pytestmark = pytest.mark.skipif(GMX is None, reason="no GROMACS (Debian: apt-get install gromacs)")


def gmx(folder, *words):
    done = subprocess.run(
        [str(GMX), *words, "-nobackup"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-1500:]
    return done.stdout + done.stderr


@pytest.fixture
def calpha(example_dir):
    top = str(example_dir / "trpcage_top.pdb")
    frame = mdtraj.load(str(example_dir / "trpcage.xtc"), top=top)[0]
    return frame.atom_slice(frame.topology.select("name CA"))


@pytest.mark.parametrize(
    ("options", "field", "more"),
    [
        ({}, "amber99sb-ildn", ["-ignh"]),
        ({"hydrogens": True, "names": "gromacs"}, "amber99sb-ildn", []),
        ({"hydrogens": True, "names": "charmm"}, "charmm27", []),
    ],
)
def test_pdb2gmx_takes_the_file_as_it_is(calpha, tmp_path, options, field, more):
    hpcbackmap.backmap(calpha, mode=True, output=tmp_path / "atoms.pdb", **options)
    gmx(tmp_path, "pdb2gmx", "-f", "atoms.pdb", "-ff", field, "-water", "tip3p", *more)


def test_disulphides_and_chains_reach_the_topology(data_dir, tmp_path):
    read = mdtraj.load(str(data_dir / "nmr" / "1yuf_nmr.pdb.gz"))[0]
    trace = read.atom_slice(read.topology.select("name CA"))
    made = {"hydrogens": True, "names": "gromacs", "disulphides": "auto"}
    (file,) = hpcbackmap.backmap(trace, mode=True, output=tmp_path / "atoms.pdb", **made)
    bonds = file.read_text().count("SSBOND")
    assert bonds
    said = gmx(tmp_path, "pdb2gmx", "-f", "atoms.pdb", "-ff", "amber99sb-ildn", "-water", "tip3p")
    assert said.count("Linking CYS") == bonds


def test_the_way_to_a_solvated_run(calpha, tmp_path):
    made = {"hydrogens": True, "names": "gromacs"}
    hpcbackmap.backmap(calpha, mode=True, output=tmp_path / "atoms.pdb", **made)
    gmx(tmp_path, "pdb2gmx", "-f", "atoms.pdb", "-ff", "amber99sb-ildn", "-water", "tip3p")
    gmx(tmp_path, "editconf", "-f", "conf.gro", "-o", "box.gro", "-d", "1.0")
    gmx(tmp_path, "solvate", "-cp", "box.gro", "-cs", "-p", "topol.top", "-o", "water.gro")
    (tmp_path / "steep.mdp").write_text(STEEP)
    gmx(
        tmp_path, "grompp", "-f", "steep.mdp", "-c", "water.gro", "-p", "topol.top", "-maxwarn", "2"
    )
    gmx(tmp_path, "mdrun", "-s", "topol.tpr", "-nt", "1", "-c", "minimised.gro")
    assert mdtraj.load(str(tmp_path / "minimised.gro")).n_residues > 20
