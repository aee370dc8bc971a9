#!/bin/bash
# A real drag and drop with a real file manager: a file of a past instant is dragged from the mounted
# history onto a folder, and must arrive whole and with its time. Makes the pictures of docs/share.md.
#
#   tests/system/drag_and_drop.sh [FOLDER]     pictures go to FOLDER; none are kept without it
#
# Needs besides setup/apt-packages: xvfb openbox thunar dbus-x11 xdotool imagemagick fonts-dejavu-core.
set -eu
cd "$(dirname "$0")/../.."
pictures=${1:-}
[ -z "$pictures" ] || mkdir -p "$pictures"
work=$(mktemp -d "${TMPDIR:-/tmp}/timefs-drag.XXXXXX")
mount=/mnt/history
home=/home/anna # what the pictures show; the files in it are the user daemon's
[ ! -e "$home" ] || { echo "$home: there already; this test needs the place"; exit 1; }
as_user="setpriv --reuid=daemon --regid=daemon --clear-groups"
pids=
finish() {
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    .venv/bin/timefs unmount "$mount" 2>/dev/null || umount -l "$mount" 2>/dev/null || true
    rm -rf "$work" "$home"
}
trap finish EXIT
export TIMEFS_REPO=$work/repo XDG_CACHE_HOME=$work/cache
mkdir -p "$work/disk" "$home/Desktop" "$home/runtime" "$mount"
chown -R daemon:daemon "$home"
chmod 700 "$home/runtime"

truncate -s 32M "$work/disk/disk.img"
mkntfs -F -q -L Data "$work/disk/disk.img" >/dev/null 2>&1
.venv/bin/timefs init >/dev/null
for day in 4 5 6; do
    seq "${day}000" "${day}200" > "$work/report"
    touch -d "2026-05-0${day}T16:20:00Z" "$work/report"
    for name in "Budget 2026.ods" "Letter to Anna.odt" "Report.txt" "Team.jpg" "Minutes.pdf"; do
        ntfscp -q -f "$work/disk/disk.img" "$work/report" "$name" 2>/dev/null
    done
    [ "$day" != 5 ] || cp -p "$work/report" "$work/truth"
    .venv/bin/timefs capture vm1 "$work/disk/disk.img" --at "2026-05-0${day}T18:00:00Z" >/dev/null
done
.venv/bin/timefs mount --allow-other --names windows "$mount" >/dev/null
past=$mount/vm1/2026-05-05T18-00-00Z/disk
cmp "$past/Report.txt" "$work/truth"

display=$((90 + $$ % 900))
export HOME=$home XDG_RUNTIME_DIR=$home/runtime XDG_CONFIG_HOME=$home/.config XDG_CACHE_HOME=$home/.cache
export NO_AT_BRIDGE=1
Xvfb ":$display" -ac -screen 0 1200x700x24 >/dev/null 2>&1 &
pids="$pids $!"
export DISPLAY=:$display
for _ in $(seq 100); do xdotool getdisplaygeometry >/dev/null 2>&1 && break; sleep 0.1; done
eval "$($as_user dbus-launch --sh-syntax)"
pids="$pids $DBUS_SESSION_BUS_PID"
$as_user openbox >/dev/null 2>&1 &
pids="$pids $!"
picture() { sleep 1; [ -z "$pictures" ] || import -window root -colors 64 "PNG8:$pictures/$1.png"; }
window() { # a folder, at X Y WIDTH HEIGHT
    local before after
    before=$(xdotool search --onlyvisible --class thunar 2>/dev/null || true)
    $as_user thunar "$1" >/dev/null 2>&1 &
    pids="$pids $!"
    for _ in $(seq 600); do
        after=$(xdotool search --onlyvisible --class thunar 2>/dev/null | grep -vxF "${before:-none}" || true)
        [ -z "$after" ] || break
        sleep 0.1
    done
    shown=$(echo "$after" | tail -1)
    sleep 1
    xdotool windowsize --sync "$shown" "$4" "$5" windowmove "$shown" "$2" "$3" || true
    sleep 2
}
window "$mount/vm1" 0 0 1190 660
picture share-times
xdotool key ctrl+w; sleep 1
window "$past" 0 0 590 660
picture share-then
[ -z "$pictures" ] || mogrify -crop 592x684+0+0 +repage "$pictures/share-then.png"
window "$home/Desktop" 600 0 590 660
xdotool search --onlyvisible --class thunar >/dev/null

# The report is the fourth icon; a slow machine needs more than one try.
for _ in 1 2 3 4 5; do
    for y in 230 260; do
        [ ! -e "$home/Desktop/Report.txt" ] || break 2
        rm -rf "$home"/Desktop/*
        xdotool mousemove 240 "$y"; sleep 0.5
        xdotool mousedown 1; sleep 0.5
        for step in $(seq 1 20); do
            xdotool mousemove $((240 + 33 * step)) $((y + 8 * step)); sleep 0.05
        done
        sleep 1.5
        xdotool mouseup 1
        sleep 3
    done
done
picture share-dropped
cmp "$home/Desktop/Report.txt" "$work/truth"
[ "$(stat -c %Y "$home/Desktop/Report.txt")" = "$(stat -c %Y "$past/Report.txt")" ]
echo "dragged from $past: identical, its time kept"
