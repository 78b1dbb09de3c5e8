#!/usr/bin/env bash
# Every probe on real data, at sizes for a CPU: one report per model, so that models of several seeds show the spread.
#
#   bash bench/real_probes.sh DATA OUT MODEL...     # DATA holds davis/, segmentation/camvid/ and depth/; OUT/<n>/ is the report of the n-th model
#   TRACKS=data/demo-0/davis bash bench/real_probes.sh DATA OUT MODEL...     # and point tracking, on exact tracks of synthetic videos
#   SHARDS=data/shards/clips bash bench/real_probes.sh DATA OUT MODEL...     # and the motion probe, on a set that no model was trained on
#
# Sizes: HEIGHT and SIDE px, ITERATIONS of each head, SEQUENCES of DAVIS, IMAGES of the homographies. PROBES: which, in this order.
# The n-th model goes with seed n - 1 (random decoder, heads). A probe that is stopped goes on where it was when the command is repeated.
set -euo pipefail
trap 'echo "Error: line $LINENO of $0 failed" >&2' ERR
usage="usage: bash bench/real_probes.sh DATA OUT MODEL..."
data=$(realpath "${1:?$usage}") out=${2:?$usage}
shift 2
[ $# -gt 0 ] || { echo "Error: no model: $usage" >&2; exit 1; }
mkdir -p "$out" && out=$(realpath "$out")
models=()
for model in "$@"; do models+=("$(realpath "$model")"); done
cd "$(dirname "$0")/.."
py=${PY:-.venv/bin/python}
height=${HEIGHT:-96} side=${SIDE:-96} iterations=${ITERATIONS:-100}
sequences=${SEQUENCES:-blackswan,car-roundabout,dog,drift-straight,horsejump-high,libby,scooter-black}
probes=${PROBES:-homography vos-knn segmentation-knn depth segmentation-linear segmentation tracking motion vos}

options() { # options PROBE: its data and sizes, in `given`
    case $1 in
        vos) given=(--davis "$data/davis" --sequences "$sequences" --height "$height" --iterations "$iterations") ;;
        vos-knn) given=(--davis "$data/davis" --sequences "$sequences" --height "$height") ;;
        segmentation | segmentation-linear)
            given=(--segmentation "$data/segmentation/camvid" --segmentation-layout camvid --segmentation-size "$side" --segmentation-iterations "$iterations" --segmentation-batch 4) ;;
        segmentation-knn) given=(--segmentation "$data/segmentation/camvid" --segmentation-layout camvid --segmentation-size "$side") ;;
        depth) given=(--depth "$data/depth" --height "$side" --depth-iterations "$iterations" --depth-batch 4) ;;
        homography) given=(--images "$data/davis/JPEGImages/480p" --height "$side" --most-images "${IMAGES:-14}" --views 1) ;;
        motion) given=(--shards "$SHARDS" --motion-size "${MOTION_SIZE:-$side}" --motion-pairs 2 --motion-videos "${VIDEOS:-24}") ;;
        tracking) given=(--tracks "$TRACKS" --height "$side") ;;
        *) echo "Error: no such probe here: $1" >&2; return 1 ;;
    esac
}

for ((n = 0; n < ${#models[@]}; n++)); do
    for probe in $probes; do
        [ "$probe" != motion ] || [ -n "${SHARDS:-}" ] || { echo "motion left out: SHARDS names no shard set"; continue; }
        [ "$probe" != tracking ] || [ -n "${TRACKS:-}" ] || { echo "tracking left out: TRACKS names no tracks"; continue; }
        sources=encoder,bilinear,random_decoder,flowfeat
        case $probe in vos | segmentation | segmentation-linear) sources+=,flowfeat++ ;; esac # logits to refine
        began=$SECONDS
        options "$probe"
        "$py" -m probes "$probe" --model "${models[n]}" --out "$out/$n" --seed "$n" --threads 1 --sources "$sources" "${given[@]}"
        echo "== $probe, model $n: $((SECONDS - began)) s"
    done
done
