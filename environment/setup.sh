#!/usr/bin/env bash
# Make or update the Python environment: torch, the lock file, MinkowskiEngine.
# Usage: environment/setup.sh VENV PYTHON ENGINE   (called by `make env`)
set -euo pipefail
venv=$1 python=$2 engine=$3
here=$(cd "$(dirname "$0")" && pwd)
export PIP_DISABLE_PIP_VERSION_CHECK=1

used=$python
[ -x "$venv/bin/python" ] && used=$venv/bin/python
"$used" - "$venv" <<'P'
import sys
if not (3, 11) <= sys.version_info[:2] < (3, 13):
    sys.exit(f"environment: Python must be 3.11 or 3.12, got {sys.version.split()[0]}; "
             f"remove {sys.argv[1]} if it is there, run 'make env PYTHON=/path/to/python3.11'")
P
[ -x "$venv/bin/pip" ] || "$python" -m venv "$venv"

echo "[env] installing torch and the lock file into $venv" >&2
"$venv/bin/pip" install --quiet torch==2.13.0
"$venv/bin/pip" install --quiet --no-deps -r "$here/../requirements.lock"

# MinkowskiEngine is compiled for the GPUs that are here, or that TORCH_CUDA_ARCH_LIST names, where
# there is an nvcc; for the CPU elsewhere.
recipe=minkowski.sh
if "$venv/bin/python" - <<'P'
import os, sys, torch
wanted = torch.version.cuda and os.environ.get("TORCH_CUDA_ARCH_LIST")
sys.exit(not (torch.cuda.is_available() or wanted))
P
then
  if [ -n "${CUDA_HOME:-}" ] || command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
    recipe=minkowski_cuda.sh
  else
    echo "[env] a GPU but no nvcc: MinkowskiEngine is compiled for the CPU, the native engine runs on the GPU" >&2
  fi
fi

case $engine in
  minkowski) bash "$here/$recipe" "$venv" ;;
  auto)
    bash "$here/$recipe" "$venv" || {
      [ $recipe = minkowski_cuda.sh ] &&
        echo "[env] so MinkowskiEngine is compiled for the CPU, the native engine runs on the GPU" >&2 &&
        bash "$here/minkowski.sh" "$venv"
    } ||
      echo "[env] no MinkowskiEngine here, so the native engine is used: same weights, no compiler" >&2
    ;;
  native) echo "[env] ENGINE=native: MinkowskiEngine is not compiled" >&2 ;;
  *) echo "environment: ENGINE must be auto, minkowski or native, got '$engine'" >&2; exit 2 ;;
esac
