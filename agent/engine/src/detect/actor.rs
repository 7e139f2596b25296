//! The actor of an event. Memory and alerts have shares by actor.
//!
//! Shares nest: host, user, control group, executable. For cloud API calls they are account, principal, session with
//! address. So a user who creates ten thousand executables is still one user. Each level is stored as a hash and not as
//! text, because the actor chooses the length of the text.

use std::borrow::Cow;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};

use smol_str::SmolStr;

use super::key::HASHES;
use crate::event::{Event, FieldId, Value};
use crate::field;

/// Levels below the host.
pub(super) const LEVELS: usize = 3;
/// Longest text of a level that is shown, in bytes.
const TEXT_BYTES_MAX: usize = 256;
/// The part of an ARN before the role of a session. The name of the session follows the role; its caller chooses it.
const ASSUMED_ROLE: &str = ":assumed-role/";

/// A node in the tree of actors. The default is the host itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Actor {
    /// A hash for each level, computed over the levels above it too.
    path: [u64; LEVELS],
    depth: usize,
}

/// The bytes that a kept entry takes, and the actor that is charged for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// The actor that is charged.
    pub actor: Actor,
    /// The bytes.
    pub bytes: usize,
}

/// The names of an actor and of its target, for people. Long names are cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Act {
    /// The user, or the account of a cloud.
    pub user: Option<SmolStr>,
    /// The control group, or the principal.
    pub group: Option<SmolStr>,
    /// The executable, or the session.
    pub executable: Option<SmolStr>,
    /// The address and port, the file or the action.
    pub destination: Option<SmolStr>,
}

impl Actor {
    /// The actor of an event. A level that the event does not have is left out.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        match levels_of_host(event) {
            Some(levels) => Self::at(levels.into_iter().flatten()),
            None => Self::at(levels_of_cloud(event).iter().flatten().map(|level| &**level)),
        }
    }

    /// The actor of these levels.
    fn at<'a>(levels: impl Iterator<Item = &'a str>) -> Self {
        let (mut actor, mut hasher) = (Self::default(), HASHES.build_hasher());
        for level in levels {
            // The hasher has now read the path down to this level.
            level.hash(&mut hasher);
            actor.path[actor.depth] = hasher.finish();
            actor.depth += 1;
        }
        actor
    }

    /// The hashes of its levels, from the user down.
    pub(crate) fn path(&self) -> &[u64] {
        &self.path[..self.depth]
    }

    /// The same actor with all levels: an unknown level becomes a level without a name.
    pub(crate) fn whole(mut self) -> Self {
        for depth in self.depth..LEVELS {
            self.path[depth] = HASHES.hash_one((self.path().last(), depth));
            self.depth += 1;
        }
        self
    }

    /// The actor's user, without group and executable.
    pub(crate) fn user(&self) -> Self {
        self.cut(1)
    }

    /// The lowest node above both.
    pub(crate) fn common(&self, other: &Self) -> Self {
        let same = self.path().iter().zip(other.path()).take_while(|(left, right)| left == right);
        self.cut(same.count())
    }

    fn cut(&self, depth: usize) -> Self {
        let mut cut = Self { path: [0; LEVELS], depth: depth.min(self.depth) };
        cut.path[..cut.depth].copy_from_slice(&self.path[..cut.depth]);
        cut
    }
}

impl Charge {
    /// The charge for a kept event: all memory that the event keeps alive. Memory that events share is charged to each
    /// of them. So the sum is never less than the memory in use, and is the same in a replay, where events share
    /// nothing.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        Self { actor: Actor::of(event), bytes: event.held_bytes() }
    }

    /// The same charge with more bytes.
    #[must_use]
    pub(crate) fn plus(self, bytes: usize) -> Self {
        Self { bytes: self.bytes + bytes, ..self }
    }

    /// The sum of several charges. Its actor is the lowest node above all of theirs.
    pub(crate) fn sum<'a>(charges: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut charges = charges.into_iter();
        let Some(mut sum) = charges.next().copied() else { return Self::default() };
        for charge in charges {
            // Nearly always all charges have the same actor.
            if sum.actor != charge.actor {
                sum.actor = sum.actor.common(&charge.actor);
            }
            sum.bytes += charge.bytes;
        }
        sum
    }
}

impl Act {
    /// The names of an event's actor and target.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        let [user, group, executable] = levels(event).map(|level| level.map(|level| cut(&level)));
        let user = match event.text(field!("user.name")) {
            Some(name) if !is_cloud(event) => Some(cut(name)),
            _ => user,
        };
        Self { user, group, executable, destination: destination(event) }
    }

    /// Bytes of the texts.
    pub(crate) fn bytes(&self) -> usize {
        let texts = [&self.user, &self.group, &self.executable, &self.destination];
        texts.into_iter().flatten().map(|text| text.len()).sum()
    }
}

/// The names of the levels.
fn levels(event: &Event) -> [Option<Cow<'_, str>>; LEVELS] {
    match levels_of_host(event) {
        Some(levels) => levels.map(|level| level.map(Cow::Borrowed)),
        None => levels_of_cloud(event),
    }
}

/// The levels of a host event; `None` for a cloud API call. The user is the account that is responsible for the
/// process: for a mapped user of a namespace it is the namespace's owner, for a setuid program the user who started it.
fn levels_of_host(event: &Event) -> Option<[Option<&str>; LEVELS]> {
    // Most events are the sensor's and have the responsible user. No other field is read then.
    let responsible = event.known_text(field!("lapwing.actor.id"));
    let user = match responsible.or_else(|| event.known_text(field!("process.real_user.id"))) {
        None if is_cloud(event) => return None,
        None => [field!("user.Ext.real.id"), field!("user.id"), field!("user.name")]
            .into_iter()
            .find_map(|field| event.text(field)),
        user => user,
    };
    let group = event.known_text(field!("lapwing.process.cgroup.path"));
    let executable = event.known_text(field!("process.executable"));
    Some([user, group, executable.or_else(|| event.text(field!("process.name")))])
}

fn levels_of_cloud(event: &Event) -> [Option<Cow<'_, str>>; LEVELS] {
    let text = |fields: &[FieldId]| fields.iter().find_map(|field| event.get(*field)).map(Value::to_text);
    let arn = event.text(field!("aws.cloudtrail.user_identity.arn")).unwrap_or_default();
    let address = text(&[field!("source.address"), field!("source.ip")]).unwrap_or_default();
    [
        text(&[field!("cloud.account.id"), field!("aws.cloudtrail.user_identity.account_id")]),
        Some(Cow::Borrowed(principal(arn))),
        Some(format!("{} {address}", &arn[principal(arn).len()..]).into()),
    ]
}

fn is_cloud(event: &Event) -> bool {
    event.get(field!("aws.cloudtrail.user_identity.arn")).is_some()
        || event.text(field!("event.dataset")).is_some_and(|dataset| dataset == "aws.cloudtrail")
}

/// The ARN without the name of the session, if it has one.
fn principal(arn: &str) -> &str {
    let role = arn.find(ASSUMED_ROLE).map(|start| start + ASSUMED_ROLE.len());
    let end = role.and_then(|start| Some(start + arn[start..].find('/')?));
    &arn[..end.unwrap_or(arn.len())]
}

fn destination(event: &Event) -> Option<SmolStr> {
    let text = |field: FieldId| event.get(field)?.first_to_text();
    if is_cloud(event) {
        return text(field!("event.action")).map(|action| cut(&action));
    }
    let Some(address) = text(field!("destination.ip")).or_else(|| text(field!("destination.address"))) else {
        return text(field!("file.path")).map(|path| cut(&path));
    };
    Some(match text(field!("destination.port")) {
        Some(port) if address.contains(':') => cut(&format!("[{address}]:{port}")),
        Some(port) => cut(&format!("{address}:{port}")),
        None => cut(&address),
    })
}

fn cut(text: &str) -> SmolStr {
    if text.len() <= TEXT_BYTES_MAX {
        return text.into();
    }
    let mark = "…";
    let end = text.floor_char_boundary(TEXT_BYTES_MAX - mark.len());
    [&text[..end], mark].concat().into()
}
