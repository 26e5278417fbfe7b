#!/usr/bin/env bash
# Makes .venv exactly as requirements.lock says (every file checked by hash) and installs headrace
# itself, editable, so that its command and its entry points exist. Safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."

pick_python() {
  for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
      2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "headrace needs Python 3.11 or newer: install it, or name one with PYTHON=/path/to/python3" >&2
  return 1
}

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  python=$(pick_python)
  echo "making .venv with $("$python" --version)"
  "$python" -m venv --clear .venv || {
    echo "cannot make a virtual environment: install the venv module (Debian: python3-venv)" >&2
    exit 1
  }
fi
pip=".venv/bin/python -m pip --disable-pip-version-check --quiet"
echo "installing what requirements.lock names"
$pip install --require-hashes --only-binary :all: -r deploy/bootstrap.lock
# uv is fast; pip, slower, is the one that knows a mirror configured for pip alone.
VIRTUAL_ENV="$PWD/.venv" .venv/bin/uv pip sync --quiet --require-hashes requirements.lock || {
  echo "uv could not install it; trying with pip, which takes longer"
  $pip install --require-hashes -r requirements.lock
}
$pip install --no-deps --no-build-isolation --no-index -e .
touch .venv/.ready
