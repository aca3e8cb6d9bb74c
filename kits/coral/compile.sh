#!/bin/sh
# Make model_int8_edgetpu.tflite for an Edge TPU, and say which operators it takes. Needs edgetpu_compiler, on x86-64 Linux.
set -eu
cd "$(dirname "$0")"
if ! command -v edgetpu_compiler >/dev/null; then
    echo "edgetpu_compiler is not installed here." >&2
    exit 1
fi
edgetpu_compiler -s model_int8.tflite
