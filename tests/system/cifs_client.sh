#!/bin/bash
# A real Linux kernel as a client of the share: cifs mounts it, signed and encrypted, lists, reads,
# reads versions by snapshot=, and is refused what it may not see. The kernel runs in qemu without
# hardware help, so no module of this machine's kernel is needed. Root; takes a minute or two.
#
# Needs besides setup/apt-packages: qemu-system-x86 busybox-static cpio kmod. The client's kernel is
# Debian's package linux-image-cloud-amd64, unpacked and not installed.
set -eu
cd "$(dirname "$0")/../.."
work=$(mktemp -d "${TMPDIR:-/tmp}/timefs-cifs.XXXXXX")
chmod 755 "$work"
server=
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/{print $2; exit}')
if [ -n "${KERNEL_DEB:-}" ]; then cp "$KERNEL_DEB" "$work/"; else (cd "$work" && apt-get -q download "$package"); fi
dpkg -x "$work"/*.deb "$work/x"
release=$(ls "$work/x/lib/modules")
depmod -b "$work/x" "$release"

root=$work/root
mkdir -p "$root/bin" "$root/mod"
cp "$(command -v busybox)" "$root/bin/busybox"
for module in virtio_pci virtio_net cifs ctr ghash_generic ccm gcm cmac ecb aes_generic sha256 sha512 hmac md5 nls_utf8; do
    modprobe -d "$work/x" -S "$release" --show-depends "$module" 2>/dev/null
done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' | while read -r file; do
    cp "$file" "$root/mod/"
    basename "$file"
done > "$root/mod/order"
cat > "$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir -p /proc /dev /m/now /m/then /m/all
mount -t proc proc /proc; mount -t devtmpfs dev /dev
while read -r module; do insmod "/mod/$module" 2>/dev/null; done < /mod/order
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
port=$(sed 's/.*timefs.port=\([0-9]*\).*/\1/' /proc/cmdline)
options="ip=10.0.2.2,port=$port,username=daemon,password=a long password,vers=3.1.1,seal,ro,nosharesock"
say() { echo "CLIENT $*"; }
say mount "$(mount -t cifs //10.0.2.2/vm1 /m/now -o "$options" 2>&1 && echo ok)"
say now "$(cat /m/now/disk/docs/report.txt)"
say names "$(ls /m/now/disk/docs | tr '\n' ' ')"
say odd "$(cat '/m/now/disk/odd/a:b')"
say secret "$(cat /m/now/disk/docs/secret.txt 2>&1)"
say disk "$(cat /m/now/disk.img 2>&1)"
say write "$(touch /m/now/new 2>&1)"
mount -t cifs //10.0.2.2/vm1 /m/then -o "$options,snapshot=$(sed 's/.*timefs.then=\([0-9]*\).*/\1/' /proc/cmdline)"
say then "$(cat /m/then/disk/docs/report.txt)"
say large "$(sha256sum < /m/then/disk/docs/large.bin)"
mount -t cifs //10.0.2.2/history /m/all -o "$options"
say all "$(cat /m/all/vm1/2024-05-01T10-00-30Z/disk/docs/report.txt)"
say up "$(cat /m/now/disk/links/root 2>&1)"
say end
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc 2>/dev/null | gzip) > "$work/initrd"

port=$(.venv/bin/python -c 'from tests.share.sharing import free_port; print(free_port())')
.venv/bin/python -m tests.share.serve_memory "$work/state" "$port" guest games > "$work/server.log" 2>&1 &
server=$!
for _ in $(seq 100); do grep -q ready "$work/server.log" && break; sleep 0.2; done
printf 'a long password\na long password\n' |
    pdbedit --configfile="$work/state/smb.conf" --create --password-from-stdin --user=daemon >/dev/null
then=$(.venv/bin/python -c 'print((1714557637 + 11644473600) * 10**7)')  # 2024-05-01T10:00:37Z
timeout "${SECONDS_MAX:-300}" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -m 512 -smp 2 \
    -display none -no-reboot -monitor none -serial "file:$work/client.log" \
    -kernel "$work/x/boot/vmlinuz-$release" -initrd "$work/initrd" \
    -append "console=ttyS0 quiet net.ifnames=0 timefs.port=$port timefs.then=$then" \
    -netdev user,id=n -device virtio-net-pci,netdev=n
large=$(.venv/bin/python -c 'from tests.share.serve_memory import report; import hashlib
print(hashlib.sha256(report(0)).hexdigest())')

failed=0
expect() {
    if grep -q "CLIENT $1.*$2" "$work/client.log"; then echo "ok   $1: $2"; else
        echo "FAIL $1: expected $2, got: $(grep "CLIENT $1" "$work/client.log" || echo nothing)"
        failed=1
    fi
}
expect mount ok
expect now 'report of instant 2'
expect names 'large.bin report.txt secret.txt'
expect odd 'a:b'
expect secret 'Permission denied'
expect disk 'Permission denied'
expect write 'Read-only file system'
expect then 'report of instant 0'
expect large "$large"
expect all 'report of instant 0'
expect up 'rror\|denied\|No such'
expect end ''
[ "$failed" = 0 ] || tail -30 "$work/client.log"
exit "$failed"
