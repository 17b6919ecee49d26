#!/bin/sh
# Find a Python that the chosen torch supports and let it run setup_env.py.
# usage: setup_env.sh TORCH_VERSION [setup_env.py options]; $PYTHON names an interpreter to use instead.
set -u
torch=$1
shift
case "$torch" in
  2.1) first=10 last=11 ;; # torch 2.1 has no packages for Python 3.12
  2.15) first=13 last=13 ;; # today's Python, whose versions its constraints are
  *) first=10 last=12 ;;
esac
[ $first = $last ] && range="3.$last" || range="3.$first to 3.$last"
# pyenv's commands on the PATH fail for the versions that it does not select
candidates=${PYTHON:-python3.11 python3.12 python3.10 python3.13 python3 ${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/*/bin/python3}
for python in $candidates; do
  if "$python" -c "import sys; sys.exit(not (3, $first) <= sys.version_info[:2] <= (3, $last))" >/dev/null 2>&1; then
    exec "$python" "$(dirname "$0")/setup_env.py" --torch "$torch" "$@"
  fi
done
hint="install one, with its venv module and headers, or say PYTHON=/path/to/python"
echo "error: torch $torch needs Python $range, and none of '$candidates' is that; $hint" >&2
exit 1
