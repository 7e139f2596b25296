//! Containers that a process entered without their control group, as by `nsenter`: known by the mount namespace that it
//! shares with a process in that group.

use std::collections::{HashMap, VecDeque};

use super::state::Life;
use super::{Key, Process, Table};
use crate::sensor::container::{self, Container};

/// Most known namespaces of containers. The one that was learned first is evicted first, and learned again with the
/// next program that is started in it from outside.
const NAMESPACES_MAX: usize = 1024;

/// For each mount namespace of a container, one of its processes.
#[derive(Default)]
pub(super) struct Namespaces {
    holders: HashMap<u32, Key>,
    turn: VecDeque<u32>,
}

impl Namespaces {
    fn insert(&mut self, namespace: u32, holder: Key) {
        if self.holders.insert(namespace, holder).is_none() {
            self.turn.push_back(namespace);
        }
        while self.holders.len() > NAMESPACES_MAX {
            let Some(first) = self.turn.pop_front() else { return };
            self.holders.remove(&first);
        }
    }
}

impl Table {
    /// The container that a process is in, and whether it entered it from outside: its control group is not the
    /// container's.
    pub(in crate::sensor) fn container(&self, process: &Process) -> Option<(Container, bool)> {
        let own = self.container_by_group(process).map(|container| (container, false));
        own.or_else(|| Some((self.container_by_group(self.holder(process.mount_namespace())?)?, true)))
    }

    /// Learns the container of a process's mount namespace, if the process is in the container's control group and its
    /// parent is in another namespace: this is how a container begins.
    pub(super) fn learn_container(&mut self, key: Key) {
        let Some(process) = self.get(key) else { return };
        let namespace = process.mount_namespace();
        let is_host = || self.by_pid(1).is_none_or(|init| init.mount_namespace() == namespace);
        let parent = process.parent.and_then(|parent| self.get(parent));
        let is_parents = || parent.is_some_and(|parent| parent.mount_namespace() == namespace);
        if namespace == 0 || self.holder(namespace).is_some() || is_parents() || is_host() {
            return;
        }
        if self.container_by_group(process).is_some() {
            self.namespaces.insert(namespace, key);
        }
    }

    fn container_by_group(&self, process: &Process) -> Option<Container> {
        self.groups.get(process.context.cgroup).and_then(|path| container::of(path))
    }

    /// A living process in the container of this namespace. The number of a removed namespace may be reused.
    fn holder(&self, namespace: u32) -> Option<&Process> {
        let holder = self.get(*self.namespaces.holders.get(&namespace)?)?;
        (holder.life == Life::Alive && holder.mount_namespace() == namespace).then_some(holder)
    }
}

#[cfg(test)]
mod tests {
    use lapwing_common::Namespace;

    use super::super::tests::{SECOND, key, table};
    use super::*;

    const GROUP: &str = "/docker/c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ff";

    fn set_context(table: &mut Table, pid: u32, namespace: u32, group: u64) {
        let process = table.processes.get_mut(&key(pid)).unwrap();
        process.context.namespaces[Namespace::Mount as usize] = namespace;
        process.context.cgroup = group;
        table.learn_container(key(pid));
    }

    #[test]
    fn who_enters_a_container_is_in_it_while_it_lives() {
        let mut table = table(&[
            (1, 0, "/sbin/init", 1, 0),
            (10, 1, "/usr/sbin/httpd", 10, 0),
            (11, 1, "/bin/sh", 11, 0),
            (12, 1, "/bin/sh", 12, 0),
        ]);
        table.groups.insert(7, GROUP.into());
        table.groups.insert(8, "/user.slice".into());
        for (pid, namespace, group) in [(1, 100, 8), (10, 200, 7), (11, 200, 8), (12, 100, 7)] {
            set_context(&mut table, pid, namespace, group);
        }
        let found = |table: &Table, pid: u32| {
            table.container(table.by_pid(pid).unwrap()).map(|(_, is_entered)| is_entered)
        };
        assert_eq!(
            [1, 10, 11, 12].map(|pid| found(&table, pid)),
            [None, Some(false), Some(true), Some(false)]
        );
        table.end(key(10), 20 * SECOND);
        assert_eq!(found(&table, 11), None, "the namespace's number may be another's by now");
    }

    #[test]
    fn namespaces_are_kept_within_their_limit() {
        let mut namespaces = Namespaces::default();
        for namespace in 1..5000 {
            namespaces.insert(namespace, key(1));
            namespaces.insert(namespace, key(2));
        }
        assert_eq!((namespaces.holders.len(), namespaces.turn.len()), (NAMESPACES_MAX, NAMESPACES_MAX));
        assert!(namespaces.holders.contains_key(&4999));
    }
}
