#!/bin/sh
# Find a Python that the chosen torch supports and let it run setup_env.py.
# usage: setup_env.sh TORCH_VERSION [setup_env.py options]; $PYTHON names an interpreter to use instead.
set -u
torch=$1
shift
newest=13
[ "$torch" = 2.1 ] && newest=12 # torch 2.1 has no packages for Python 3.12
for python in ${PYTHON:-python3.11 python3.12 python3.10 python3}; do
  if "$python" -c "import sys; sys.exit(not (3, 10) <= sys.version_info < (3, $newest))" >/dev/null 2>&1; then
    exec "$python" "$(dirname "$0")/setup_env.py" --torch "$torch" "$@"
  fi
done
echo "error: torch $torch needs Python 3.10 to 3.$((newest - 1)), and none of '${PYTHON:-python3.11 python3.12 python3.10 python3}' is that; install one (Debian, Ubuntu: apt-get install python3 python3-venv python3-dev) or say PYTHON=/path/to/python" >&2
exit 1
