#!/bin/bash
# A Slurm array of eight parts: sbatch examples/slurm.sh
#SBATCH --array=0-7
#SBATCH --cpus-per-task=8
#SBATCH --requeue
# An array that is restarted, or a part that is requeued, continues where it stopped.
python infer.py --config "$MODEL/deploy.yaml" --image_path "$IMAGES" --save_dir "$MASKS" \
    --device cpu --num_workers 8 --shard "$SLURM_ARRAY_TASK_ID/8" \
    --resume --report "$MASKS.$SLURM_ARRAY_TASK_ID.jsonl" --quiet
# When all parts are done: python examples/add_up_reports.py "$MASKS".*.jsonl
