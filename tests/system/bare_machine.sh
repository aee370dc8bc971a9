#!/bin/sh
# Proves that `make demo` and `make test` run on a bare machine: a minimal Debian made by mmdebstrap
# that holds python3, git, make and ca-certificates, entered by chroot, with a fresh clone of HEAD.
#
#   tests/system/bare_machine.sh FOLDER demo|test|missing|user-demo|user-test…
#
# As root. Each word is one run on a machine of its own (an overlay over FOLDER/base), in name spaces
# of its own: when it ends, nothing of it is left but FOLDER. `demo` and `test` run as root, which
# installs by apt and pip. `missing` is an ordinary user on the bare machine, who must be told the
# one apt line and get no further. `user-…` is an ordinary user where root ran exactly that line.
# The machine takes over this one's settings of apt and pip, and the paths in BARE_BIND (words),
# which those settings may need.
set -eu

settings="/etc/resolv.conf /etc/hosts /etc/apt/sources.list.d/debian.sources /etc/apt/apt.conf.d
    /etc/ssl/certs /etc/pip.conf /etc/xdg/pip"

make_base() {
    rm -rf "$folder/base"
    mmdebstrap --quiet --variant=minbase --include=python3,git,make,ca-certificates \
        bookworm "$folder/base" /etc/apt/sources.list.d/debian.sources
    touch "$folder/base.made"
}

# In a mount namespace of its own: put the machine together.
build() {
    machine="$folder/$run/machine"
    rm -rf "${folder:?}/$run"
    mkdir -p "$machine" "$folder/$run/upper" "$folder/$run/work"
    mount -t overlay overlay "$machine" \
        -o "lowerdir=$folder/base,upperdir=$folder/$run/upper,workdir=$folder/$run/work"
    mount -t proc proc "$machine/proc"
    mount --rbind /sys "$machine/sys"
    mount -t devpts devpts "$machine/dev/pts" -o newinstance,ptmxmode=666
    mount -t tmpfs tmpfs "$machine/dev/shm"
    mknod -m 666 "$machine/dev/fuse" c 10 229
    mknod "$machine/dev/loop-control" c 10 237
    for number in $(seq 0 63); do mknod "$machine/dev/loop$number" b 7 "$number"; done
    for path in $settings ${BARE_BIND:-}; do
        [ -e "$path" ] || continue
        [ -d "$path" ] && mkdir -p "$machine$path"
        [ -d "$path" ] || install -D /dev/null "$machine$path"
        mount --bind "$path" "$machine$path"
    done
    chroot "$machine" useradd --create-home person
    git clone -q --no-hardlinks "$project" "$machine/home/person/timefs"
    chroot "$machine" chown -R person: /home/person/timefs
    install "$0" "$machine/bare_machine.sh"
}

person() {
    HOME=/home/person setpriv --reuid=person --regid=person --init-groups "$@"
}

# In the machine.
inside() {
    cd /home/person/timefs
    export HOME=/root TMPDIR=/tmp LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
    git config --global --add safe.directory '*'
    case $run in
    missing)
        if person make demo > /tmp/said; then exit 1; fi
        cat /tmp/said
        [ "$(grep -c 'apt-get install' /tmp/said)" = 1 ]
        [ ! -e .venv ]
        ;;
    user-*)
        sh -ec "$(person make prepare | grep 'apt-get install' | sed 's/sudo //g')"
        person make "${run#user-}"
        ;;
    *) make "$run" ;;
    esac
}

case ${1:-} in
--build)
    folder=$2 run=$3 project=$4
    build
    exec chroot "$machine" /bin/sh /bare_machine.sh --inside "$run"
    ;;
--inside)
    run=$2
    inside
    ;;
*)
    folder=$(mkdir -p "$1" && realpath "$1")
    project=$(realpath "$(dirname "$0")/../..")
    shift
    [ -e "$folder/base.made" ] || make_base
    for run; do
        started=$(date +%s)
        unshare --mount --pid --fork --kill-child --propagation private \
            /bin/sh "$0" --build "$folder" "$run" "$project" < /dev/null > "$folder/$run.log" 2>&1 &&
            result=passed || result="FAILED"
        echo "$run: $result in $(($(date +%s) - started)) s; $folder/$run.log"
        [ $result = passed ] || failed=yes
    done
    [ -z "${failed:-}" ]
    ;;
esac
