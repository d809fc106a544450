"""A small Slurm of our own: one controller and four virtual nodes on this machine, on free ports.

Nodes a1, a2 form partition `a`, nodes b1, b2 partition `b`. All are this host; only SLURMD_NODENAME tells
them apart.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
from forked import Forked

REPOSITORY = Path(__file__).resolve().parents[2]
NODES = ("a1", "a2", "b1", "b2")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
SBIN = "/usr/sbin:/sbin"

CONF = """
ClusterName=pocket
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=8
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
FirstJobId={first_job}
KillWait=20
CompleteWait=0
MessageTimeout=20
SlurmdTimeout=6
{nodes}
PartitionName=a Nodes=a[1-2] Default=YES MaxTime=INFINITE State=UP
PartitionName=b Nodes=b[1-2] MaxTime=INFINITE State=UP
"""


class Cluster:
    """Started by `start`, stopped by `stop`; `environment` is for Slurm's commands."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.environment = os.environ | {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": f"{os.environ['PATH']}:{SBIN}",
        }
        for name in [name for name in self.environment if name in ("RANK", "WORLD_SIZE")]:
            del self.environment[name]

    def start(self) -> None:
        """Raises RuntimeError if not all nodes are idle within a minute."""
        ports = free_ports(1 + len(NODES))
        host = socket.gethostname().split(".")[0]
        node = "NodeName={} NodeHostname={} NodeAddr=127.0.0.1 Port={} CPUs=4 RealMemory=2000"
        nodes = [node.format(name, host, port) for name, port in zip(NODES, ports[1:], strict=True)]
        conf = CONF.format(
            host=host,
            port=ports[0],
            folder=self.folder,
            first_job=1 + os.getpid() % 9000,
            nodes="\n".join(nodes),
        )
        (self.folder / "slurm.conf").write_text(conf)
        self.folder.chmod(0o755)
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o400)
        files = ("key", "socket", "pid", "log", "seed")
        options = [
            f"--{f}={self.folder}/munge.{f}"
            if f == "socket"
            else f"--{f}-file={self.folder}/munge.{f}"
            for f in files
        ]
        self.run("munged", "--force", *options)
        self.run("slurmctld", "-c")
        for name in NODES:
            self.start_node(name)
        self.wait(lambda: self.idle_nodes() == set(NODES), 60, "all nodes are idle")

    def start_node(self, name: str) -> None:
        (self.folder / f"spool-{name}").mkdir(exist_ok=True)
        self.run("slurmd", "-N", name)

    def stop(self) -> None:
        """End all daemons, jobs first."""
        subprocess.run(["scancel", "--signal=KILL", "--full", "--user=root"], env=self.environment)
        daemons = [self.daemon(f"slurmd-{name}") for name in NODES]
        daemons += [self.daemon("slurmctld"), self.daemon("munge")]
        daemons = [daemon for daemon in daemons if daemon is not None]
        for daemon in daemons:
            daemon.terminate()
        _, alive = psutil.wait_procs(daemons, timeout=10)
        for daemon in alive:
            daemon.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def daemon(self, name: str) -> psutil.Process | None:
        try:
            return psutil.Process(int((self.folder / f"{name}.pid").read_text()))
        except (OSError, ValueError, psutil.NoSuchProcess):
            return None

    def lose_node(self, name: str) -> None:
        """As if its power failed: the daemon and all that runs on it are killed."""
        self.daemon(f"slurmd-{name}").kill()
        for process in psutil.process_iter():
            try:
                environ = process.environ()
                if environ.get("SLURMD_NODENAME") != name or environ.get(
                    "SLURM_CONF"
                ) != self.environment.get("SLURM_CONF"):
                    continue
                parent = process.parent()
                if parent is not None and parent.name().startswith("slurmstepd"):
                    parent.kill()
                process.kill()
            except psutil.Error:
                continue

    def run(self, *command: str, **options) -> str:
        """Output of a command, which must not fail."""
        result = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, **options
        )
        assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
        return result.stdout

    def hpcbackmap(self, folder: Path, *arguments: str, code: int = 0) -> str:
        """What the command says, run in ``folder`` by a user of this cluster."""
        run = Forked(["-m", "hpcbackmap", *arguments], self.environment, cwd=folder)
        said, _ = run.communicate(120)
        assert run.returncode == code, said
        return said

    def idle_nodes(self) -> set[str]:
        return set(self.run("sinfo", "-hN", "-tidle", "-o%N").split())

    def field(self, job: int, name: str) -> str:
        """One field of `scontrol show job`, for example JobState."""
        for word in self.run("scontrol", "-o", "show", "job", str(job)).split():
            key, _, value = word.partition("=")
            if key == name:
                return value
        raise KeyError(name)

    def wait(self, condition, seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"after {seconds} s not yet: {what}\n{self.situation()}")
            time.sleep(0.2)

    def wait_for_state(self, job: int, *states: str, seconds: float = 120) -> None:
        self.wait(lambda: self.field(job, "JobState") in states, seconds, f"job {job} in {states}")

    def situation(self) -> str:
        shown = subprocess.run(
            "sinfo -N; scontrol -o show job; tail -n 8 $(dirname $SLURM_CONF)/slurmctld.log",
            shell=True,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        return shown.stdout + shown.stderr


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def missing() -> str | None:
    """Why there can be no Slurm here."""
    path = f"{os.environ['PATH']}:{SBIN}"
    absent = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if absent:
        return f"no {', '.join(absent)} here (Debian: apt-get install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "a Slurm of our own needs root"
