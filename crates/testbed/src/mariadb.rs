//! A MariaDB of our own, and a replica of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::engine::{Engine, Ready, words};
use crate::ports::free_port;
use crate::process::run;
use crate::tools::{program, tool};

const PATIENCE: Duration = Duration::from_secs(120);

/// What a primary has to be started with to have replicas.
pub const BINARY_LOG: [&str; 2] = ["--log-bin", "--server-id=1"];

/// A running server with a database `boxoffice`, where root needs no password.
#[derive(Debug)]
pub struct MariaDb {
    /// The process.
    pub engine: Engine,
    /// Its port.
    pub port: u16,
    socket: PathBuf,
    client: PathBuf,
}

impl MariaDb {
    /// Starts a server with an empty database in a directory that does not exist yet. Options come last, so they
    /// count for more than the usual ones.
    pub fn start(directory: &Path, cpus: &[usize], options: &[String]) -> Result<Self, String> {
        let made = |path: &Path| {
            std::fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        // Of its own: a server that starts removes the temporary tables that it finds, another one's too.
        let temporary = directory.join("tmp");
        made(&temporary)?;
        let user = run(user_name(), b"", PATIENCE)?.out.trim().to_owned();
        let data = directory.join("data");
        let common = |command: &mut Vec<String>| {
            command.push("--no-defaults".to_owned());
            command.push(format!("--user={user}"));
            command.push(format!("--datadir={}", data.display()));
            command.push(format!("--tmpdir={}", temporary.display()));
        };
        let server = tool("mariadbd")?;
        let mut arguments = Vec::new();
        common(&mut arguments);
        let mut install = Command::new(program("mariadb-install-db", "mariadb-server")?);
        install
            .args(&arguments)
            .args(["--auth-root-authentication-method=normal", "--skip-test-db"]);
        let said = run(install, b"", PATIENCE)?;
        if !said.status.success() {
            return Err(format!("mariadb-install-db failed:\n{}", said.text()));
        }
        let (port, socket) = (free_port()?, directory.join("socket"));
        let mut line = words([&server]);
        line.extend(arguments.iter().map(Into::into));
        line.extend(
            [
                "--bind-address=127.0.0.1".to_owned(),
                format!("--port={port}"),
                format!("--socket={}", socket.display()),
                format!("--pid-file={}", directory.join("pid").display()),
                "--skip-name-resolve".to_owned(),
                "--lc-messages=en_US".to_owned(),
                "--max-connections=500".to_owned(),
                "--innodb-buffer-pool-size=512M".to_owned(),
            ]
            .map(Into::into),
        );
        line.extend(options.iter().map(Into::into));
        let log = directory.join("mariadb.log");
        let engine = Engine::start("mariadbd", line, cpus, &log, Ready::Mysql(port))?;
        let client = program("mariadb", "mariadb-client")?;
        let database = Self { engine, port, socket, client };
        database.run("CREATE DATABASE boxoffice CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")?;
        Ok(database)
    }

    /// Returns what statements answer: lines of columns, with tabs between them.
    pub fn run(&self, sql: &str) -> Result<String, String> {
        self.feed(&["-N", "-e", sql], b"")
    }

    /// Returns the one number that a statement answers.
    pub fn number(&self, sql: &str) -> Result<i64, String> {
        let said = self.run(sql)?;
        said.parse().map_err(|_| format!("`{sql}` answers no number: {said}"))
    }

    fn feed(&self, arguments: &[&str], input: &[u8]) -> Result<String, String> {
        let said = run(self.tool(&self.client, arguments), input, PATIENCE)?;
        if said.status.success() {
            Ok(said.out.trim().to_owned())
        } else {
            // The client repeats a statement, which may be that of a dump, before it says what is wrong with it.
            let skipped = said.err.chars().count().saturating_sub(1_000);
            let end: String = said.err.chars().skip(skipped).collect();
            Err(format!("MariaDB refuses {}: {}", arguments.last().unwrap_or(&""), end.trim()))
        }
    }

    fn tool(&self, path: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(path);
        command.args(["--no-defaults", "--user=root"]);
        command.arg(format!("--socket={}", self.socket.display())).args(arguments);
        command
    }

    /// How an instance finds it; through a proxy where `port` is another one.
    pub fn url(&self, port: u16) -> String {
        format!("mysql://root@127.0.0.1:{port}/boxoffice")
    }

    /// The socket that an administrator logs in by.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The console's program.
    pub fn client(&self) -> &Path {
        &self.client
    }

    /// Starts a second server that follows this one, `delay_s` seconds behind. This one needs [`BINARY_LOG`].
    pub fn replica(&self, directory: &Path, cpus: &[usize], delay_s: u32) -> Result<Self, String> {
        if self.run("SHOW MASTER STATUS")?.is_empty() {
            return Err("MariaDB writes no binary log, so it has no replica".to_owned());
        }
        self.run(
            "CREATE USER IF NOT EXISTS copy@'127.0.0.1' IDENTIFIED BY 'copy'; \
             GRANT REPLICATION SLAVE ON *.* TO copy@'127.0.0.1'",
        )?;
        let replica = Self::start(directory, cpus, &["--server-id=2".to_owned()])?;
        // With the position in the binary log that it was made at.
        let dump = program("mariadb-dump", "mariadb-client")?;
        // Bytes that are no text would not get through.
        let options = ["--single-transaction", "--master-data=1", "--hex-blob", "boxoffice"];
        let dump = self.tool(&dump, &options);
        let dump = run(dump, b"", PATIENCE)?;
        if !dump.status.success() {
            return Err(format!("mariadb-dump failed: {}", dump.err.trim()));
        }
        replica.run(&format!(
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='copy', \
             MASTER_PASSWORD='copy', MASTER_DELAY={delay_s}",
            self.port
        ))?;
        replica.feed(&["boxoffice"], dump.out.as_bytes())?;
        replica.run("START SLAVE")?;
        let until = Instant::now() + PATIENCE;
        // Slave_IO_Running and Slave_SQL_Running are side by side.
        while !replica.run("SHOW SLAVE STATUS")?.contains("\tYes\tYes\t") {
            if Instant::now() > until {
                return Err("the replica does not follow".to_owned());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(replica)
    }
}

fn user_name() -> Command {
    let mut command = Command::new("id");
    command.arg("-un");
    command
}
