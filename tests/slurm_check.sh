#!/bin/bash
# A real sweep through a real Slurm of one machine: `bash tests/slurm_check.sh`, as root on a Debian or Ubuntu machine.
#
# Installs Debian's slurm-wlm and munge where they are missing, starts their daemons by hand (no systemd) with a config
# in a temporary folder, runs four short jobs with hydra/launcher=slurm, two at a time, checks that every job left its
# results and that the queue is empty, and stops everything that it started. PYTHON=... names the Python to use.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=$(realpath -s "$(command -v "${PYTHON:-python}")")
export OMP_WAIT_POLICY=PASSIVE PYTHONPATH=$PWD
say() { echo "slurm check: $*"; }
fail() { say "FAILED: $*"; exit 1; }

[ "$(id -u)" = 0 ] || fail "run it as root: it starts Slurm's daemons"
"$PYTHON" -c "import submitit, hydra_plugins.hydra_submitit_launcher" 2>/dev/null ||
    fail "$PYTHON has no submitit: pip install 'cad-exp[launchers]'"
for daemon in slurmctld slurmd; do  # a munged of the machine's own does no harm
    ! pgrep -x "$daemon" >/dev/null || fail "$daemon runs already: this check brings a Slurm of its own"
done
if ! command -v slurmctld slurmd munged sbatch >/dev/null; then
    say "installing slurm-wlm and munge"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
fi

place=$(mktemp -d)  # readable for the munge user: its log and its socket lie here
chmod 755 "$place"
export SLURM_CONF=$place/slurm.conf
started=()  # process numbers, the last one first
clean_up() {
    scancel --user "$(id -un)" 2>/dev/null || true
    for _ in $(seq 40); do [ -z "$(squeue -h 2>/dev/null)" ] && break; sleep 0.5; done
    for number in "${started[@]}"; do
        kill "$number" 2>/dev/null || continue
        for _ in $(seq 50); do kill -0 "$number" 2>/dev/null || break; sleep 0.1; done
        kill -9 "$number" 2>/dev/null || true
    done
    rm -rf "$place"
}
trap clean_up EXIT

# munge signs every message between Slurm's parts; a key and a socket of our own leave the machine's alone.
mkdir "$place/munge" "$place/state" "$place/spool"
dd if=/dev/urandom of="$place/munge/key" bs=128 count=1 status=none
chmod 600 "$place/munge/key"
chmod 755 "$place/munge"
chown -R munge: "$place/munge"
setpriv --reuid munge --regid munge --clear-groups munged --foreground --key-file="$place/munge/key" \
    --socket="$place/munge/socket" --pid-file="$place/munge/pid" --log-file="$place/munge/log" \
    --seed-file="$place/munge/seed" 2>/dev/null &
started=($! "${started[@]}")

cores=$(nproc) memory=$(free -m | awk '/^Mem:/ {print $2}') host=$(hostname -s)
cat >"$SLURM_CONF" <<CONF
ClusterName=check
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$place/munge/socket
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmctldPort=16817
SlurmdPort=16818
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=$place/slurmd.pid
SlurmctldLogFile=$place/slurmctld.log
SlurmdLogFile=$place/slurmd.log
StateSaveLocation=$place/state
SlurmdSpoolDir=$place/spool
PluginDir=$(dirname "$(find /usr/lib -name auth_munge.so -path '*slurm*' | head -1)")
PlugStackConfig=/dev/null
ReturnToService=2
MpiDefault=none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory State=UNKNOWN
PartitionName=check Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
for _ in $(seq 50); do [ -S "$place/munge/socket" ] && break; sleep 0.1; done
slurmctld -D -c 2>/dev/null &
started=($! "${started[@]}")
slurmd -D -N "$host" 2>/dev/null &
started=($! "${started[@]}")
for _ in $(seq 60); do sinfo -h -o %T 2>/dev/null | grep -qx idle && break; sleep 0.5; done
sinfo -h -o %T | grep -qx idle || { tail -20 "$place"/*.log; fail "the node does not come up"; }
say "$(sinfo --version): $(sinfo -h -o '%D node, partition %P, %T, %c CPUs')"

# This small Slurm keeps no accounts, so submitit's questions to sacct fail, and it looks for the results instead.
sweep=$place/sweep
"$PYTHON" -m cad_exp -m hydra/launcher=slurm hydra.launcher.partition=check hydra.launcher.cpus_per_task=1 \
    hydra.launcher.gpus_per_node=null hydra.launcher.mem_gb=2 hydra.launcher.timeout_min=30 \
    hydra.launcher.array_parallelism=2 hydra.sweep.dir="$sweep" \
    concept=church,tench granularity=head,neuron noisy_latents.samples=2 noisy_latents.steps=4 model.steps=4 evaluation=erasure \
    evaluation.samples=4 evaluation.retention_samples=1 evaluation.reference_samples=2 \
    tracking.mode=disabled 2>&1 | grep -vE 'sacct|accounting storage' || code=${PIPESTATUS[0]}
[ "${code:-0}" = 0 ] || { tail -n 20 "$sweep"/.submitit/*/*.err "$place"/*.log; fail "the sweep ended with code $code"; }

found=$(find "$sweep" -mindepth 2 -maxdepth 2 -name results.json | wc -l)
logs=$(find "$sweep/.submitit" -name '*_log.out' | wc -l)
[ "$found" = 4 ] || { tail -n 20 "$sweep"/.submitit/*/*.err; fail "$found of 4 jobs left a results.json"; }
[ "$logs" = 4 ] || fail "$logs of 4 jobs left a log"
for _ in $(seq 60); do [ -z "$(squeue -h)" ] && break; sleep 0.5; done
[ -z "$(squeue -h)" ] || { squeue; fail "the queue is not empty"; }
say "passed: 4 jobs of one array, $found results, $logs logs, an empty queue"
