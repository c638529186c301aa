#!/bin/bash
# A sharded run on several hosts under Slurm. NOT RUN HERE: adapt the names of partitions, folders and modules.
#
#   sbatch docs/examples/slurm.sh
#
# Slurm sends SIGTERM before the time limit; the processes have torchrun's 30 seconds to save and end, and the next job
# goes on with --resume from what was saved last.
#SBATCH --job-name=bottleneck
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --output=%x-%j.log

set -euo pipefail

PROJECT=$HOME/bottleneck-core           # a checkout with its .venv, on a disk that all hosts see
RUN=/shared/runs/1b_bottleneck          # likewise: all processes write last.dcp
DATA=/shared/data/my.gpt2.bin

cd "$PROJECT"
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / 8))
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

# One launcher a host; exec, so that Slurm's signal reaches torchrun, which passes it on.
srun --kill-on-bad-exit=1 bash -c "exec .venv/bin/python -m torch.distributed.run \
    --nnodes $SLURM_NNODES --nproc-per-node 8 \
    --rdzv-id $SLURM_JOB_ID --rdzv-backend c10d --rdzv-endpoint $HEAD:29500 \
    -m bottleneck_core train --size 1b --exp paper_bottleneck --data $DATA --out-dir $RUN \
    --shard --batch-size 64 --grad-accum 2 --instrument basic --save-every 500 --resume"
