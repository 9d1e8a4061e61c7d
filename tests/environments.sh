#!/usr/bin/env bash
# Run tests in a fresh virtual environment with other versions of Python and JAX.
#
#   tests/environments.sh NAME [core | ARGUMENTS OF PYTEST...]
#
# NAME        Python   versions
# floor       3.11     the lowest that pyproject.toml allows
# colab       3.13     those of a runtime of Google Colab, of August 2026
# current     3.11     JAX 0.10, with which bpvariants is developed
# current312  3.12     JAX 0.10
# newest      3.13     the newest of everything
# nightly     3.13     the newest of everything, pre-releases included
#
# Without further arguments, the fast tests run. `core` stands for a selection of test
# files that takes about a minute.
# The variable WITH_PYTHON names another interpreter than the one in the table.
# The exit status is 69 if the interpreter is missing, and else that of pip or pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

core=(
  tests/_jaxpr
  tests/cells/test_every_cell.py
  tests/cells/test_kernels.py
  tests/diagnostics/test_first_nonfinite.py
  tests/gradients/online/_influence
  tests/gradients/online/test_matrix.py
  tests/gradients/online/test_pes.py
  tests/gradients/online/test_uoro.py
  tests/gradients/remat/test_offload.py
  tests/gradients/static/test_matrix.py
  tests/test_bad_inputs.py
  tests/test_docs.py
  tests/test_layering.py
  tests/test_packaging.py
  tests/training/test_fit.py
  tests/training/test_programs.py
  tests/training/test_saved.py
  tests/updates/test_golden.py
  tests/updates/test_matrix.py
  tests/updates/discounted/test_forgetting.py
)

name=${1:-}
constraints=() options=() extras=test
case $name in
floor) version=3.11 constraints=(-c tests/constraints/floor.txt) ;;
colab) version=3.13 constraints=(-c tests/constraints/colab.txt) ;;
current) version=3.11 extras=test,oracles constraints=(-c tests/constraints/current.txt) ;;
current312) version=3.12 extras=test,oracles constraints=(-c tests/constraints/current.txt) ;;
newest) version=3.13 ;;
nightly) version=3.13 options=(--pre) ;;
*)
  echo "usage: tests/environments.sh floor|colab|current|current312|newest|nightly [core | ARGUMENTS OF PYTEST...]" >&2
  exit 2
  ;;
esac
shift
if [ "${1:-}" = core ]; then
  shift
  set -- "${core[@]}" "$@"
fi

# Print the interpreter of a version of Python, if one is installed. Those of pyenv are
# on the PATH as scripts that fail for a version that is not selected.
find_python() {
  local candidate
  for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1"*/bin/python \
    "$(command -v uv >/dev/null && uv python find --no-python-downloads "$1" 2>/dev/null)"; do
    if [ -n "$candidate" ] && [ "$("$candidate" -c 'import sys
print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$1" ]; then
      echo "$candidate"
      return
    fi
  done
}

python=${WITH_PYTHON:-$(find_python "$version")}
if [ -z "$python" ]; then
  echo "environment $name needs Python $version, which is not installed; WITH_PYTHON=python3 takes another one" >&2
  exit 69
fi

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
"$python" -m venv "$venv"
export PATH="$venv/bin:$PATH"
python -m pip install --quiet "${constraints[@]}" "${options[@]}" -e ".[$extras]"

python - "$name" <<'END'
import platform
import sys
from importlib.metadata import version

names = "jax jaxlib flax optax numpy scipy".split()
print(f"environment {sys.argv[1]}: Python {platform.python_version()},",
      ", ".join(f"{name} {version(name)}" for name in names), flush=True)
END
python -m pytest "$@"
