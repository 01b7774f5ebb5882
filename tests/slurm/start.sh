#!/usr/bin/env bash
# Start a real SLURM on the loopback address, with all its files in one new folder:
# tests/slurm/start.sh FOLDER OWNER
# One node of four CPUs, two pretended GPUs, no accounting, jobs as root. tests/slurm/stop.sh FOLDER
# ends it; when the process number OWNER is gone without having done so, the next start does.
# tests/slurm/start.sh --check starts nothing.
set -euo pipefail
folder=$1
host=$(hostname -s)
links=(slurm.conf gres.conf cgroup.conf)

fail() {
    echo "error: $*" >&2
    exit 2
}
# Of a process: tells it from a later one of the same number; "gone" when there is none.
start_time() {
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20 | grep . || echo gone
}
missing=$(for program in munged:munge slurmctld:slurm-wlm slurmd:slurm-wlm squeue:slurm-wlm; do
    command -v "${program%:*}" >/dev/null || echo "${program#*:}"
done | sort -u | tr '\n' ' ')
[[ -z $missing ]] || fail "a SLURM is missing; apt-get install $missing"
[[ $(id -u) == 0 ]] || fail "a SLURM of its own needs root; run this as root"
for name in "${links[@]}"; do
    [[ -e /etc/slurm/$name ]] || continue
    other=$(dirname "$(realpath "/etc/slurm/$name")")
    [[ -e $other/owner ]] ||
        fail "/etc/slurm/$name: this machine has a SLURM already; use another machine"
    read -r owner begun <"$other/owner"
    [[ $(start_time "$owner") != "$begun" ]] ||
        fail "$other: another test has its SLURM here (process $owner); wait for it," \
            "or end it by tests/slurm/stop.sh $other"
    "$(dirname "$0")/stop.sh" "$other"
    rm -rf "$other"
done
[[ $folder == --check ]] && exit

# Daemons outlive the calling process, and their folder must be open to what they start.
mkdir -p "$folder"/{munge,state,spool}
folder=$(realpath "$folder")
chmod 711 "$folder" "$folder/munge"
echo "$2 $(start_time "$2")" >"$folder/owner"

head -c 1024 /dev/urandom >"$folder/munge/key"
chmod 400 "$folder/munge/key"
munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
    --pid-file="$folder/munge.pid" \
    --seed-file="$folder/munge/seed" --log-file="$folder/munge/log"

for gpu in 0 1; do
    mknod "$folder/gpu$gpu" c 1 3
    echo "Name=gpu File=$folder/gpu$gpu"
done >"$folder/gres.conf"
sed -i '1i AutoDetect=off' "$folder/gres.conf"
echo "CgroupPlugin=cgroup/v1" >"$folder/cgroup.conf"

read -r controller node < <(python3 -c '
import socket
sockets = [socket.socket() for _ in range(2)]
for one in sockets:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in sockets))')
cat >"$folder/slurm.conf" <<END
ClusterName=loopback
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller
SlurmdPort=$node
AuthInfo=socket=$folder/munge/socket
SlurmUser=root
SlurmdUser=root
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
SlurmdParameters=config_overrides
MinJobAge=3600
KillWait=2
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=200000 Gres=gpu:2
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=ALL MaxTime=INFINITE State=UP
END

# A job step of the executor plugin knows no SLURM_CONF and looks here.
mkdir -p /etc/slurm
for name in "${links[@]}"; do
    ln -sf "$folder/$name" "/etc/slurm/$name" # perhaps over a link whose SLURM has been deleted
done
slurmctld -c -f "$folder/slurm.conf"
slurmd -c -f "$folder/slurm.conf"
for _ in $(seq 100); do
    [[ $(timeout -k 1 5 sinfo --noheader --format=%T 2>/dev/null | sort -u) == idle ]] && exit 0
    sleep 0.2
done
tail -n 5 "$folder"/slurm*.log >&2
"$(dirname "$0")/stop.sh" "$folder"
fail "$folder: the node is not idle after 20 s; see the log lines above"
