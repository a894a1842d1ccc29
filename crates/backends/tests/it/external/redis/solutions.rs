//! Solutions of challenges are good once, at whichever instance, as long as Redis is there.

use std::time::Duration;

use boxoffice_backends::sequencer::{Solution, Use};

use super::super::servers::Server;
use super::{Cluster, all_up, none_up, now, options, settings, until};

fn solution(id: u8, by: Option<u8>) -> Solution {
    let expires_at = now().plus(Duration::from_secs(60));
    Solution { id: [id; 16], expires_at, by: by.map(|by| [by; 16]) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_solution_is_good_once_at_all_instances() {
    let mut server = Server::start();
    let cluster = Cluster::start(2, settings(1.0, None), &options(server.port)).await;
    let take = async |at: usize, solution: &Solution| {
        cluster.instances[at].sequencer.use_solution(solution, now()).await
    };
    let by_key = solution(1, Some(7));
    assert_eq!(take(0, &by_key).await, Use::First);
    for at in [1, 0, 1] {
        assert_eq!(take(at, &by_key).await, Use::Again);
    }
    // Nobody makes it theirs by asking again where it was not used.
    let by_another = Solution { by: Some([8; 16]), ..by_key };
    let nameless = Solution { by: None, ..by_key };
    for _ in 0..3 {
        for at in [1, 0] {
            assert_eq!(take(at, &by_another).await, Use::Another);
            assert_eq!(take(at, &nameless).await, Use::Another);
        }
    }
    for at in [1, 0] {
        assert_eq!(take(at, &by_key).await, Use::Again, "whoever was first may still repeat it");
    }
    let fresh = solution(2, None);
    for (at, wanted) in [(1, Use::First), (0, Use::Another), (1, Use::Another)] {
        assert_eq!(take(at, &fresh).await, wanted);
    }
    let contested = solution(3, Some(9));
    let another = Solution { by: Some([10; 16]), ..contested };
    assert_eq!(take(0, &contested).await, Use::First);
    for _ in 0..3 {
        assert_eq!(take(1, &another).await, Use::Another);
    }
    // Also while Redis is away, and when it comes back empty.
    let known = [solution(4, None), solution(5, None)];
    assert_eq!(take(0, &known[0]).await, Use::First);
    assert_eq!(take(1, &known[1]).await, Use::First);
    server.kill();
    until("redis is not missed", || none_up(&cluster)).await;
    assert_eq!(take(1, &another).await, Use::Another);
    for at in [0, 1] {
        assert_eq!(take(at, &known[at]).await, Use::Another, "each knows of its own");
    }
    let meanwhile = solution(6, None);
    assert_eq!(take(0, &meanwhile).await, Use::First);
    server.restart();
    until("redis is not found", || all_up(&cluster)).await;
    assert_eq!(take(0, &meanwhile).await, Use::Another);
    assert_eq!(take(0, &known[0]).await, Use::Another);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_uses_at_once_one_is_the_first() {
    let server = Server::start();
    let cluster = Cluster::start(3, settings(1.0, None), &options(server.port)).await;
    for id in 10..20 {
        let solution = solution(id, None);
        let mut uses = tokio::task::JoinSet::new();
        for n in 0..60 {
            let sequencer = cluster.instances[n % 3].sequencer.clone();
            uses.spawn(async move { sequencer.use_solution(&solution, now()).await });
        }
        let uses = uses.join_all().await;
        assert_eq!(uses.iter().filter(|used| **used == Use::First).count(), 1, "{uses:?}");
        assert_eq!(uses.iter().filter(|used| **used == Use::Another).count(), 59);
    }
    // What is remembered is forgotten again.
    let left: i64 = server.ask(&["TTL", &format!("{{boxoffice}}:solved:{}", "0a".repeat(16))]);
    assert!((55..=66).contains(&left), "{left}");
}
