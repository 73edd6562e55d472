#!/bin/sh
# Starts a Ray cluster on this machine and on those named, runs infer.py, and stops the cluster:
#   MODEL=/data/model IMAGES=/data/images MASKS=/data/masks examples/ray.sh node2 node3
# Each machine needs this folder, with requirements.txt and requirements/ray.txt installed in .venv, the
# data under the same paths, and the same ~/.ray/auth_token if one exists. Connect machines that ssh
# can't reach to the cluster yourself. At the end, the script stops Ray on this machine and on those
# named: this stops every Ray cluster of this user there.
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

# One worker per machine. It uses all processors of its machine.
"$here/.venv/bin/python" "$here/infer.py" --config "$MODEL/deploy.yaml" --image_path "$IMAGES" \
    --save_dir "$MASKS" --device cpu --ray auto --num_workers $(($# + 1)) \
    --resume --report "$MASKS.report.jsonl"
