//! One place for each person, across instances, when Redis is wiped and while it is away.

use super::*;
use boxoffice_backends::sequencer::{Joined, Name, Newcomer};

use crate::places::newcomer;

impl Instance {
    async fn join_once(&self, person: i64, attempt: u64) -> Joined {
        let newcomer = newcomer(person, attempt, 0);
        self.sequencer.join_once(&self.queue, newcomer, now()).await.unwrap()
    }

    /// A poll, as the service answers it.
    fn poll(&self, ticket: &Ticket) -> Place {
        let place = self.sequencer.place(&self.queue, &ticket.clone().into(), now());
        if !matches!(place, Place::Over(_)) {
            self.sequencer.show(&self.queue, ticket);
        }
        place
    }

    fn seconds(&self) -> u64 {
        self.queue.counters().seconds.load(Ordering::Relaxed)
    }
}

fn one_each(server: &Server) -> RedisOptions {
    RedisOptions { one_place_each: true, ..options(server.port) }
}

fn is_live(place: Place) -> bool {
    !matches!(place, Place::Over(_))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_has_one_ticket_at_all_instances() {
    let server = Server::start();
    let cluster = Cluster::start(3, settings(0.001, None), &one_each(&server)).await;
    const PEOPLE: i64 = 200;
    let mut joining = Vec::new();
    for attempt in 0..PEOPLE * 9 {
        let instance = &cluster.instances[attempt as usize % 3];
        let (sequencer, queue) = (instance.sequencer.clone(), instance.queue.clone());
        let newcomer = newcomer(1 + attempt / 9, attempt as u64, 0);
        joining.push(tokio::spawn(async move {
            sequencer.join_once(&queue, newcomer, now()).await.unwrap()
        }));
    }
    let (mut tickets, mut new) = (BTreeMap::new(), 0);
    for joined in joining {
        let Joined { ticket, is_new } = joined.await.unwrap();
        new += i64::from(is_new);
        let first = tickets.entry(ticket.user.get()).or_insert_with(|| ticket.clone());
        assert_eq!(*first, ticket);
    }
    let seqs: BTreeSet<u64> = tickets.values().map(|ticket| ticket.seq).collect();
    assert_eq!((new, seqs.len() as i64), (PEOPLE, PEOPLE));
    // Whoever gives up, wherever that is, gets a new one, wherever they ask.
    let [a, b, c] = &cluster.instances[..] else { panic!("three of them") };
    let first = &tickets[&1];
    a.sequencer.leave(&a.queue, &first.clone().into(), now()).await.unwrap();
    until("nobody has heard", || !is_live(b.queue_place(first)) && !is_live(c.queue_place(first)))
        .await;
    let second = b.join_once(1, 10_000).await;
    assert!(second.is_new && second.ticket.seq > first.seq, "{second:?}");
    assert_eq!(c.join_once(1, 10_001).await.ticket.id, second.ticket.id);
    // A key does the same where people are not known, for one queue.
    let key = |attempt| Newcomer { name: Name::Key([3; 16]), ..newcomer(5, attempt, 0) };
    let by_key = a.sequencer.join_once(&a.queue, key(20_000), now()).await.unwrap();
    let again = b.sequencer.join_once(&b.queue, key(20_001), now()).await.unwrap();
    assert_eq!((by_key.is_new, again.is_new, &again.ticket), (true, false, &by_key.ticket));
    assert_clean(&cluster.store, now()).await;
}

impl Instance {
    fn queue_place(&self, ticket: &Ticket) -> Place {
        self.sequencer.place(&self.queue, &ticket.clone().into(), now())
    }
}

/// Everybody polls at some instance, and everybody joins once more there, just after Redis has forgotten
/// everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_loses_a_place_or_keeps_two_when_redis_is_wiped() {
    let server = Server::start();
    let cluster = Cluster::start(2, settings(0.001, None), &one_each(&server)).await;
    const PEOPLE: i64 = 300;
    let mut first = Vec::new();
    for person in 1..=PEOPLE {
        first.push(
            cluster.instances[person as usize % 2].join_once(person, person as u64).await.ticket,
        );
    }
    let () = server.ask(&["FLUSHALL"]);
    let mut second = Vec::new();
    for person in 1..=PEOPLE {
        let instance = &cluster.instances[(person as usize + 1) % 2];
        second.push(instance.join_once(person, 1_000_000 + person as u64).await.ticket);
    }
    let again: Vec<usize> =
        (0..PEOPLE as usize).filter(|index| first[*index].id != second[*index].id).collect();
    assert!(again.len() > 100, "{} were forgotten", again.len());
    let poll = |ticket: &Ticket, at: usize| cluster.instances[at % 2].poll(ticket);
    // One poll of each client, and what follows from it.
    for index in 0..PEOPLE as usize {
        poll(&first[index], index);
        poll(&second[index], index + 1);
    }
    until("somebody has two places", || {
        cluster.instances.iter().all(|instance| {
            again.iter().all(|index| !is_live(instance.queue_place(&second[*index])))
        })
    })
    .await;
    let given_up: u64 = cluster.instances.iter().map(Instance::seconds).sum();
    assert_eq!(given_up, again.len() as u64);
    for (index, ticket) in first.iter().enumerate() {
        assert!(is_live(poll(ticket, index)), "{ticket:?}");
        let joined = cluster.instances[index % 2].join_once(ticket.user.get(), 2_000_000).await;
        assert_eq!((joined.is_new, joined.ticket.id), (false, ticket.id));
    }
    assert_clean(&cluster.store, now()).await;
}

/// Somebody joins at two instances at once while Redis is away, and again when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_twice_while_redis_is_away_keeps_one_place() {
    let mut server = Server::start();
    let cluster = Cluster::start(2, settings(0.001, None), &one_each(&server)).await;
    let [a, b] = &cluster.instances[..] else { panic!("two of them") };
    let before = a.join_once(1, 1).await.ticket;
    server.kill();
    until("redis is not away", || !a.redis_is_up() && !b.redis_is_up()).await;
    let (here, there) = tokio::join!(a.join_once(2, 2), b.join_once(2, 3));
    assert!(here.is_new && there.is_new, "nobody can know");
    let (here, there) = (here.ticket, there.ticket);
    let third = b.join_once(1, 4).await.ticket;
    server.restart();
    until("redis is not back", || a.redis_is_up() && b.redis_is_up()).await;
    let all = [&before, &here, &there, &third];
    let live = |instance: &Instance| {
        all.iter()
            .filter(|ticket| is_live(instance.poll(ticket)))
            .map(|ticket| ticket.seq)
            .collect()
    };
    let kept = vec![before.seq, here.seq.min(there.seq)];
    until("somebody has two places", || {
        let (at_a, at_b): (Vec<u64>, Vec<u64>) = (live(a), live(b));
        let sorted = |mut seqs: Vec<u64>| {
            seqs.sort_unstable();
            seqs
        };
        sorted(at_a) == kept && sorted(at_b) == kept
    })
    .await;
    for (person, seq) in [(1, kept[0]), (2, kept[1])] {
        for instance in [a, b] {
            assert_eq!(instance.join_once(person, 5).await.ticket.seq, seq);
        }
    }
    assert_clean(&cluster.store, now()).await;
}

/// Redis stands still for longer than a call may take: the numbers come from the store, and the call is
/// carried out all the same once it goes on. What nobody was told of is nobody's place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_came_too_late_takes_nobodys_place() {
    let server = Server::start();
    let cluster = Cluster::start(2, settings(0.001, None), &one_each(&server)).await;
    const PEOPLE: i64 = 40;
    // There is a pool for the late call to give numbers of.
    cluster.instances[0].join_once(1_001, 1_001).await;
    let pooled = || sum(&cluster, |stats| &stats.pooled);
    until("there is no pool", || pooled() > 2 * PEOPLE as u64).await;
    server.freeze();
    let joins = (1..=PEOPLE).map(|person| {
        let Instance { sequencer, queue, .. } = &cluster.instances[person as usize % 2];
        let (sequencer, queue) = (sequencer.clone(), queue.clone());
        let newcomer = newcomer(person, person as u64, 0);
        async move { sequencer.join_once(&queue, newcomer, now()).await }
    });
    let joined = crate::conformance::at_once(joins);
    let thawing = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        server.thaw();
    };
    let (joined, ()) = tokio::join!(joined, thawing);
    let told: Vec<Joined> = joined.into_iter().flatten().collect();
    assert!(told.len() > 20, "{} were told a number", told.len());
    assert!(told.iter().all(|joined| joined.is_new));
    until("redis is not back", || cluster.instances.iter().all(Instance::redis_is_up)).await;
    for _ in 0..20 {
        for (index, Joined { ticket, .. }) in told.iter().enumerate() {
            assert!(is_live(cluster.instances[index % 2].poll(ticket)), "{ticket:?} is lost");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (index, Joined { ticket, .. }) in told.iter().enumerate() {
        let instance = &cluster.instances[(index + 1) % 2];
        let again = instance.join_once(ticket.user.get(), 1_000).await;
        assert_eq!((again.is_new, &again.ticket), (false, ticket));
    }
    assert_clean(&cluster.store, now()).await;
}

/// Whoever gives up a place at one instance and joins at another at once gets a new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_here_and_joins_there_gets_a_new_place() {
    let server = Server::start();
    let cluster = Cluster::start(2, settings(0.001, None), &one_each(&server)).await;
    let [a, b] = &cluster.instances[..] else { panic!("two of them") };
    for round in 0..20 {
        let first = a.join_once(1, round * 2).await;
        assert!(first.is_new, "round {round}");
        a.sequencer.leave(&a.queue, &first.ticket.clone().into(), now()).await.unwrap();
        let second = b.join_once(1, round * 2 + 1).await;
        assert!(second.is_new && second.ticket.seq > first.ticket.seq, "round {round}");
        b.sequencer.leave(&b.queue, &second.ticket.into(), now()).await.unwrap();
    }
}

/// What a place takes in Redis, as the server counts it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_takes_less_than_forty_bytes_in_redis() {
    let server = Server::start();
    let cluster = Cluster::start(1, settings(0.001, None), &one_each(&server)).await;
    const PEOPLE: i64 = 20_000;
    let used = || -> i64 {
        let info: String = server.ask(&["INFO", "memory"]);
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        line.unwrap().trim().parse().unwrap()
    };
    cluster.instances[0].join_once(PEOPLE + 1, 0).await;
    let before = used();
    let joins = (1..=PEOPLE).map(|person| {
        let (sequencer, queue) =
            (cluster.instances[0].sequencer.clone(), cluster.instances[0].queue.clone());
        // The ids that a service makes: those of one process are alike.
        let newcomer = Newcomer { issued_at: now(), ..newcomer(person, person as u64, 0) };
        async move { sequencer.join_once(&queue, newcomer, now()).await.unwrap() }
    });
    crate::conformance::at_once(joins).await;
    let each = (used() - before) as f64 / PEOPLE as f64;
    assert!(each < 40.0, "{each} bytes");
}
