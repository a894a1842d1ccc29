//! Kafka.

use testbed::{Kafka, Workdir};

#[test]
fn a_broker_is_killed_and_started_again_on_its_data() {
    let directory = Workdir::temporary().unwrap();
    let settings = ["num.partitions=2".to_owned()];
    let mut broker = Kafka::start(directory.path(), &[], &settings).unwrap();
    let id = broker.engine.id().unwrap();
    // The process is the broker itself, not what has started it.
    let name = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap();
    assert_eq!(name.trim(), "java");
    broker.engine.kill();
    assert_eq!(broker.engine.id(), None);
    broker.engine.restart().unwrap();
    broker.engine.stop();
    assert!(!broker.engine.is_running());
}
