#!/usr/bin/env bash
# accelerate 1.15.0: on a CPU, `accelerate launch --num_processes 2` starts one process, and says nothing of it.
#
# Behaviour: with --cpu --num_processes 2, or with a configuration of distributed_type MULTI_CPU and num_processes 2, the
# script runs once, without RANK or WORLD_SIZE, and stderr is empty where all options are given. torchrun starts two.
# Expected (guess before the run): two processes under gloo, as torchrun makes them; or an error that asks for mpirun.
#
# Output seen with accelerate 1.15.0, torch 2.13.0:
#     options: 1 of 1
#     configuration: 1 of 1
#     torchrun: 1 of 2, 2 of 2
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet accelerate==1.15.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
export HF_HOME="$folder" OMP_NUM_THREADS=1
cat > run.py <<'PYTHON'
import os

print(f"{int(os.environ.get('RANK', 0)) + 1} of {os.environ.get('WORLD_SIZE', 1)}", flush=True)
PYTHON
cat > cpu.yaml <<'YAML'
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_CPU
use_cpu: true
num_machines: 1
num_processes: 2
machine_rank: 0
mixed_precision: 'no'
YAML
tell() { echo "$1: $("${@:2}" run.py 2> errors | sort | paste -sd, | sed 's/,/, /g')"; }
{
    tell options venv/bin/accelerate launch --cpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no
    tell configuration venv/bin/accelerate launch --config_file cpu.yaml
    tell torchrun venv/bin/torchrun --nproc-per-node 2 --master-addr 127.0.0.1 --master-port 29611
} > seen.txt
cat seen.txt
diff - seen.txt <<'TEXT'
options: 1 of 1
configuration: 1 of 1
torchrun: 1 of 2, 2 of 2
TEXT
