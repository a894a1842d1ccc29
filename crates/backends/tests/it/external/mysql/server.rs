//! A private MariaDB for the tests of this process, with a database for each.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use boxoffice_backends::Fault;
use boxoffice_backends::store::{MysqlOptions, MysqlServer, MysqlStore, MysqlTls, Store};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use testbed::{MariaDb, Workdir};

/// A running server.
pub(crate) struct Server {
    pub(crate) port: u16,
    server: MariaDb,
    _directory: Workdir,
}

impl Server {
    /// Starts a server with an empty data directory.
    pub(crate) fn start() -> Self {
        Self::start_in(Workdir::temporary().unwrap(), &[])
    }

    /// Starts a server with a certificate for 127.0.0.1; returns the authority that has signed it.
    pub(crate) fn start_with_tls() -> (Self, PathBuf) {
        let directory = Workdir::temporary().unwrap();
        let at = directory.path();
        certificates(at);
        let options = [
            format!("--ssl-cert={}/server.pem", at.display()),
            format!("--ssl-key={}/server.key", at.display()),
        ];
        let authority = at.join("ca.pem");
        (Self::start_in(directory, &options), authority)
    }

    fn start_in(directory: Workdir, further: &[String]) -> Self {
        let usual = [
            "--max-connections=1000",
            "--innodb-buffer-pool-size=256M",
            "--innodb-log-file-size=256M",
        ];
        let mut options = usual.map(str::to_owned).to_vec();
        options.extend_from_slice(further);
        let server = MariaDb::start(&directory.path().join("mariadb"), &[], &options).unwrap();
        Self { port: server.port, server, _directory: directory }
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.server.engine.kill();
    }

    /// Starts it again on the same data.
    pub(crate) fn restart(&mut self) {
        self.server.engine.restart().unwrap();
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

fn certificates(directory: &Path) {
    let script = "set -e; exec 2>openssl.log; \
         openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority \
         -keyout ca.key -out ca.pem; \
         openssl req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr; \
         printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' >extensions; \
         openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
         -extfile extensions -out server.pem";
    let mut command = Command::new("bash");
    let made = command.args(["-c", script]).current_dir(directory).status().unwrap();
    assert!(made.success(), "openssl failed; is it installed?");
}

/// The server that the tests share. Nobody drops it; it ends with the process, and its directory goes then.
pub(crate) fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
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
