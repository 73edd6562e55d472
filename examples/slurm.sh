#!/bin/bash
# A Slurm array of eight parts. Submit it in the folder that has infer.py, after the environment with the
# packages is activated: MODEL=/data/model IMAGES=/data/images MASKS=/data/masks sbatch examples/slurm.sh
#SBATCH --array=0-7
#SBATCH --cpus-per-task=8
#SBATCH --requeue
# An array that is submitted again, or a part that is requeued, continues where it stopped. With exec,
# the part's exit code is that of infer.py: 143 if it was cancelled or its time was over.
set -eu
exec python infer.py --config "$MODEL/deploy.yaml" --image_path "$IMAGES" --save_dir "$MASKS" \
    --device cpu --num_workers "$SLURM_CPUS_PER_TASK" --shard "$SLURM_ARRAY_TASK_ID/8" \
    --resume --report "$MASKS.$SLURM_ARRAY_TASK_ID.jsonl" --quiet
# When all parts are done: python examples/add_up_reports.py "$MASKS".*.jsonl
