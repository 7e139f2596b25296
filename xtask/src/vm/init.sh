#!/bin/sh
# The first and only process of a guest: starts the agent, does what it is to see, and checks the events.
export PATH=/bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t cgroup2 none /sys/fs/cgroup
ip link set lo up
read -r _ _ version _ </proc/version
echo "KERNEL $version"

# Waits until a command succeeds, as long as the agent runs.
wait_for() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ $tries -gt 60 ] || ! kill -0 $agent; then
            echo "SMOKE FAILED: the agent does not run"
            poweroff -f
        fi
        sleep 1
    done
}

# The agent itself says how each hook is attached.
lapwing run --config /etc/lapwing.toml &
agent=$!
wait_for lapwing status --config /etc/lapwing.toml
lapwing status --config /etc/lapwing.toml | grep -E 'state (attached|skipped|silent)'
kill -TERM $agent
wait $agent

lapwing events --json >/tmp/events &
agent=$!
wait_for grep -q already_running /tmp/events

/bin/true smoke ''
sh -c 'kill -9 $$'
nc -l -p 4444 -e /bin/true &
sleep 1
echo | nc 127.0.0.1 4444
nc ::1 4445
sleep 1
kill -TERM $agent
wait $agent

result=PASSED
check() {
    if grep -qE "$2" /tmp/events; then
        echo "ok: $1"
    else
        echo "FAILED: $1"
        result=FAILED
    fi
}
check 'fork' '"action":"fork".*"executable":"/bin/busybox"'
check 'exec with its arguments, names and folder' \
    '"action":"exec".*"args":\["/bin/true","smoke",""\].*"executable":"/bin/busybox".*"name":\["busybox","true"\].*"working_directory":"/"'
check 'parent of an exec' '"action":"exec".*"args":\["/bin/true","smoke",""\].*"parent":\{.*"pid":1,'
check 'end by a signal' '"action":"end".*"exit_code":137'
check 'connection attempted, with both ports' \
    '"action":"connection_attempted".*"destination":\{"address":"127.0.0.1","ip":"127.0.0.1","port":4444\}|"destination":\{"address":"127.0.0.1","ip":"127.0.0.1","port":4444\}.*"action":"connection_attempted".*"source":\{"address":"127.0.0.1","ip":"127.0.0.1","port":[1-9]'
check 'connection over IPv6, refused' '"destination":\{"address":"::1","ip":"::1","port":4445\}.*"action":"connection_attempted"'
check 'connection accepted' '"destination":\{"address":"127.0.0.1","ip":"127.0.0.1","port":4444\}.*"action":"connection_accepted"'
echo "SMOKE $result"
poweroff -f
