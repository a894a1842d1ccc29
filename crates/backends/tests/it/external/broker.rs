//! A real broker of a test's own: that of the testbed.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a helper of a test may fail like the test")]

use testbed::{Kafka, Workdir};

/// One node, which does not outlive the test.
pub(crate) struct Broker {
    broker: Kafka,
    _directory: Workdir,
}

impl Broker {
    /// Starts it with settings of the form `key=value` and waits until it serves.
    #[track_caller]
    pub(crate) fn start(settings: &[&str]) -> Self {
        let directory = Workdir::temporary().unwrap();
        let settings: Vec<String> = settings.iter().map(|text| (*text).to_owned()).collect();
        let broker = Kafka::start(directory.path(), &[], &settings).unwrap();
        Self { broker, _directory: directory }
    }

    pub(crate) fn address(&self) -> String {
        self.broker.address()
    }

    /// Ends it without a word.
    pub(crate) fn kill(&mut self) {
        self.broker.engine.kill();
    }

    /// Starts it again on its data.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.broker.engine.restart().unwrap();
    }

    /// Lets it hang: connections stay, and nothing answers.
    pub(crate) fn freeze(&self) {
        self.broker.engine.freeze();
    }

    pub(crate) fn thaw(&self) {
        self.broker.engine.thaw();
    }
}
