#!/bin/sh
# Starts a Ray cluster on this machine and on those named, runs infer.py, and stops the cluster:
#   MODEL=/data/model IMAGES=/data/images MASKS=/data/masks examples/ray.sh node2 node3
# Each machine needs this folder, with requirements.txt and requirements/ray.txt installed in .venv, and
# the data under the same paths. Connect machines that ssh can't reach to the cluster yourself. At the
# end, the script stops Ray on this machine and on those named: this stops every Ray cluster of this user
# there.
set -eu
: "${MODEL:?}" "${IMAGES:?}" "${MASKS:?}"
here=$(cd "$(dirname "$0")/.." && pwd)
ray=$here/.venv/bin/ray
# Ray itself finds a wrong address of a machine that can't reach the internet.
head=$(hostname -I | cut -d' ' -f1)

# If this user has a token, Ray asks for it, also on the other machines.
token=${RAY_AUTH_TOKEN:-$(cat ~/.ray/auth_token 2>/dev/null || true)}
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-$([ "$token" ] && echo token || echo disabled)}"

stop() {
    for node in "$@"; do ssh -o ConnectTimeout=10 "$node" "'$ray' stop" || true; done
    "$ray" stop
}
"$ray" start --head --node-ip-address="$head" --port=6379 --disable-usage-stats
trap 'stop "$@"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
for node in "$@"; do
    echo "$token" | ssh -o ConnectTimeout=10 "$node" "read -r RAY_AUTH_TOKEN
        export RAY_AUTH_TOKEN RAY_AUTH_MODE=$RAY_AUTH_MODE
        '$ray' start --address=$head:6379 --node-ip-address=\$(hostname -I | cut -d' ' -f1)"
done

# One worker per machine. It uses all processors of its machine.
"$here/.venv/bin/python" "$here/infer.py" --config "$MODEL/deploy.yaml" --image_path "$IMAGES" \
    --save_dir "$MASKS" --device cpu --ray auto --num_workers $(($# + 1)) \
    --resume --report "$MASKS.report.jsonl"
