//! The process table as one run of the sensor stores it for the next.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::state::Life;
use super::{Image, Key, Origin, Process, Table};

/// The process table, without what can be derived from it.
#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
pub(in crate::sensor) struct Saved {
    cgroups: Vec<(u64, SmolStr)>,
    /// The programs, each once.
    images: Vec<SavedImage>,
    /// Parents before their children.
    processes: Vec<SavedProcess>,
}

/// A program that the table holds too.
#[derive(Clone, Debug, PartialEq)]
struct SavedImage(Arc<Image>);

impl Serialize for SavedImage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SavedImage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Arc::new(Image::deserialize(deserializer)?.complete())))
    }
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct SavedProcess {
    pid: u32,
    start: u64,
    parent: Option<Key>,
    parent_pid: u32,
    /// Which of the programs it runs, and which it ran before.
    image: usize,
    previous: Option<usize>,
    /// Structures of the wire, byte for byte: only the same version of the wire reads them.
    credentials: String,
    /// Called `place` by 0.1.
    #[serde(alias = "place")]
    context: String,
    stdio: Option<String>,
    socket: Option<String>,
    life: SavedLife,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
enum SavedLife {
    Alive,
    /// It ended at this time since boot.
    Ended(u64),
    Past,
}

impl Table {
    /// The table for the next run.
    pub(in crate::sensor) fn save(&self) -> Saved {
        let ended: HashMap<Key, u64> = self.ended.iter().map(|(time, key, _)| (*key, *time)).collect();
        let mut images = Images::default();
        let mut in_order: Vec<_> = self.each().collect();
        in_order.sort_unstable_by_key(|process| (process.start, process.key.pid));
        let processes = in_order.into_iter().map(|process| saved(process, &ended, &mut images)).collect();
        let cgroups = self.groups.iter().map(|(id, path)| (id, path.clone())).collect();
        Saved { cgroups, images: images.saved, processes }
    }

    /// Restores the table of the previous run.
    ///
    /// # Errors
    /// It is of another wire.
    pub(in crate::sensor) fn restore(&mut self, saved: Saved) -> Result<()> {
        for (id, path) in saved.cgroups {
            self.groups.insert(id, path);
        }
        let mut ended = Vec::new();
        let image = |index: usize| {
            let image: Option<&SavedImage> = saved.images.get(index);
            image.map(|SavedImage(image)| image.clone()).context("a program is missing")
        };
        for process in saved.processes {
            let key = self.add(Origin {
                pid: process.pid,
                start: process.start,
                parent: process.parent,
                parent_pid: process.parent_pid,
                image: image(process.image)?,
                credentials: value(&process.credentials)?,
                context: value(&process.context)?,
            });
            let stdio = process.stdio.as_deref().map(value).transpose()?;
            let socket = process.socket.as_deref().map(value).transpose()?;
            let Some(known) = self.processes.get_mut(&key) else { continue };
            known.socket = socket.map(Box::new);
            (known.previous, known.stdio) = (process.previous.map(image).transpose()?, stdio);
            match process.life {
                SavedLife::Alive => {}
                SavedLife::Ended(time) => ended.push((time, key)),
                SavedLife::Past => known.life = Life::Past,
            }
        }
        ended.sort_unstable_by_key(|(time, _)| *time);
        for (time, key) in ended {
            self.end(key, time);
        }
        Ok(())
    }
}

/// The programs to be saved, each once.
#[derive(Default)]
struct Images {
    saved: Vec<SavedImage>,
    places: HashMap<*const Image, usize>,
}

impl Images {
    fn index(&mut self, image: &Arc<Image>) -> usize {
        *self.places.entry(Arc::as_ptr(image)).or_insert_with(|| {
            self.saved.push(SavedImage(image.clone()));
            self.saved.len() - 1
        })
    }
}

fn saved(process: &Process, ended: &HashMap<Key, u64>, images: &mut Images) -> SavedProcess {
    SavedProcess {
        pid: process.key.pid,
        start: process.start,
        parent: process.parent,
        parent_pid: process.parent_pid,
        image: images.index(&process.image),
        previous: process.previous.as_ref().map(|previous| images.index(previous)),
        credentials: text(&process.credentials),
        context: text(&process.context),
        stdio: process.stdio.as_ref().map(text),
        socket: process.socket.as_deref().map(text),
        life: match process.life {
            Life::Alive => SavedLife::Alive,
            Life::Lingering => SavedLife::Ended(ended.get(&process.key).copied().unwrap_or(0)),
            Life::Past => SavedLife::Past,
        },
    }
}

fn text<T: Immutable + IntoBytes>(value: &T) -> String {
    STANDARD.encode(value.as_bytes())
}

fn value<T: FromBytes>(text: &str) -> Result<T> {
    let bytes = STANDARD.decode(text)?;
    T::read_from_bytes(&bytes).ok().context("a part has the wrong size")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SECOND, key, table};
    use super::*;

    /// The next run restores every state that a process can have.
    #[test]
    fn what_is_restored_is_what_was_saved() {
        let mut known = table(&[
            (1, 0, "/sbin/init", 1, 0),
            (10, 1, "/usr/sbin/sshd", 10, 0),
            (11, 10, "/bin/bash", 11, 0),
            (12, 11, "/bin/nc", 11, 0),
            (13, 1, "/bin/true", 1, 0),
        ]);
        known.groups.insert(7, "/system.slice".into());
        known.end(key(13), 90 * SECOND);
        known.end(key(11), 20 * SECOND);
        known.expire(60 * SECOND);
        let saved = known.save();
        let text = serde_json::to_string(&saved).unwrap();
        let mut restored = Table::new("boot");
        restored.restore(serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(restored.save(), saved);
        assert_eq!(restored.in_order(), known.in_order());
        let ancestors =
            |table: &Table| table.ancestors(key(12)).map(|process| process.key.pid).collect::<Vec<_>>();
        assert_eq!(ancestors(&restored), [11, 10, 1], "one that is kept for its child is kept on");
        restored.end(key(12), 100 * SECOND);
        restored.expire(1000 * SECOND);
        assert_eq!(restored.in_order(), [key(1), key(10)]);
        assert_eq!(restored.len(), 2, "and goes with it");
    }

    #[test]
    fn another_wire_is_refused() {
        let mut saved = table(&[(1, 0, "/sbin/init", 1, 0)]).save();
        saved.processes[0].context = text(&[0_u8; 3]);
        assert!(Table::new("boot").restore(saved).is_err());
    }
}
