//! A real Kafka broker: one node in KRaft mode. `scripts/lib/kafka.py` knows its jars and its configuration,
//! and becomes the broker.

use std::ffi::OsString;
use std::path::Path;

use crate::engine::{Engine, Ready};
use crate::ports::free_port;
use crate::tools::tool;

/// One broker, with a directory of its own.
#[derive(Debug)]
pub struct Kafka {
    /// The process, which is the JVM.
    pub engine: Engine,
    /// Its port.
    pub port: u16,
}

impl Kafka {
    /// Starts a broker with settings of the form `key=value` and waits until it serves.
    pub fn start(directory: &Path, cpus: &[usize], settings: &[String]) -> Result<Self, String> {
        std::fs::create_dir_all(directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        let port = free_port()?;
        let mut line: Vec<OsString> = vec![tool("kafka")?.into(), "run".into(), "--dir".into()];
        line.extend([directory.join("broker").into(), "--port".into(), port.to_string().into()]);
        for setting in settings {
            line.extend(["--set".into(), setting.into()]);
        }
        let log = directory.join("kafka.log");
        let engine = Engine::start("Kafka", line, cpus, &log, Ready::Kafka(port))?;
        Ok(Self { engine, port })
    }

    /// How clients find it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}
