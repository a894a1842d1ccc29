//! People: one id each, and never another's.

use std::collections::BTreeSet;

use boxoffice_backends::store::NewPerson;
use boxoffice_domain::ids::UserId;

use super::{START, Subject, at_once, charge, user};

fn person(name: &str, id: Option<i64>) -> NewPerson {
    let mut digest = [0; 32];
    digest[..name.len()].copy_from_slice(name.as_bytes());
    NewPerson {
        digest,
        issuer: "https://issuer.example".into(),
        name: name.into(),
        id: id.and_then(UserId::new),
    }
}

/// Whoever is new gets an id, once; it is theirs after a reopen. Nobody gets the id of an account that
/// was there before.
pub(crate) async fn a_person_gets_an_id_once(subject: Subject) {
    let store = &subject.store;
    for id in 1..=70 {
        store.charge(charge(id, 5, START)).await.unwrap();
    }
    // The digests differ in what a collation would overlook.
    let names = ["kim", "Kim", "kim ", "k\u{ef}m", "\u{1f3ab}"];
    let people: Vec<_> = names.iter().map(|name| person(name, None)).collect();
    let first = store.people(people.clone(), START).await.unwrap();
    let ids: BTreeSet<_> = first.iter().flatten().collect();
    assert_eq!(ids.len(), names.len(), "{first:?}");
    assert!(ids.iter().all(|id| id.get() > 70), "{ids:?}");
    let twice = [people[1].clone(), person("lee", None), people[1].clone()];
    let again = store.people(twice.to_vec(), START).await.unwrap();
    assert_eq!((again[0], again[2]), (first[1], first[1]));
    assert!(!first.contains(&again[1]), "{again:?}");
    let subject = subject.reopened().await;
    assert_eq!(subject.store.people(people, START).await, Ok(first.clone()));
    let new = subject.store.people(vec![person("park", None)], START).await.unwrap();
    assert!(!first.contains(&new[0]) && new[0] != again[1], "{new:?}");
}

/// Who brings an id along has it, unless another person has it; nobody gets it later.
pub(crate) async fn an_id_that_is_brought_along_is_one_persons(Subject { store, .. }: Subject) {
    let brought = vec![person("17", Some(17)), person("seventeen", Some(17)), person("2", Some(2))];
    let ids = store.people(brought.clone(), START).await.unwrap();
    assert_eq!(ids, [Some(user(17)), None, Some(user(2))]);
    let again = vec![brought[1].clone(), brought[0].clone()];
    assert_eq!(store.people(again, START).await, Ok(vec![None, Some(user(17))]));
    let many = (0..40).map(|n| person(&format!("new {n}"), None)).collect();
    let many: Vec<_> = store.people(many, START).await.unwrap().into_iter().flatten().collect();
    assert_eq!(BTreeSet::from_iter(&many).len(), 40);
    assert!(!many.contains(&user(17)) && !many.contains(&user(2)), "{many:?}");
}

/// People who come for the first time at several doors at once have one id each.
pub(crate) async fn people_seen_at_once_have_one_id_each(Subject { store, .. }: Subject) {
    let rounds = at_once((0..8).map(|door: usize| {
        let store = store.clone();
        async move {
            let mut ids = Vec::new();
            for part in 0..10 {
                let mut people: Vec<_> =
                    (part * 20..part * 20 + 20).map(|n| person(&format!("p{n}"), None)).collect();
                people.rotate_left(door);
                let mut found = store.people(people, START).await.unwrap();
                found.rotate_right(door);
                ids.extend(found);
            }
            ids
        }
    }))
    .await;
    assert!(rounds.iter().all(|ids| *ids == rounds[0]));
    assert_eq!(rounds[0].iter().flatten().collect::<BTreeSet<_>>().len(), 200);
}
