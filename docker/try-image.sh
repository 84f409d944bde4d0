#!/bin/sh
# Does what `docker build` and `docker run` would, without Docker: takes what .dockerignore lets
# through to a clean folder, builds there with the steps of the image, starts the server as the
# image does (user, command, environment, a root that it cannot write to), has its health checked,
# and stops it. Exits with 0 where all of that works.
#   docker/try-image.sh [FOLDER]      FOLDER is kept, and what it has built is used again
# Needs g++, make, python3 with venv; two minutes the first time.
set -eu
cd "$(dirname "$0")/.."
repository=$PWD
python=${PYTHON:-python3}

if [ $# -gt 0 ]; then
  folder=$1
  mkdir -p "$folder"
else
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
fi
folder=$(cd "$folder" && pwd)

# The build's context: the lines of .dockerignore that let something through.
rm -rf "$folder/build"
mkdir -p "$folder/build"
sed -n 's/^!//p' .dockerignore | while read -r kept; do
  mkdir -p "$folder/build/$(dirname "$kept")"
  cp -R "$kept" "$folder/build/$(dirname "$kept")/"
done
find "$folder/build" -name __pycache__ -type d -prune -exec rm -rf {} +

cd "$folder/build"
PYTHON=$python docker/build-steps.sh dependencies "$folder/opt/pyrope"
PYTHON=$python docker/build-steps.sh install "$folder/opt/pyrope"

cd "$repository"
exec "$folder/opt/pyrope/bin/python" docker/start_image.py "$folder/opt/pyrope"
