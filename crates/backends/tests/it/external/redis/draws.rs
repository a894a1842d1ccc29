//! The opening draw of instances that share a queue.

use boxoffice_backends::store::{DrawSeed, draw};
use boxoffice_domain::queue::{Drawn, Order};

use super::*;

const SEED: [u8; 32] = [7; 32];

/// Instances on a queue that opens in so many milliseconds, and lets hardly anybody in.
async fn cluster(count: usize, opens_in_ms: i64, options: &RedisOptions) -> (Cluster, Timestamp) {
    let (store, directory) = fresh().await;
    let opens_at = Timestamp(now().0 + opens_in_ms);
    let settings = QueueSettings { opens_at: Some(opens_at), ..settings(0.001, None) };
    store.create_queue_drawn(name("main"), settings, Some(DrawSeed(SEED))).await.unwrap();
    let mut instances = Vec::new();
    for number in 0..count {
        let options = RedisOptions { instance: number.to_string(), ..options.clone() };
        instances.push(Instance::start(&store, options).await);
    }
    (Cluster { instances, store, _directory: directory }, opens_at)
}

/// A join: its number, when it was asked for, and when it was answered.
type Joined = (u64, Timestamp, Timestamp);

/// Joins at all instances, one after another, until `until`.
async fn joins(cluster: &Cluster, until: Timestamp) -> Vec<Joined> {
    let mut joined = Vec::new();
    for instance in cluster.instances.iter().cycle() {
        let asked = now();
        if asked >= until {
            break;
        }
        if let Ok(seq) = instance.join().await {
            joined.push((seq, asked, now()));
        }
    }
    joined
}

/// Waits until all instances know of the draw, which is the same for all. Returns it.
async fn drawn(cluster: &Cluster) -> Drawn {
    let known = |instance: &Instance| instance.queue.draw().unwrap().drawn;
    until("the draw", || cluster.instances.iter().all(|it| known(it).is_some())).await;
    let drawn = known(&cluster.instances[0]).unwrap();
    assert!(cluster.instances.iter().all(|it| known(it) == Some(drawn)));
    assert_eq!(drawn.seed, SEED);
    drawn
}

/// Whoever was answered before the opening takes part, and whoever asked when all knew of the draw does not; and
/// each has the place that was drawn, at each instance.
fn check(
    cluster: &Cluster,
    joined: &[Joined],
    drawn: Drawn,
    opens_at: Timestamp,
    known: Timestamp,
) {
    let order = Order::Drawn(draw(&drawn));
    for (seq, asked, answered) in joined {
        assert!(*seq <= drawn.count || *answered >= opens_at, "{seq} came in time: {drawn:?}");
        assert!(*seq > drawn.count || *asked < known, "{seq} came late: {drawn:?}");
        let waits = waiting_at(*seq, &order, &cluster.instances[0]);
        for instance in &cluster.instances {
            assert_eq!(instance.place(*seq), waits, "{seq}");
        }
    }
}

fn waiting_at(seq: u64, order: &Order, instance: &Instance) -> Place {
    Place::Waiting { number: order.rank(seq) - instance.queue.serving() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_joins_at_all_instances_is_drawn_once() {
    let server = Server::start();
    let (cluster, opens_at) = cluster(3, 2_000, &options(server.port)).await;
    let [a, b, _] = &cluster.instances[..] else { panic!("three of them") };
    let first = a.join().await.unwrap();
    assert_eq!((a.place(first), b.place(first)), (Place::Undrawn, Place::Undrawn));
    let gone = b.join().await.unwrap();
    a.sequencer.leave(&a.queue, &pass(gone), now()).await.unwrap();
    assert_eq!(a.place(gone), Place::Over(Ending::Left));
    let mut joined = joins(&cluster, Timestamp(opens_at.0 + 100)).await;
    let drawn = drawn(&cluster).await;
    let known = now();
    joined.extend(joins(&cluster, Timestamp(known.0 + 300)).await);
    assert!(joined.len() > 30, "only {}", joined.len());
    assert!(joined.iter().any(|(seq, ..)| *seq > drawn.count));
    until("who left is known", || {
        cluster.instances.iter().all(|it| it.place(gone) == Place::Over(Ending::Left))
    })
    .await;
    // Nobody counts who has left.
    let rank = Order::Drawn(draw(&drawn)).rank(gone);
    let order = Order::Drawn(draw(&drawn));
    joined.retain(|(seq, ..)| order.rank(*seq) < rank);
    check(&cluster, &joined, drawn, opens_at, known);
    assert_clean(&cluster.store, now()).await;
}

/// Redis goes away before the opening, and comes back empty, or as it was, after the draw.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draw_without_redis_takes_all_who_may_have_a_number() {
    for comes_back_empty in [true, false] {
        let mut server = Server::start();
        let (cluster, opens_at) = cluster(2, 1_500, &options(server.port)).await;
        let mut joined = joins(&cluster, Timestamp(opens_at.0 - 500)).await;
        if comes_back_empty {
            server.kill()
        } else {
            server.freeze()
        }
        let drawn = drawn(&cluster).await;
        let known = now();
        joined.extend(joins(&cluster, Timestamp(known.0 + 300)).await);
        if comes_back_empty {
            server.restart()
        } else {
            server.thaw()
        }
        until("redis is back", || cluster.instances.iter().all(Instance::redis_is_up)).await;
        joined.extend(joins(&cluster, Timestamp(now().0 + 500)).await);
        let late = joined.iter().filter(|(seq, ..)| *seq > drawn.count).count();
        assert!(late > 5, "{late} of {}", joined.len());
        check(&cluster, &joined, drawn, opens_at, known);
        assert_clean(&cluster.store, now()).await;
    }
}
