#!/usr/bin/env bash
# Compile MinkowskiEngine 0.5.4 from its PyPI source for the CPU, once per machine, without root.
# The wheel is kept in the user's cache under a key of Python, torch, platform and this recipe, so a
# second clone installs it in seconds. BLAS is MKL from PyPI on x86-64 (twice as fast as OpenBLAS at
# 96 channels), the system's OpenBLAS elsewhere.
# Usage: environment/minkowski.sh VENV
set -euo pipefail
venv=$(cd "$1" && pwd)
recipe=$(cd "$(dirname "$0")" && pwd)/minkowski.sh
python=$venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK=1

key=$("$python" - "$recipe" <<'P'
import hashlib, platform, sys
import torch
parts = [sys.implementation.cache_tag, torch.__version__, platform.machine(), platform.libc_ver()[0]]
digest = hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest()[:12]
print("-".join(parts + [digest]))
P
)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/selkie/wheels/$key
if ! ls "$cache"/MinkowskiEngine-*.whl >/dev/null 2>&1; then
  command -v c++ >/dev/null || {
    echo "environment: MinkowskiEngine needs a C++ compiler, got none; install g++ (Debian: apt-get install g++) or run 'make env ENGINE=native'" >&2
    exit 2
  }
  echo "[env] compiling MinkowskiEngine 0.5.4, about five minutes on 2 cores; kept in $cache" >&2
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  # The source's setup.py needs an older setuptools than torch asks for, so it gets its own copy.
  "$venv/bin/pip" install --quiet --target "$work/tools" setuptools==69.5.1 wheel==0.48.0 ninja==1.13.2
  options=(--cpu_only)
  if [ "$(uname -m)" = x86_64 ]; then
    "$venv/bin/pip" download --quiet --no-deps -d "$work" mkl==2026.2.0 mkl-include==2026.2.0
    for wheel in "$work"/*.whl; do "$python" -m zipfile -e "$wheel" "$work/mkl"; done
    library=$(find "$work/mkl" -name 'libmkl_rt.so.*')
    header=$(find "$work/mkl" -name mkl.h)
    ln -s "$(basename "$library")" "$(dirname "$library")/libmkl_rt.so"
    options+=(--blas=mkl "--blas_include_dirs=$(dirname "$header")")
    # At run time the library is the lock file's mkl, in VENV/lib, three folders above the extension;
    # --blas_library_dirs would write a malformed run path, so the linker gets both by its flags.
    export CFLAGS=-DUSE_MKL
    export LDFLAGS="-L$(dirname "$library") -Wl,-rpath,\$ORIGIN/../../.."
  else
    options+=(--blas=openblas)
  fi
  settings=()
  for option in "${options[@]}"; do settings+=("--config-settings=--global-option=$option"); done
  # setup.py runs "pip uninstall MinkowskiEngine": PATH makes that this environment's pip.
  if ! PATH=$venv/bin:$work/tools/bin:$PATH PYTHONPATH=$work/tools MAX_JOBS=${MAX_JOBS:-$(nproc)} \
    "$venv/bin/pip" wheel -v --no-deps --no-build-isolation --use-pep517 --no-binary MinkowskiEngine \
    "${settings[@]}" -w "$work/wheels" MinkowskiEngine==0.5.4 > "$work/log" 2>&1; then
    mkdir -p "$cache" && cp "$work/log" "$cache/failed.log"
    grep -m 3 -E "error:|Error" "$work/log" | cut -c1-300 >&2 || true
    echo "environment: compiling MinkowskiEngine failed, log in $cache/failed.log; fix the compiler or run 'make env ENGINE=native'" >&2
    exit 2
  fi
  mkdir -p "$cache"
  wheel=$(basename "$work"/wheels/MinkowskiEngine-*.whl)
  cp "$work/wheels/$wheel" "$cache/.partial.$$"  # rename last: another clone may be compiling too
  mv "$cache/.partial.$$" "$cache/$wheel"
fi
"$venv/bin/pip" install --quiet --no-deps --force-reinstall "$cache"/MinkowskiEngine-*.whl
