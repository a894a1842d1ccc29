//! haproxy before the instances, as [the operations page](../../../docs/operations.md) recommends it.

use std::path::Path;

use crate::engine::{Engine, Ready, words};
use crate::tools::tool;

/// Clients at a time. The open files of one process are often limited to 20,000, and connections are two
/// thirds of them only because those towards the instances are few: they are shared (`http-reuse`) and no
/// more than [`REQUESTS_PER_INSTANCE`] for each instance. Requests beyond that wait in the proxy.
const CONNECTIONS: u32 = 12_000;
const REQUESTS_PER_INSTANCE: u32 = 1_500;

/// A running proxy.
#[derive(Debug)]
pub struct Haproxy {
    /// The process.
    pub engine: Engine,
    /// Where clients come.
    pub port: u16,
}

impl Haproxy {
    /// Starts it on a port before instances by name and port; `lines` go into its frontend.
    pub fn start(
        directory: &Path,
        port: u16,
        instances: &[(String, u16)],
        lines: &[String],
        cpus: &[usize],
    ) -> Result<Self, String> {
        let file = directory.join("haproxy.cfg");
        std::fs::write(&file, configuration(port, instances, lines))
            .map_err(|error| format!("{}: {error}", file.display()))?;
        let line = words([&tool("haproxy")?, &"-db", &"-f", &file]);
        let log = directory.join("haproxy.log");
        let engine = Engine::start("haproxy", line, cpus, &log, Ready::Listens(port))?;
        Ok(Self { engine, port })
    }
}

fn configuration(port: u16, instances: &[(String, u16)], lines: &[String]) -> String {
    let servers: String = instances
        .iter()
        .map(|(name, port)| format!("    server {name} 127.0.0.1:{port}\n"))
        .collect();
    let lines: String = lines.iter().map(|line| format!("    {line}\n")).collect();
    format!(
        "global
    maxconn {CONNECTIONS}
    nbthread 1
    # It reckons with two files for each client, which are more than there are; it never uses them.
    no strict-limits
    # Else it closes connections to the instances as soon as a quarter of its files is used by clients, and
    # opens one for each request.
    tune.pool-low-fd-ratio 90
    tune.pool-high-fd-ratio 95
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout queue 60s
    # Longer than a client's pause: a POST that meets the end of its connection is lost to the client.
    timeout http-keep-alive 60s
    http-reuse always
    retries 2
    option redispatch
frontend front
{lines}    bind 127.0.0.1:{port} backlog 16384
    maxconn {CONNECTIONS}
    # Where none can sell, because the database that they share is away, the line goes on in their memory.
    use_backend instances if {{ nbsrv(instances) gt 0 }}
    default_backend line
backend instances
    balance roundrobin
    option httpchk GET /health/ready
    default-server check inter 500ms fall 2 rise 1 maxconn {REQUESTS_PER_INSTANCE}
{servers}backend line
    balance roundrobin
    option httpchk GET /health/live
    default-server check inter 500ms fall 2 rise 1
{servers}"
    )
}
