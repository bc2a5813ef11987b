# Sourced by demo.sh and test.sh: `setup [extra]` makes .venv in the project's folder and installs t2i into it, once.
# Whatever is missing is said in one line.

fail() {
    echo "error: $*" >&2
    exit 1
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

setup() {
    local extra="${1:-}" python free stamp
    stamp=".venv/installed${extra:+-$extra}"
    # Up to date when nothing that decides the installation is newer than it.
    if [ -e "$stamp" ] && [ "$stamp" -nt pyproject.toml ]; then
        return
    fi
    python=$(find_python) || fail "no Python 3.11 or newer found; install one, or name it: PYTHON=/path/to/python3.11"
    if [ ! -e .venv/installed ]; then
        free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
        [ "$free" -ge 9 ] || fail "only $free GB free in $PWD; the installation needs 9 GB (PyTorch with CUDA is 7 of them)"
    fi
    if [ ! -x .venv/bin/python ]; then
        "$python" -m venv .venv || fail "could not make .venv with $python; its venv module is missing (Debian: apt install python3-venv)"
    fi
    echo "installing into .venv (about 4 GB to download the first time) ..."
    .venv/bin/python -m pip install --quiet --disable-pip-version-check uv ||
        fail "pip could not install uv; is there a network connection, and a package index that pip is set up for?"
    # Compiled now, or every first start pays 20 seconds for it.
    .venv/bin/uv pip install --quiet --python .venv/bin/python --compile-bytecode -e ".${extra:+[$extra]}" ||
        fail "the installation did not finish (reason above; no network, or a full disk?); run this again to go on"
    touch .venv/installed "$stamp"
}
