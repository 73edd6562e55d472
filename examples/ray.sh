#!/bin/sh
# A Ray cluster of this machine and those named, the run, and the cluster's end:
#   MODEL=/data/model IMAGES=/data/images MASKS=/data/masks examples/ray.sh node2 node3
# Each machine has this folder with requirements.txt and requirements/ray.txt installed in .venv, the
# data under the same paths, and the same ~/.ray/auth_token where there is one. Machines that ssh
# doesn't reach join in their own way. At the end Ray is stopped on all: every cluster of this user's.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
ray=$here/.venv/bin/ray
address=$(hostname -I | cut -d' ' -f1):6379

stop() {
    for node in "$@"; do ssh "$node" "$ray stop" || true; done
    "$ray" stop
}
trap 'stop "$@"' EXIT
"$ray" start --head --port=6379 --disable-usage-stats
auth=RAY_AUTH_MODE=$([ -e ~/.ray/auth_token ] && echo token || echo disabled)
for node in "$@"; do ssh "$node" "$auth $ray start --address=$address"; done

# A worker a machine, which has its processors to itself.
"$here/.venv/bin/python" "$here/infer.py" --config "$MODEL/deploy.yaml" --image_path "$IMAGES" \
    --save_dir "$MASKS" --device cpu --ray auto --num_workers $(($# + 1)) \
    --resume --report "$MASKS.report.jsonl"
