//! Whatever actors do, each holds at most its share: a property, and the cases by which it is explained.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::event::{Event, Schema};

const LIMIT: usize = 1 << 20;

/// `user/group/executable`, of which the end may be missing.
fn actor(place: &str) -> Actor {
    let names = ["user.id", "lapwing.process.cgroup.path", "process.executable"];
    let mut event = serde_json::json!({"@timestamp": 0});
    for (name, level) in names.iter().zip(place.split('/').filter(|level| !level.is_empty())) {
        event[*name] = level.into();
    }
    Actor::of(&Event::from_json(&Schema::new(), &event).unwrap())
}

/// Puts an entry in and takes out what must go for it.
fn put<T: Copy>(shares: &mut Shares<T>, place: &str, amount: usize, token: T) -> Vec<T> {
    let actor = actor(place);
    shares.charge(&actor, amount, token);
    std::iter::from_fn(|| shares.surplus(&actor)).collect()
}

#[test]
fn ten_thousand_of_one_user_are_one_user() {
    for form in ["u/g/EACH", "u/EACH/x", "u/EACH/EACH"] {
        let mut shares = Shares::new(LIMIT);
        assert!(put(&mut shares, "victim/g/x", 1000, "victim").is_empty());
        for number in 0..10_000 {
            let place = form.replace("EACH", &number.to_string());
            assert!(!put(&mut shares, &place, 1000, "flood").contains(&"victim"), "{form} {number}");
            assert!(shares.used() <= LIMIT / 2 + 2000, "{form}: half is for others");
        }
        assert!(put(&mut shares, "other", LIMIT / 4 - 3000, "other").is_empty(), "{form}: there is room");
    }
}

#[test]
fn an_act_of_another_user_has_alerts_left() {
    let forms = [("u/g/x", 100), ("u/g/EACH", 200), ("u/EACH/x", 400), ("u/EACH/EACH", 400)];
    for (form, taken) in forms {
        let mut quota = Quota::new(100);
        let act = |number: usize| actor(&form.replace("EACH", &number.to_string())).whole();
        assert_eq!((0..10_000).filter(|number| quota.take(&act(*number))).count(), taken, "{form}");
        let left = (800 - taken) / 8;
        assert!((0..left).all(|_| quota.take(&actor("root").whole())), "{form}");
    }
    let mut small = Quota::new(1);
    let flood = (0..100).filter(|number| small.take(&actor(&format!("{number}/g/x")).whole())).count();
    assert!(
        flood <= 8 && small.is_of_new_user(&actor("root").whole()) && !small.take(&actor("root").whole())
    );
}

#[test]
fn those_who_act_are_themselves_bounded() {
    let mut quota = Quota::new(usize::MAX);
    for number in 0..100_000 {
        quota.take_anyhow(&actor(&format!("{}/g{number}/x{number}", number % 1000)).whole());
    }
    assert!(quota.0.size() < 1000, "{}", quota.0.size());
    let mut shares = Shares::new(LIMIT);
    for number in 0..100_000 {
        put(&mut shares, &format!("{}/g{number}/x{number}", number % 1000), 1, ());
    }
    assert!(shares.tree.size() < 1000 && shares.slots.len() <= LIMIT, "{}", shares.tree.size());
}

#[test]
fn what_is_given_back_leaves_nothing() {
    let mut shares = Shares::new(LIMIT);
    let tickets: Vec<_> =
        (0..100).map(|number| shares.charge(&actor(&format!("u/{number}/x")), 7, number)).collect();
    let back: Vec<_> = tickets.into_iter().filter_map(|ticket| shares.release(ticket)).collect();
    assert_eq!((back, shares.used(), shares.tree.size()), ((0..100).collect(), 0, 1));
}

/// A step: who, how much, and whether an older entry is given back first.
fn step() -> impl Strategy<Value = (u8, u8, u8, usize, bool)> {
    (0..4_u8, 0..3_u8, 0..3_u8, 1..4000_usize, any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a model that adds up anew each time.
    #[test]
    fn shares_are_what_they_are_said_to_be(steps in proptest::collection::vec(step(), 1..400)) {
        let limit = 40_000;
        let mut shares = Shares::new(limit);
        let mut model: BTreeMap<usize, (String, usize)> = BTreeMap::new();
        let mut tickets = BTreeMap::new();
        for (number, (user, group, executable, amount, back)) in steps.into_iter().enumerate() {
            if back && let Some((oldest, _)) = model.pop_first() {
                shares.release(tickets[&oldest]);
            }
            let place = format!("{user}/{group}/{executable}");
            let taker = actor(&place);
            tickets.insert(number, shares.charge(&taker, amount, number));
            model.insert(number, (place.clone(), amount));
            while let Some(gone) = shares.surplus(&taker) {
                let (owner, _) = &model[&gone];
                let user = &owner[..1];
                let most = (0..4).map(|user| used(&model, &format!("{user}/"))).max().unwrap();
                // Another user's goes only where that user holds most.
                let held = used(&model, &format!("{user}/"));
                prop_assert!(user == &place[..1] || held == most, "{} of {}", held, most);
                let older = model.range(..gone).any(|(_, (other, _))| other == owner);
                prop_assert!(!older, "the oldest of an executable goes first");
                model.remove(&gone);
            }
            prop_assert_eq!(shares.used(), used(&model, ""));
            prop_assert!(shares.used() <= limit);
            if shares.used() > limit / EASY {
                let mut room = limit;
                for level in [2, 4, 5] {
                    let (child, parent) = (&place[..level], &place[..[0, 0, 0, 0, 2, 4][level]]);
                    room = room.saturating_sub(used(&model, parent) - used(&model, child)).div_ceil(2);
                    prop_assert!(used(&model, child) <= room, "{} of {}", child, room);
                }
            }
        }
    }
}

/// What all below a place hold, with the nodes.
fn used(model: &BTreeMap<usize, (String, usize)>, place: &str) -> usize {
    let held = model.values().filter(|(owner, _)| owner.starts_with(place));
    let mut nodes = std::collections::BTreeSet::new();
    let mut sum = 0;
    for (owner, amount) in held {
        sum += amount;
        nodes.extend(
            [2, 4, 5].map(|level| &owner[..level]).into_iter().filter(|node| node.len() >= place.len()),
        );
    }
    sum + nodes.len() * NODE_BYTES
}
