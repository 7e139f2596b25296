//! Who did something: what memory and alerts are shared by.
//!
//! Shares nest: host, user, control group, executable; for calls of a cloud: account, principal, session and address. So
//! a user who makes ten thousand executables is still one user. Each level is kept as a hash and not as text, for the
//! actor chooses the text's length.

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
/// What follows the role in the name of a session: it is chosen by who opens the session.
const ASSUMED_ROLE: &str = ":assumed-role/";

/// A place in the tree of those who act. The default is the host itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Actor {
    /// A hash for each level, made over the one above it too.
    path: [u64; LEVELS],
    depth: usize,
}

/// What something that is kept costs whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// Who pays.
    pub actor: Actor,
    /// How much.
    pub bytes: usize,
}

/// The names of an actor, and what it acted on: for people. Long ones are cut.
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
    /// Who did it. A level that the event does not know is left out.
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
            // What the hasher has seen by then is the path down to this level.
            level.hash(&mut hasher);
            actor.path[actor.depth] = hasher.finish();
            actor.depth += 1;
        }
        actor
    }

    /// The hashes of its levels, from the user on.
    pub(crate) fn path(&self) -> &[u64] {
        &self.path[..self.depth]
    }

    /// Itself, with what is not known of it as if it had no name.
    pub(crate) fn whole(mut self) -> Self {
        for depth in self.depth..LEVELS {
            self.path[depth] = HASHES.hash_one((self.path().last(), depth));
            self.depth += 1;
        }
        self
    }

    /// The user, whatever the group and executable.
    pub(crate) fn user(&self) -> Self {
        self.cut(1)
    }

    /// The lowest place that holds both.
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
    /// What it costs whom to keep an event: all that the event keeps alive. What it shares with others is charged to each,
    /// so that the sum is never less than what is held, and is the same in a replay, where nothing is shared.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        Self { actor: Actor::of(event), bytes: event.held_bytes() }
    }

    /// The same with more bytes.
    #[must_use]
    pub(crate) fn plus(self, bytes: usize) -> Self {
        Self { bytes: self.bytes + bytes, ..self }
    }

    /// What several cost together: whose they are is the lowest place that holds all of them.
    pub(crate) fn sum<'a>(charges: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut charges = charges.into_iter();
        let Some(mut sum) = charges.next().copied() else { return Self::default() };
        for charge in charges {
            // Nearly always it is one who did all of it.
            if sum.actor != charge.actor {
                sum.actor = sum.actor.common(&charge.actor);
            }
            sum.bytes += charge.bytes;
        }
        sum
    }
}

impl Act {
    /// Who did it, and on what.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        let [user, group, executable] = levels(event).map(|level| level.map(|level| cut(&level)));
        let user = match event.text(field!("user.name")) {
            Some(name) if !is_cloud(event) => Some(cut(name)),
            _ => user,
        };
        Self { user, group, executable, destination: destination(event) }
    }

    /// What the texts take.
    pub(crate) fn bytes(&self) -> usize {
        let texts = [&self.user, &self.group, &self.executable, &self.destination];
        texts.into_iter().flatten().map(|text| text.len()).sum()
    }
}

/// What the levels are called.
fn levels(event: &Event) -> [Option<Cow<'_, str>>; LEVELS] {
    match levels_of_host(event) {
        Some(levels) => levels.map(|level| level.map(Cow::Borrowed)),
        None => levels_of_cloud(event),
    }
}

/// The levels of an event that is no call of a cloud. The account that answers for a process is the user that counts: a user of
/// a namespace is its owner, and a program that runs with another's rights is an act of who started it.
fn levels_of_host(event: &Event) -> Option<[Option<&str>; LEVELS]> {
    // Most events are the sensor's, which say who answers: those need not be looked at further.
    let answers = event.known_text(field!("lapwing.actor.id"));
    let user = match answers.or_else(|| event.known_text(field!("process.real_user.id"))) {
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

/// The name without that of the session, where it has one.
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
