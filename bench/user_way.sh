#!/usr/bin/env bash
# A user's way through the README, timed: extract, train, interrupt, resume, a sweep of six rows, its table, features of a picture of odd size.
#
#   bash bench/user_way.sh DIR                       # everything is written under DIR, which must not exist yet
#   VENV=path/to/.venv bash bench/user_way.sh DIR    # an environment that is ready already, instead of .venv here
#
#   RECORD=1 bash bench/user_way.sh DIR              # and append what every step took to bench/results.csv
#
# Synthetic clips stand in for a user's own. Wall-clock time depends on what else runs, so CPU time and the load are printed beside it.
# STEPS: of the training. SWEEP: settings of the sweep (TRAIN of make). CLIPS, SEQUENCES: how many videos are made. INTERRUPT_AFTER_S: 20.
set -euo pipefail
trap 'echo "Error: line $LINENO of $0 failed" >&2' ERR
cd "$(dirname "$0")/.."
work=${1:?usage: bash bench/user_way.sh DIR}
[ ! -e "$work" ] || { echo "Error: $work exists: name another directory" >&2; exit 1; }
mkdir -p "$work" && work=$(cd "$work" && pwd)
venv=${VENV:-.venv}
make=(make --no-print-directory "VENV=$venv")
[ -z "${VENV:-}" ] || make+=(-o "$venv/.ready")
"${make[@]}" "$venv/.ready" > "$work/install.txt" 2>&1
py=$venv/bin/python
train=(SHARDS="$work/shards" RUN="$work/run" CONFIG=configs/demo.toml TRAIN="train.steps=${STEPS:-120} log.checkpoint_every=40")

load() { cut -d' ' -f1-3 /proc/loadavg 2> /dev/null || echo unknown; }
cpu_s() { # CPU seconds of all that has ended; `times` must run in this very shell
    times > "$work/times.txt"
    awk 'NR == 2 { for (i = 1; i <= 2; i++) { split($i, t, /[ms]/); s += 60 * t[1] + t[2] } printf "%.0f\n", s }' "$work/times.txt"
}
step() { # step NAME COMMAND...: run it with its output in a file, print what it took
    local name=$1 began=$SECONDS
    shift
    if ! "$@" > "$work/$name.txt" 2>&1; then
        echo "Error: $name failed, the last lines of $work/$name.txt:" >&2
        tail -5 "$work/$name.txt" >&2
        exit 1
    fi
    printf '%-12s %5d s\n' "$name" $((SECONDS - began))
    steps+=("$name=$((SECONDS - began))")
}
row() { # row FIGURE SECONDS NOTE
    "$py" bench/record.py --command 'bash bench/user_way.sh DIR' user_way "$1" "$2" s "$3"
}
interrupted_training() { # as Ctrl-C some seconds after it has begun; the run must say that it was interrupted
    set -m # a process group of its own, in which an interrupt is not ignored
    "${make[@]}" train "${train[@]}" &
    set +m
    until grep -qs '"event": "start"' "$work/run/log.jsonl"; do
        kill -0 $! || return 1
        sleep 1
    done
    sleep "${INTERRUPT_AFTER_S:-20}"
    kill -INT -- -$!
    wait $! || true
    tail -1 "$work/run/log.jsonl" | grep -q '"reason": "interrupted"'
}
resumed_training() {
    "${make[@]}" train "${train[@]}"
    grep -q '"resumed": true' "$work/run/log.jsonl" && [ -s "$work/run/flowfeat.safetensors" ]
}

steps=()
SECONDS=0
echo "$(nproc) cores, load $(load)"
step clips "$py" -m pipeline synth --out "$work/clips" --videos "${CLIPS:-48}" --davis-sequences "${SEQUENCES:-4}"
step extract "${make[@]}" extract-flow DATASET=synthetic ROOT="$work/clips/videos" SHARDS="$work/shards" PASSES=4
step verify "${make[@]}" verify SHARDS="$work/shards"
step interrupt interrupted_training
step resume resumed_training
step sweep "${make[@]}" sweep SWEEP=configs/sweeps/demo.toml SHARDS="$work/shards" DAVIS="$work/clips/davis" \
    OUT="$work/sweep" JOBS="$(nproc)" TRAIN="${SWEEP:-train.steps=60}"
step probe "${make[@]}" probe RUN="$work/run" DAVIS="$work/clips/davis" PROBE='--height 160'
picture=$(find "$work/clips/davis/JPEGImages" -name '*.jpg' | sort | sed -n 1p)  # sed reads to the end: with head, sort would die of a closed pipe
"$py" -c 'import sys; from PIL import Image; Image.open(sys.argv[1]).resize((333, 211)).save(sys.argv[2])' "$picture" "$work/odd.jpg"
step features "$py" -m trainer features --model "$work/run/flowfeat.safetensors" --out "$work/features" --size 211 "$work/odd.jpg"
"$py" -c 'import sys, numpy; h, w = numpy.load(sys.argv[1]).shape[1:]; assert abs(h - 211) < 16 > abs(w - 333), (h, w); print(f"features: {w}x{h}")' \
    "$work/features/odd.npy" # sides are rounded to what the network takes
sed -n '/^|/p' "$work/sweep/sweep.md"
cpu_s > "$work/cpu.txt"
all=$SECONDS
echo "all: $all s, $(cat "$work/cpu.txt") s of CPU time, load now $(load)"
[ -n "${RECORD:-}" ] || exit 0
note="${CLIPS:-48} clips, ${STEPS:-120} steps, $(nproc) threads, load at the end $(load)"
for each in "${steps[@]}"; do row "${each%%=*}_wall_s" "${each#*=}" "$note"; done
row all_wall_s "$all" "$note"
row all_cpu_s "$(cat "$work/cpu.txt")" "$note"
