#!/usr/bin/env bash
# Builds the compiled CPU operators with the address and undefined-behaviour sanitizers, in a folder of their own, and
# runs their tests on random shapes against that build, or those that SANITIZE_TESTS names.
# Usage: tools/dev/sanitize.sh .venv/bin
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$(realpath "$1")
build=$PWD/build/sanitize
flags='-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1'

echo 'Building with sanitizers...'
mkdir -p "$build"
if ! ICCONV_MM_EXT=cpu CFLAGS=$flags LDFLAGS=$flags "$bin/python" setup.py build \
    --build-base "$build" --build-lib "$build/lib" > "$build/log.txt" 2>&1 \
    || ! ls "$build"/lib/icconv_mm/_C_torch*.so > /dev/null 2>&1; then
    tail -n 30 "$build/log.txt"
    echo "The build failed; all of it is in $build/log.txt" >&2
    exit 1
fi

# The interpreter is not instrumented, so the sanitizers come first; what it leaves behind at its end does not matter.
# They write to the process's own stderr, which pytest must not keep: it is lost when they end the process.
compiler=${CXX:-g++}
LD_PRELOAD="$($compiler -print-file-name=libasan.so) $($compiler -print-file-name=libubsan.so)" \
    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH="$build/lib" ICCONV_MM_REQUIRE_CPU=1 \
    "$bin/pytest" -q --capture=sys -p no:cacheprovider ${SANITIZE_TESTS:-tests/ops/test_convolution_cpu.py} "${@:2}"
