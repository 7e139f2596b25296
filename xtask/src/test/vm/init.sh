#!/bin/sh
# The first process of a guest: prepares the guest for tests, and then runs the commands on its
# console, a line at a time.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
if [ "$1" != inside ]; then
    # No process can leave the kernel's first file system as a container leaves its host's; bound over itself, it is one
    # as every other.
    mount --bind / /mnt && cd /mnt && mount --move . / && exec chroot . /init inside
fi
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t cgroup2 none /sys/fs/cgroup
ip link set lo up
cd /root || exit
stty -F /dev/console raw -echo
printf '\n@ready %s\n' "$(uname -rm)"
while read -r line; do
    eval "$line" </dev/null 2>&1
    printf '\n@end %s\n' $?
done
