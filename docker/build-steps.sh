#!/bin/sh
# The steps that build the image, one by one, for docker/Dockerfile and for docker/try-image.sh.
# Run from the folder that holds what .dockerignore lets through:
#   docker/build-steps.sh dependencies PREFIX    a venv with all that requirements.lock names
#   docker/build-steps.sh install PREFIX         Pyrope itself, into it
set -eu

if [ $# -ne 2 ]; then
  echo "usage: $0 dependencies|install PREFIX" >&2
  exit 2
fi
prefix=$2

# hnswlib compiles for the building machine's own processor, whose instructions the machine that
# runs the image may lack. x86-64-v3 (AVX2, FMA) is what processors since 2013 have; for another
# architecture set HNSWLIB_CFLAGS to nothing, or to a flag of its own.
export HNSWLIB_NO_NATIVE=1
export CFLAGS="${HNSWLIB_CFLAGS--march=x86-64-v3}"

case $1 in
  dependencies)
    make dependencies VENV="$prefix" PYTHON="${PYTHON:-python3}"
    ;;
  install)
    # EDITABLE=: copied, so that the image needs the venv alone.
    make install VENV="$prefix" PYTHON="${PYTHON:-python3}" EDITABLE=
    ;;
  *)
    echo "$0: unknown step '$1'" >&2
    exit 2
    ;;
esac
