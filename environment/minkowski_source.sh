#!/usr/bin/env bash
# Download MinkowskiEngine 0.5.4's source with pip and unpack it into FOLDER; nothing is installed.
# pip runs setup.py to learn the package's name even when it only downloads. That setup.py imports
# torch, calls "pip uninstall MinkowskiEngine" (so it gets a pip on PATH that does nothing) and asks
# numpy.distutils, which new Pythons no longer have, for a BLAS (so it gets an answer).
# Usage: environment/minkowski_source.sh PYTHON FOLDER    (PYTHON has torch)
set -euo pipefail
python=$1 folder=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m pip install --quiet --target "$work/tools" setuptools==69.5.1 wheel==0.48.0
mkdir "$work/bin"
printf '#!/bin/sh\nexit 0\n' > "$work/bin/pip"
chmod +x "$work/bin/pip"
cat > "$work/tools/sitecustomize.py" <<'P'
import sys
import types

answer = types.ModuleType("numpy.distutils.system_info")
answer.get_info = lambda name: {"libraries": [name]}
sys.modules["numpy.distutils"] = types.ModuleType("numpy.distutils")
sys.modules["numpy.distutils.system_info"] = answer
P
PATH=$work/bin:$PATH PYTHONPATH=$work/tools "$python" -m pip download --no-deps --no-build-isolation \
  --no-binary MinkowskiEngine -d "$work/sdist" MinkowskiEngine==0.5.4 >&2
mkdir -p "$folder"
tar -xzf "$work"/sdist/MinkowskiEngine-0.5.4.tar.gz -C "$folder" --strip-components=1
