//! MariaDB and its replica.

use std::time::{Duration, Instant};

use testbed::mariadb::BINARY_LOG;
use testbed::{MariaDb, Workdir};

#[test]
fn a_replica_follows_late_and_a_killed_server_keeps_its_data() {
    let directory = Workdir::temporary().unwrap();
    let options = BINARY_LOG.map(str::to_owned);
    let mut primary = MariaDb::start(&directory.path().join("one"), &[0], &options).unwrap();
    primary.run("CREATE TABLE boxoffice.t (n INT, b VARBINARY(3))").unwrap();
    primary.run("INSERT INTO boxoffice.t VALUES (1, x'00ff80')").unwrap();
    let replica = primary.replica(&directory.path().join("two"), &[], 2).unwrap();
    let count = "SELECT COUNT(*) FROM boxoffice.t";
    assert_eq!(replica.number(count), Ok(1));
    // What was there before it was a replica, to the byte.
    assert_eq!(replica.run("SELECT HEX(b) FROM boxoffice.t").unwrap(), "00FF80");
    let began = Instant::now();
    primary.run("INSERT INTO boxoffice.t (n) VALUES (2)").unwrap();
    while replica.number(count).unwrap() == 1 {
        assert!(began.elapsed() < Duration::from_secs(30), "the replica does not follow");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Its clock counts whole seconds.
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
    primary.engine.kill();
    assert!(primary.run("SELECT 1").unwrap_err().contains("SELECT 1"));
    primary.engine.restart().unwrap();
    assert_eq!(primary.number(count), Ok(2));
    assert!(primary.engine.cpu_seconds().unwrap() > 0.0);
    assert!(primary.engine.rss_bytes().unwrap() > 10_000_000);
}

#[test]
fn a_server_that_does_not_start_says_why() {
    let directory = Workdir::temporary().unwrap();
    let options = ["--no-such-option".to_owned()];
    let error = MariaDb::start(&directory.path().join("one"), &[], &options).unwrap_err();
    assert!(error.contains("before it was ready") && error.contains("no-such-option"), "{error}");
    let replica = MariaDb::start(&directory.path().join("two"), &[], &[]).unwrap();
    let error = replica.replica(&directory.path().join("three"), &[], 0).unwrap_err();
    assert!(error.contains("no binary log"), "{error}");
}
