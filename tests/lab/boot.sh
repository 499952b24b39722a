#!/bin/sh
# Boots a machine with its own systemd. lab.booted runs it as root, inside the network namespace of that machine.
#   sh boot.sh on FOLDER CGROUP [SOURCE:TARGET]...    boot, writing to FOLDER/upper; TARGET shows SOURCE, read-only
#   sh boot.sh off CGROUP                             remove what a stopped machine left in the cgroup tree
# Nothing outside changes: mounts are private, the machine has its own /dev, /sys and /proc/sys are read-only.
set -eu

own_cgroup_tree() { # the present mount may be cgroup version 1, or `ip netns exec` may hide it
    mount --make-rprivate /
    mount -t tmpfs tmpfs /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
}

case "$1" in
off)
    own_cgroup_tree
    [ ! -d "/sys/fs/cgroup/$2" ] || find "/sys/fs/cgroup/$2" -depth -type d -exec rmdir {} +
    exit
    ;;
on)
    folder=$2 cgroup=$3
    shift 3
    own_cgroup_tree
    mkdir -p "/sys/fs/cgroup/$cgroup"
    echo $$ >"/sys/fs/cgroup/$cgroup/cgroup.procs"
    # Without --kill-child a killed unshare would leave systemd behind.
    exec unshare --pid --fork --kill-child=KILL --mount --uts --ipc --cgroup sh "$0" inside "$folder" "$@"
    ;;
esac

folder=$2
shift 2
mkdir -p "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
cd "$folder/root"
for bind; do
    mkdir -p "./${bind#*:}"
    mount --bind "${bind%%:*}" "./${bind#*:}"
    mount -o remount,bind,ro "./${bind#*:}"
done
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
cat proc/sys/kernel/random/uuid >run/boot_id # the journal tells boots apart by this id
mount --bind run/boot_id proc/sys/kernel/random/boot_id
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for node in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 666 "dev/${node%:*}" c 1 "${node#*:}"
done
mknod -m 666 dev/tty c 5 0

if [ ! -e etc/lab ]; then # the first boot: do not start what the tester's machine starts at boot
    touch etc/lab
    rm -rf etc/systemd/system/*.wants etc/systemd/user/*.wants etc/fstab var/log/journal
    for unit in getty.target console-getty.service systemd-firstboot.service; do
        ln -sf /dev/null "etc/systemd/system/$unit"
    done
    mkdir -p var/log/journal
    tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
    echo pi >etc/hostname
fi
mkdir -p .old
pivot_root . .old
umount -l .old
mount --make-rshared / # systemd does so outside containers only; without it a service does not see its credentials
exec env -i container=lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=multi-user.target
