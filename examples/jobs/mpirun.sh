#!/bin/bash
# examples/jobs/mpirun.sh WORKERS [arguments of the script]       on this host
# HOSTS=a:8,b:8 examples/jobs/mpirun.sh 16 [...]                  on several
set -euo pipefail
workers=${1:?"usage: mpirun.sh WORKERS [arguments of the script]"}
shift
cd "$(dirname "$0")/../.."
# A core belongs to one worker only, or the workers' threads fight for it.
here=$((workers < $(nproc) ? workers : $(nproc)))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(($(nproc) / here))}
exec mpirun -n "$workers" ${HOSTS:+--host "$HOSTS"} python3 examples/char_gpt_lightning.py "$@"
