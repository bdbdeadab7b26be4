#!/usr/bin/env bash
# Compile MinkowskiEngine 0.5.4 from its PyPI source with CUDA 12 or 13 for the GPUs of this machine.
# The source gets the edits of minkowski_edits.py; wheel, cache and BLAS are as in minkowski.sh, whose
# bytes are part of its wheels' key and which therefore shares nothing with this file.
# TORCH_CUDA_ARCH_LIST="8.0 9.0" names other GPUs than those present; CUDA_HOME another toolkit.
# Usage: environment/minkowski_cuda.sh VENV
set -euo pipefail
venv=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
python=$venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK=1

if [ -z "${CUDA_HOME:-}" ]; then
  nvcc=$(command -v nvcc || true)
  [ -n "$nvcc" ] || [ ! -x /usr/local/cuda/bin/nvcc ] || nvcc=/usr/local/cuda/bin/nvcc
  # a wrapper script on PATH may run an nvcc elsewhere, which names its own folder
  CUDA_HOME=$([ -z "$nvcc" ] || "$nvcc" -v --dryrun -c x.cu 2>&1 | sed -n 's/^#\$ TOP=//p' | head -1) || CUDA_HOME=
fi
export CUDA_HOME
facts=$("$python" "$here/cuda_facts.py" "$CUDA_HOME")  # checked: nvcc, its version, the GPUs
read -r nvcc_version TORCH_CUDA_ARCH_LIST <<< "$facts"
export TORCH_CUDA_ARCH_LIST

key=$("$python" - "$nvcc_version" "$TORCH_CUDA_ARCH_LIST" "$here"/minkowski_{cuda.sh,source.sh,edits.py} <<'P'
import hashlib, platform, sys
import torch
nvcc, arches, *recipe = sys.argv[1:]
parts = [sys.implementation.cache_tag, torch.__version__, platform.machine(), platform.libc_ver()[0]]
parts += ["nvcc" + nvcc, "sm" + arches.replace(".", "").replace(";", "_")]
digest = hashlib.sha256(b"".join(open(path, "rb").read() for path in recipe)).hexdigest()[:12]
print("-".join(parts + [digest]))
P
)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/selkie/wheels/$key
if ! ls "$cache"/MinkowskiEngine-*.whl >/dev/null 2>&1; then
  command -v "${CXX:-c++}" >/dev/null || {
    echo "environment: MinkowskiEngine needs a C++ compiler, got none; install g++ (Debian: apt-get install g++) or run 'make env ENGINE=native'" >&2
    exit 2
  }
  echo "[env] compiling MinkowskiEngine 0.5.4 with nvcc $nvcc_version for compute capability $TORCH_CUDA_ARCH_LIST; kept in $cache" >&2
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  fail() {
    mkdir -p "$cache" && cp "$work/log" "$cache/failed.log"
    grep -m 3 -E "error:|Error" "$work/log" | cut -c1-300 >&2 || true
    echo "environment: $1 MinkowskiEngine for CUDA failed, log in $cache/failed.log; see docs/gpu.md, or run 'make env ENGINE=native'" >&2
    exit 2
  }
  "$venv/bin/pip" install --quiet --target "$work/tools" setuptools==69.5.1 wheel==0.48.0 \
    ninja==1.13.2 > "$work/log" 2>&1 || fail "installing the tools for"
  bash "$here/minkowski_source.sh" "$python" "$work/source" > "$work/log" 2>&1 || fail "downloading"
  "$python" "$here/minkowski_edits.py" "$work/source" >&2
  options=(--force_cuda)
  if [ "$(uname -m)" = x86_64 ]; then
    "$venv/bin/pip" download --quiet --no-deps -d "$work" mkl==2026.2.0 mkl-include==2026.2.0
    for wheel in "$work"/*.whl; do "$python" -m zipfile -e "$wheel" "$work/mkl"; done
    library=$(find "$work/mkl" -name 'libmkl_rt.so.*')
    header=$(find "$work/mkl" -name mkl.h)
    ln -s "$(basename "$library")" "$(dirname "$library")/libmkl_rt.so"
    options+=(--blas=mkl "--blas_include_dirs=$(dirname "$header")")
    export CFLAGS=-DUSE_MKL NVCC_APPEND_FLAGS="${NVCC_APPEND_FLAGS:-} -DUSE_MKL"
    export LDFLAGS="-L$(dirname "$library") -Wl,-rpath,\$ORIGIN/../../.."
  else
    options+=(--blas=openblas)
  fi
  settings=()
  for option in "${options[@]}"; do settings+=("--config-settings=--global-option=$option"); done
  cccl=$CUDA_HOME/include/cccl  # where CUDA 13 keeps thrust: nvcc looks there, the C++ compiler not
  [ ! -d "$cccl" ] || export CPATH=$cccl${CPATH:+:$CPATH}
  PATH=$CUDA_HOME/bin:$work/tools/bin:$PATH PYTHONPATH=$work/tools \
    MAX_JOBS=${MAX_JOBS:-$(nproc)} "$python" -m pip wheel -v --no-deps --no-build-isolation \
    --use-pep517 "${settings[@]}" -w "$work/wheels" "$work/source" > "$work/log" 2>&1 ||
    fail "compiling"
  mkdir -p "$cache"
  wheel=$(basename "$work"/wheels/MinkowskiEngine-*.whl)
  cp "$work/wheels/$wheel" "$cache/.partial.$$"  # rename last: another clone may be compiling too
  mv "$cache/.partial.$$" "$cache/$wheel"
fi
"$venv/bin/pip" install --quiet --no-deps --force-reinstall "$cache"/MinkowskiEngine-*.whl
