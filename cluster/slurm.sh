#!/bin/bash
# A search on the nodes of one Slurm job: Ray starts on each of them, the search on the first.
#
#     sbatch --nodes=4 cluster/slurm.sh search_spaces/mind_llm.yaml
#     sbatch --nodes=4 cluster/slurm.sh search_spaces/mind_llm.yaml --trials 200
#     tail -f legoray-<job>.log
#     scancel --batch --signal=TERM <job>     # stops it softly
#
# Run it from the repository, on storage that all nodes mount, with LegoRay installed in .venv (or
# VENV=...). Two minutes before the time limit the search stops softly and the job is queued again:
# it goes on where it was. LEGORAY_HOME (caches) and LEGORAY_SWEEPS (sweeps) may name other shared
# storage, or s3:// and gs:// addresses.
#
# Every start makes a token of its own, so that nobody else on the nodes can use this Ray. To look at
# the dashboard: ssh -L 8265:127.0.0.1:8265 <first node>, and give it the token of the token file.
#SBATCH --job-name=legoray
#SBATCH --output=legoray-%j.log
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
set -euo pipefail

space=${1:-search_spaces/mind_llm.yaml}
shift || true
folder=$(pwd)
export PATH="${VENV:-$folder/.venv}/bin:$PATH"
export LEGORAY_HOME=${LEGORAY_HOME:-$folder/.legoray}
sweeps=${LEGORAY_SWEEPS:-$folder/sweeps}
scratch=${LEGORAY_SCRATCH:-/tmp} # of each node; Ray's sockets want a short path
job=${SLURM_JOB_ID:?run it by sbatch}
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$folder/.ray-token-$job"

steps=()
search=
stopped=

# shellcheck disable=SC2329 # by the trap
finish() {
  kill "${steps[@]}" 2>/dev/null || true
  wait "${steps[@]}" 2>/dev/null || true
  rm -f "$RAY_AUTH_TOKEN_PATH"
}

# shellcheck disable=SC2329 # by the traps
soft() {
  stopped=$1
  if [ -n "$search" ]; then kill -TERM "$search" 2>/dev/null || true; fi
}

trap finish EXIT
trap 'soft asked' TERM INT
trap 'soft time' USR1

# The token is read by every node from shared storage, by this user alone.
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH")

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + job % 1000 * 10)) # and the nine behind it: jobs may share a node
if [ -z "${nodes[0]:-}" ]; then
  echo "scontrol names no node of $SLURM_JOB_NODELIST" >&2
  exit 1
fi
head=${nodes[0]}
address="$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}'):$port"
cpus=${SLURM_CPUS_PER_TASK:-1}
gpus=${SLURM_GPUS_ON_NODE:-0}

# A node's Ray keeps its files in a folder of its own, and lives until its step is ended.
start() {
  local node=$1 agent=$((port + 2 + ${#steps[@]} % 8))
  shift
  srun --nodes=1 --ntasks=1 --overlap --nodelist="$node" \
    ray start --block --num-cpus="$cpus" --num-gpus="$gpus" \
    --temp-dir="$scratch/lr$job-$node" --dashboard-agent-listen-port="$agent" \
    "$@" >"$folder/.ray-$job-$node.log" 2>&1 &
  steps+=($!)
}

alive() {
  python - "$address" <<'PYTHON'
import sys

import ray

ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
print(sum(node["Alive"] for node in ray.nodes()))
PYTHON
}

wait_for() {
  local seconds=${LEGORAY_WAIT:-300} deadline
  deadline=$((SECONDS + seconds))
  until [ "$(alive 2>/dev/null | tail -n 1)" = "$1" ]; do
    if [ $SECONDS -ge $deadline ]; then
      echo "after $seconds seconds there are no $1 Ray nodes at $address: see $folder/.ray-$job-*.log" >&2
      exit 1
    fi
    sleep 5
  done
}

start "$head" --head --port="$port" --ray-client-server-port="$((port + 1))" \
  --dashboard-host=127.0.0.1 --dashboard-port="${LEGORAY_DASHBOARD_PORT:-8265}"
wait_for 1
for node in "${nodes[@]:1}"; do start "$node" --address="$address"; done
wait_for "${#nodes[@]}"

python run_search.py "$space" --address "$address" \
  --folder "$sweeps/$(basename "$space" .yaml)" "$@" &
search=$!
code=0
wait "$search" || code=$?
if [ -n "$stopped" ]; then # a trap ends the first `wait`, not the search
  code=0
  wait "$search" || code=$?
fi
if [ "$stopped" = time ] && [ "$code" -eq 130 ]; then scontrol requeue "$job"; fi
exit "$code"
