//! A private MariaDB for the tests of this process, with a database for each.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use boxoffice_backends::Fault;
use boxoffice_backends::store::{MysqlOptions, MysqlServer, MysqlStore, MysqlTls, Store};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tempfile::TempDir;

/// A running server. Whatever becomes of the process, it ends with it: a small shell waits for the
/// end of our standard input and stops it.
pub(crate) struct Server {
    pub(crate) port: u16,
    directory: TempDir,
    guard: Child,
    /// Further options of the server.
    options: String,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Tools of servers are where an ordinary user does not look.
fn command(name: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(name);
    command.env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

impl Server {
    /// Starts a server with an empty data directory.
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), String::new(), false)
    }

    /// Starts a server that nobody drops: its shell takes the directory away.
    fn start_for_all() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), String::new(), true)
    }

    /// Starts a server with a certificate for 127.0.0.1; returns the authority that has signed it.
    pub(crate) fn start_with_tls() -> (Self, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().display();
        let script = format!(
            "set -e; cd {at}; exec 2>openssl.log; \
             openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority \
             -keyout ca.key -out ca.pem; \
             openssl req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr; \
             printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' >extensions; \
             openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
             -extfile extensions -out server.pem"
        );
        let made = command("bash").args(["-c", &script]).status().unwrap();
        assert!(made.success(), "openssl failed; is it installed?");
        let options = format!("--ssl-cert={at}/server.pem --ssl-key={at}/server.key");
        let authority = directory.path().join("ca.pem");
        (Self::start_in(directory, options, false), authority)
    }

    fn start_in(directory: TempDir, options: String, removed: bool) -> Self {
        let data = directory.path().join("data");
        let made = command("mariadb-install-db")
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
            .arg(format!("--datadir={}", data.display()))
            // A server that starts removes the temporary tables that it finds, another one's too.
            .arg(format!("--tmpdir={}", directory.path().display()))
            .arg(format!("--user={}", user_name()))
            .status()
            .expect("mariadb-install-db is missing; scripts/tools mariadbd installs it");
        assert!(made.success(), "mariadb-install-db failed");
        let port = free_port();
        let guard = run(&directory, port, &options, removed);
        let server = Self { port, directory, guard, options };
        server.wait();
        server
    }

    fn wait(&self) {
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(30), "mariadbd does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(&mut self) {
        let pid = std::fs::read_to_string(self.directory.path().join("pid")).unwrap();
        command("kill").args(["-9", pid.trim()]).status().unwrap();
        self.guard.wait().unwrap();
    }

    /// Starts it again on the same data.
    pub(crate) fn restart(&mut self) {
        self.guard = run(&self.directory, self.port, &self.options, false);
        self.wait();
    }

    /// A connection as an administrator.
    pub(crate) async fn admin(&self, database: Option<&str>) -> Conn {
        let opts = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port)
            .user(Some("root"))
            .prefer_socket(false)
            .db_name(database);
        Conn::new(opts).await.unwrap()
    }

    /// A new database, and how to log in there.
    pub(crate) async fn database(&self) -> MysqlServer {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let database = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut admin = self.admin(None).await;
        admin
            .query_drop(format!(
                "CREATE DATABASE {database} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
            ))
            .await
            .unwrap();
        admin.disconnect().await.unwrap();
        MysqlServer {
            host: "127.0.0.1".into(),
            port: self.port,
            user: "root".into(),
            password: String::new(),
            database,
            tls: MysqlTls::Off,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

fn user_name() -> String {
    let id = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(id.stdout).unwrap().trim().to_owned()
}

fn run(directory: &TempDir, port: u16, options: &str, removed: bool) -> Child {
    let at = directory.path().display();
    let server = format!(
        "exec mariadbd --no-defaults --user={} --datadir={at}/data --tmpdir={at} \
         --bind-address=127.0.0.1 --port={port} --socket={at}/socket --pid-file={at}/pid --skip-name-resolve \
         --max-connections=1000 --innodb-buffer-pool-size=256M --innodb-log-file-size=256M \
         --lc-messages=en_US {options} 2>{at}/log",
        user_name()
    );
    // A moment later, so that it writes nothing any more.
    let remove = if removed { format!("sleep 0.2; rm -rf {at}") } else { "true".into() };
    // The read ends when we do, however we do.
    let script = format!(
        "exec 3<&0; ({server}) </dev/null & server=$!; \
         (read -r _ <&3; kill -9 $server; kill -9 $(cat {at}/pid); {remove}) 2>/dev/null & wait $server"
    );
    command("bash").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap()
}

/// The server that the tests share.
pub(crate) fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start_for_all)
}

/// Options as the service has them, but with patience: the machine may be busy.
pub(crate) fn options(server: &MysqlServer) -> MysqlOptions {
    MysqlOptions {
        batch_max: 256,
        queue_max: 10_000,
        primary: server.clone(),
        replica: None,
        pool_size: 16,
        acquire: Duration::from_secs(10),
        migrate: false,
        exclusive: false,
        publishing: Duration::ZERO,
        observe: std::sync::Arc::new(|_| {}),
    }
}

/// Opens a store, or says why not.
pub(crate) async fn try_open(options: MysqlOptions) -> Result<Store, Fault> {
    Ok(Store::Mysql(MysqlStore::open(options).await?.0))
}

/// Opens a store on a database.
pub(crate) async fn open(server: &MysqlServer) -> Store {
    try_open(options(server)).await.unwrap()
}

/// An empty store.
pub(crate) async fn fresh() -> (Store, MysqlServer) {
    let server = shared().database().await;
    (open(&server).await, server)
}

/// Closes a store, to open it anew.
pub(crate) async fn reopen(store: Store, server: &MysqlServer) -> Store {
    store.close().await;
    drop(store);
    open(server).await
}

/// The one number that a statement gives.
pub(crate) async fn number(conn: &mut Conn, sql: &str) -> i64 {
    conn.query_first(sql).await.unwrap().unwrap()
}
