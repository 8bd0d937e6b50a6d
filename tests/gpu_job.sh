#!/usr/bin/env bash
# A whole job on a GPU, from a bare machine: installs from a folder of wheels what is missing, transcribes the
# bundled speech and ten minutes made of it (or SPEECH_S seconds), with one GPU actor in bfloat16 and in float16
# and again in float32 on the CPU (or all on the CPU with GPUS=0), and compares the rows.
#
#     tests/gpu_job.sh WHEELS [OUT]        WHEELS is - where all is installed
#
# The machine has python3 with torch, transformers, triton and pyarrow. Where there is an index, this fills the
# folder, for the python and platform that pip's own options name:
#
#     tests/gpu_job.sh --fetch WHEELS [--python-version 3.12 --only-binary :all: --platform manylinux_2_28_x86_64]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
# As the project's own requirements say, but for torch and transformers, which the machine has.
mapfile -t needed < <($python - <<'NEEDED'
import re, tomllib
for one in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]:
    if re.match(r"[\w-]+", one)[0] not in ("torch", "transformers", "silero-vad"):
        print(one)
NEEDED
)
# Names torch and torchaudio as what it needs, of which the machine's own are used.
mapfile -t alone < <(grep -o '"silero-vad[^"]*"' pyproject.toml | tr -d '"')

if [ "$1" = --fetch ]; then
  wheels=$2
  shift 2
  $python -m pip download --quiet --no-deps --dest "$wheels" "$@" "${alone[@]}"
  $python -m pip download --quiet --dest "$wheels" "$@" "${needed[@]}"
  exit
fi

wheels=$1 out=${2:-out/gpu-job}
if [ "$wheels" != - ]; then
  $python -m pip install --quiet --no-index --find-links "$wheels" --no-deps "${alone[@]}"
  $python -m pip install --quiet --no-index --find-links "$wheels" "${needed[@]}"
fi
mkdir -p "$out/in"
$python - "$out/in" "${SPEECH_S:-600}" <<'MADE'
import sys
import numpy as np, soundfile
from pipeline.demo import SPEECH
folder, seconds = sys.argv[1:]
spoken = [soundfile.read(SPEECH / name, dtype="int16")[0] for name in ("kitchen.wav", "station.flac")]
one = np.concatenate([part for part in spoken])
soundfile.write(f"{folder}/made.flac", np.tile(one, 1 + int(seconds) * 16000 // len(one)), 16000)
MADE
for dtype in bfloat16 float16 float32; do
  gpus=$([ $dtype = float32 ] && echo 0 || echo "${GPUS:-1}")
  $python -m jobs.transcribe pipeline/demo/speech "$out/in" --model demo --sparsity 0 --dtype "$dtype" \
    --gpus-per-actor "$gpus" --no-local --output "$out/$dtype"
done
status=0
for dtype in bfloat16 float16; do
  $python -m tests.compare_rows "$out/float32" "$out/$dtype" || status=1
done
exit $status
