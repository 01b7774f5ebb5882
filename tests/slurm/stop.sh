#!/usr/bin/env bash
# End the SLURM that start.sh has started in a folder: tests/slurm/stop.sh FOLDER
set -uo pipefail
folder=$(realpath "$1")
export SLURM_CONF=$folder/slurm.conf

# Jobs first: what they have started would outlive the daemons.
numbers=$(timeout -k 1 5 squeue --noheader --format=%A 2>/dev/null)
[[ -n $numbers ]] && timeout -k 1 5 scancel --quiet $numbers && sleep 3
for daemon in slurmd slurmctld munge; do
    pid=$(cat "$folder/$daemon.pid" 2>/dev/null) || continue
    [[ $(cat "/proc/$pid/comm" 2>/dev/null) == $daemon* ]] || continue # another's number by now?
    kill "$pid" 2>/dev/null
    for _ in $(seq 50); do
        kill -0 "$pid" 2>/dev/null || continue 2
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null
done
for name in slurm.conf gres.conf cgroup.conf; do
    [[ $(readlink "/etc/slurm/$name") == "$folder/$name" ]] && rm "/etc/slurm/$name"
done
true
