#!/usr/bin/env bash
# Make .venv or bring it up to date (`make install`), or fill a folder with wheels (`make wheels`).
#
#   PYTHON   the interpreter to take; else the newest supported one that is found
#   TORCH    cpu: the build of torch without CUDA, where the machine reaches torch's own index
#   WHEELS   a folder that `make wheels` filled: install from it, without a network
#   FOLDER   with --wheels: the folder to fill
#
# --state prints nothing where .venv is as it was asked for, else what is wrong with it.
set -euo pipefail
cd "${0%/*}/.."

oldest=11
newest=14
installed=.venv/installed    # there when an installation has ended; says what it took
unfinished=.venv/unfinished  # there from an installation's begin to its end
PYTHON=${PYTHON:-} TORCH=${TORCH:-} WHEELS=${WHEELS:-} FOLDER=${FOLDER:-}
export PIP_DISABLE_PIP_VERSION_CHECK=1

fail() {
    echo "error: $*" >&2
    exit 2
}

minor() {  # the 12 of a Python 3.12; nothing where it does not run
    "$1" -S -c 'import sys; v = sys.version_info; print(v[1] * (v[0] == 3))' 2>/dev/null
}

supported() {
    [[ $1 -ge $oldest && $1 -le $newest ]]
}

makes_environments() {
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1
}

no_environments() {
    fail "$1 cannot make virtual environments; apt-get install python3-venv"
}

no_wheels() {
    fail "$WHEELS has no wheels for Python $1; make wheels PYTHON=python$1 FOLDER=$WHEELS adds them"
}

has_wheels() {  # judged by torch, which has one for each Python
    [[ -z $WHEELS ]] || compgen -G "$WHEELS/torch-*-cp3$1-*.whl" >/dev/null
}

named_python() {
    local found
    found=$(minor "$PYTHON") || fail "PYTHON=$PYTHON is no Python that runs"
    supported "$found" || fail "$PYTHON is Python 3.$found; 3.$oldest to 3.$newest are supported"
    makes_environments "$PYTHON" || no_environments "$PYTHON"
    has_wheels "$found" || no_wheels "3.$found"
    echo "$PYTHON"
}

newest_python() {
    local names=() number
    for ((number = newest; number >= oldest; number--)); do names+=("python3.$number"); done
    local name found best='' best_minor=0 without_venv='' without_wheels='' other=''
    for name in python3 "${names[@]}"; do
        found=$(minor "$name") || continue
        if ! supported "$found"; then
            other=" (python3 is 3.$found)"
        elif ! makes_environments "$name"; then
            without_venv="3.$found"
        elif ! has_wheels "$found"; then
            without_wheels="3.$found"
        elif [[ $found -gt $best_minor ]]; then
            best=$name best_minor=$found
        fi
    done
    if [[ -z $best && -n $without_wheels ]]; then
        no_wheels "$without_wheels"
    elif [[ -z $best && -n $without_venv ]]; then
        no_environments "Python $without_venv"
    elif [[ -z $best ]]; then
        fail "no Python 3.$oldest to 3.$newest found$other; apt-get install python3 python3-venv," \
            'or name one: make PYTHON=python3.12'
    fi
    echo "$best"
}

state() {
    local made_by='' torch=''
    [[ -e $installed ]] || { echo 'not installed'; return; }
    read -r made_by torch <"$installed" || true
    if [[ -n $made_by && "3.$(minor .venv/bin/python)" != "$made_by" ]]; then
        echo "its Python $made_by is gone"
    elif [[ -n $PYTHON && "3.$(minor "$PYTHON")" != "$made_by" ]]; then
        echo "Python $made_by made it"
    elif [[ -n $TORCH && $TORCH != "$torch" ]]; then
        echo 'another build of torch is asked for'
    elif [[ pyproject.toml -nt $installed || constraints.txt -nt $installed ]]; then
        echo 'its list of packages has changed'
    fi
}

usable() {  # can what lies in .venv be brought up to date?
    local has
    [[ ! -e $unfinished ]] || return 1
    has=$(minor .venv/bin/python) && supported "$has" && has_wheels "$has" || return 1
    [[ -z $PYTHON || $(minor "$PYTHON") == "$has" ]] || return 1
    .venv/bin/python -m pip --version >/dev/null 2>&1
}

cpu_builds() {  # the options by which pip $1 takes torch's CPU builds; only uv knows their index
    local found
    "$1" -m pip install --quiet --constraint constraints.txt uv >&2 || return 1
    found=$("$1" -m uv pip compile --quiet --no-deps --no-header --torch-backend cpu \
        --emit-index-annotation --python "$1" --constraint constraints.txt - \
        <<<$'torch\ntorchvision' 2>/dev/null) || return 1
    sed -n '/^ *# from /{s///; s/^/--index-url=/p; q}' <<<"$found"
    grep -v '^ *#' <<<"$found"
}

# Let pip of Python $1 do $2 with immutables, which Snakemake needs. It has no wheel for Python
# 3.14, and works without its C part: where it must be built, a compiler that does nothing leaves
# that out. The result stays out of pip's cache, since other projects may want the C part.
immutables() {
    local pip=("$1" -m pip "$2" --quiet --no-deps --constraint constraints.txt "${@:3}" immutables)
    "${pip[@]}" --only-binary immutables 2>/dev/null ||
        CC=true LDSHARED=true "${pip[@]}" --no-cache-dir --no-binary immutables || give_up
}

check_words() {
    [[ -z $TORCH || $TORCH == cpu ]] || fail "TORCH=$TORCH: cpu is the only word it takes"
    [[ -z $WHEELS || -z $TORCH ]] || fail 'TORCH has no effect beside WHEELS, which holds one build'
    [[ -z $WHEELS || -d $WHEELS ]] ||
        fail "WHEELS=$WHEELS is no folder; with a network, make wheels FOLDER=$WHEELS fills it"
    [[ -z $WHEELS ]] || WHEELS=$(cd "$WHEELS" && pwd)
}

wait_for_others() {  # `make demo` and `make test` may begin at once
    command -v flock >/dev/null || return 0
    exec 9<pyproject.toml
    flock --nonblock 9 || { echo 'another installation is at work here: waiting'; flock 9; }
}

install() {
    local python why options=() builds torch=''
    check_words
    wait_for_others
    why=$(state)
    [[ -n $why ]] || return 0
    if [[ -z $TORCH && -z $WHEELS ]]; then  # once chosen, the CPU build stays
        if [[ -e $installed ]]; then
            read -r _ torch <$installed || true
        elif [[ -e $unfinished ]]; then
            read -r _ torch <$unfinished || true
        fi
        if [[ $torch == cpu ]]; then TORCH=cpu; fi
    fi
    if usable; then
        echo "- ${TORCH:-default}" >$unfinished
        rm -f $installed
    else
        if [[ -n $PYTHON ]]; then python=$(named_python); else python=$(newest_python); fi
        if [[ -e $unfinished ]]; then why='the last installation was interrupted'; fi
        if [[ -e .venv/bin ]]; then echo ".venv is made anew: $why"; fi
        echo "Python 3.$(minor "$python") ($python) makes .venv"
        "$python" -m venv --clear .venv
        echo "- ${TORCH:-default}" >$unfinished
    fi
    python=.venv/bin/python
    if [[ -n $WHEELS ]]; then options=(--no-index --find-links "$WHEELS"); fi
    $python -m pip install --quiet "${options[@]}" --constraint constraints.txt pip || give_up
    if [[ $TORCH == cpu ]] && builds=$(cpu_builds $python); then
        # shellcheck disable=SC2086
        $python -m pip install --quiet --no-deps $builds || give_up
        $python -m pip freeze | sed -nE 's/^((nvidia|cuda)-[^=]*|triton)==.*/\1/p' |
            xargs --no-run-if-empty $python -m pip uninstall --quiet --yes
    elif [[ $TORCH == cpu ]]; then
        echo "TORCH=cpu: torch's own index is out of reach; the default build is taken (+ 4 GB)" >&2
    fi
    immutables $python install "${options[@]}"
    PYTHONWARNINGS=ignore $python -m pip install --quiet "${options[@]}" \
        --constraint constraints.txt --editable '.[test]' || give_up
    torch=$($python -m pip freeze | sed -n '/^torch==.*+cpu$/s/.*/cpu/p')
    # The dense CRF is compiled once a machine, here, so that no job has to wait for it.
    $python -m brnf.segment.compiled ||
        fail 'the dense CRF cannot be compiled, for the reason above'
    echo "3.$(minor $python) ${torch:-default}" >$installed
    rm -f $unfinished
}

give_up() {
    fail "pip could not get everything, for the reason above${WHEELS:+"; is $WHEELS up to date?"}"
}

requirements() {  # of the project and all its extras, and what builds it
    "$1" -c 'import tomllib
content = tomllib.load(open("pyproject.toml", "rb"))
project = content["project"]
print(*content["build-system"]["requires"], *project["dependencies"],
      *(line for extra in project["optional-dependencies"].values() for line in extra), sep="\n")'
}

wheels() {
    local python builds work
    [[ -n $FOLDER ]] || fail 'make wheels FOLDER=... names the folder to fill'
    WHEELS='' check_words
    if [[ -n $PYTHON ]]; then python=$(named_python); else python=$(newest_python); fi
    mkdir -p "$FOLDER" || fail "FOLDER=$FOLDER cannot be made"
    echo "Python 3.$(minor "$python") ($python) fills $FOLDER"
    work=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    "$python" -m venv "$work/venv"
    python=$work/venv/bin/python
    "$python" -m pip install --quiet --constraint constraints.txt pip || give_up
    requirements "$python" >"$work/requirements.txt"
    if [[ $TORCH == cpu ]]; then
        builds=$(cpu_builds "$python") || fail "TORCH=cpu: torch's own index is out of reach"
        # shellcheck disable=SC2086
        "$python" -m pip download --quiet --no-deps --dest "$FOLDER" $builds || give_up
    fi
    immutables "$python" wheel --wheel-dir "$FOLDER"
    "$python" -m pip wheel --quiet --wheel-dir "$FOLDER" --find-links "$FOLDER" \
        --constraint constraints.txt --requirement "$work/requirements.txt" || give_up
    echo "make install WHEELS=$FOLDER installs from it"
}

case ${1:-} in
    --state) state ;;
    --wheels) wheels ;;
    *) install ;;
esac
