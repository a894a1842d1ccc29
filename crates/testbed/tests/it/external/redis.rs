//! Redis in its forms.

use std::time::{Duration, Instant};

use testbed::{Redis, RedisForm, Workdir};

#[test]
fn each_form_starts_and_says_where_it_is() {
    let directory = Workdir::temporary().unwrap();
    for (form, mode, count) in [
        (RedisForm::Single, None, 1),
        (RedisForm::Sentinels, Some("sentinel"), 3),
        (RedisForm::Cluster, Some("cluster"), 3),
    ] {
        let redis = Redis::start(form, &directory.path().join(format!("{form:?}")), &[]).unwrap();
        let settings = redis.settings();
        let setting = |wanted: &str| {
            settings.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.as_str())
        };
        assert_eq!(setting("queue.redis.mode"), mode);
        assert_eq!(setting("queue.redis.nodes").unwrap().split(',').count(), count);
    }
}

#[test]
fn it_is_asked_frozen_killed_and_started_again() {
    let directory = Workdir::temporary().unwrap();
    let Redis::Single(mut server) = Redis::start(RedisForm::Single, directory.path(), &[]).unwrap()
    else {
        panic!("one server was asked for")
    };
    assert_eq!(server.ask(&["set", "a", "1"]).unwrap(), "OK");
    assert_eq!(server.calls().unwrap()["set"], 1);
    assert!(server.ask(&["nonsense"]).unwrap_err().contains("nonsense"));
    server.engine.freeze();
    let began = Instant::now();
    assert!(server.ask(&["ping"]).unwrap_err().contains("not done"));
    assert!(began.elapsed() >= Duration::from_secs(5));
    server.engine.thaw();
    assert_eq!(server.ask(&["get", "a"]).unwrap(), "1");
    let before = server.engine.id();
    server.engine.kill();
    assert!(!server.engine.is_running());
    server.engine.restart().unwrap();
    assert_ne!(server.engine.id(), before);
    assert_eq!(server.ask(&["get", "a"]).unwrap(), "");
}

#[test]
fn the_sentinels_name_another_master() {
    let directory = Workdir::temporary().unwrap();
    let redis = Redis::start(RedisForm::Sentinels, directory.path(), &[]).unwrap();
    let Redis::Sentinels(mut all) = redis else { panic!("sentinels were asked for") };
    let first = all.master().unwrap();
    all.nodes[first].engine.kill();
    let began = Instant::now();
    while all.master().unwrap() == first {
        assert!(began.elapsed() < Duration::from_secs(30), "nobody else becomes master");
        std::thread::sleep(Duration::from_millis(50));
    }
}
