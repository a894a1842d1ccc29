//! nginx as one process that answers one path with a file, as cheaply as it can.

use std::path::Path;

use crate::engine::{Engine, Ready, words};
use crate::ports::free_port;
use crate::tools::tool;

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    /// The process.
    pub engine: Engine,
    /// Its port.
    pub port: u16,
}

impl Nginx {
    /// Starts it in a directory that is made for it, and has it answer `path` with `text`.
    pub fn start(directory: &Path, path: &str, text: &str, cpus: &[usize]) -> Result<Self, String> {
        let failed = |error| format!("{}: {error}", directory.display());
        let www = directory.join("www");
        std::fs::create_dir_all(&www).map_err(failed)?;
        std::fs::write(www.join("answer"), text).map_err(failed)?;
        let port = free_port()?;
        let file = directory.join("nginx.conf");
        std::fs::write(&file, configuration(directory, path, port)).map_err(failed)?;
        let line = words([&tool("nginx")?, &"-c", &file]);
        let log = directory.join("error.log");
        let engine = Engine::start("nginx", line, cpus, &log, Ready::Listens(port))?;
        Ok(Self { engine, port })
    }
}

fn configuration(home: &Path, path: &str, port: u16) -> String {
    let home = home.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {home}/{kind};\n"))
        .concat();
    format!(
        "daemon off;
master_process off;
pid {home}/pid;
error_log {home}/error.log;
events {{ worker_connections 4096; }}
http {{
access_log off;
sendfile on;
keepalive_requests 1000000000;
open_file_cache max=10;
default_type application/json;
{temporary}server {{ listen 127.0.0.1:{port}; root {home}/www; location = {path} {{ try_files /answer =404; }} }}
}}
"
    )
}
