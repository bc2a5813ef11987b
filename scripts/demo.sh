#!/usr/bin/env bash
# From nothing to pictures: installs, draws a data set, trains a small text-to-image GAN on it, draws what prompts
# say and measures how well the pictures follow them. About eight minutes on two CPU cores; a GPU is used when there is one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
step() { printf '\n[%s] %s\n' "$(date +%H:%M:%S)" "$*"; }

step "1/5 installing"
setup
python=.venv/bin/python

step "2/5 drawing the scenes data set"
$python scripts/make_shards.py scenes --out shards/scenes-demo-64 --count 6000 --size 64 --seed 1

step "3/5 training (runs/demo; 6 minutes, the snapshots there show how it goes)"
# All said, or accelerate tells of its defaults; quiet, or it adds a traceback of its own to a line that says what is wrong.
.venv/bin/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
    t2i/train.py name=demo data.shards=shards/scenes-demo-64 train.minutes=6 \
    train.d_blur=0 loss.img_txt_clip.weight=1 loss.img_txt_d.weight=1 log.snapshot_kimg=2

step "4/5 drawing prompts"
$python scripts/generate.py --checkpoint runs/demo --count 6 --out out/demo.png \
    --prompt "a green train" --prompt "a red bus" --prompt "a blue boat on the water" --prompt "a zebra in a field"

step "5/5 asking a classifier how well pictures follow their prompts"
$python scripts/probe.py --checkpoint runs/demo

step "done: out/demo.png shows the prompts, runs/demo/snapshots how training went"
echo 'try: .venv/bin/python scripts/generate.py --prompt "a yellow car"   (with the model this run made)'
