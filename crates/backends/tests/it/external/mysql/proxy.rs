//! A TCP proxy that can hold back, cut, or lose the answer to a commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What the proxy does with what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    /// Passes it on.
    Pass,
    /// Keeps it, and says nothing: a network that swallows packets.
    Hole,
    /// Swallows it. The connections of that time stay dead, and the server never hears that the client
    /// has gone: a firewall that has forgotten them.
    Gone,
    /// Passes a commit on and cuts the connection before the answer.
    LoseAnswerToCommit,
    /// Cuts the connection instead of passing a commit on.
    LoseCommit,
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    mode: Arc<AtomicU8>,
    /// How often connections have been forgotten.
    forgotten: Arc<AtomicU64>,
    changed: Arc<Notify>,
}

impl Proxy {
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(AtomicU8::new(Mode::Pass as u8));
        let changed = Arc::new(Notify::new());
        let forgotten = Arc::new(AtomicU64::new(0));
        let proxy = Self {
            port,
            mode: mode.clone(),
            forgotten: forgotten.clone(),
            changed: changed.clone(),
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mode, changed) = (mode.clone(), changed.clone());
                let (forgotten, born) = (forgotten.clone(), forgotten.load(Ordering::SeqCst));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else {
                        return;
                    };
                    let gone = || forgotten.load(Ordering::SeqCst) > born;
                    carry(client, server, &mode, &changed, gone).await;
                });
            }
        });
        proxy
    }

    pub(crate) fn set(&self, mode: Mode) {
        if mode == Mode::Gone {
            self.forgotten.fetch_add(1, Ordering::SeqCst);
        }
        self.mode.store(mode as u8, Ordering::SeqCst);
        self.changed.notify_waiters();
    }
}

async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    mode: &AtomicU8,
    changed: &Notify,
    gone: impl Fn() -> bool,
) {
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    let is = |wanted: Mode| mode.load(Ordering::SeqCst) == wanted as u8;
    let mut lost = false;
    loop {
        while is(Mode::Hole) {
            let wait = changed.notified();
            if is(Mode::Hole) {
                wait.await;
            }
        }
        tokio::select! {
            read = client.read(&mut up) => {
                let read = read.unwrap_or(0);
                if gone() || is(Mode::Gone) {
                    let _both = (client, server);
                    return std::future::pending().await;
                }
                let count @ 1.. = read else { return };
                while is(Mode::Hole) {
                    let wait = changed.notified();
                    if is(Mode::Hole) {
                        wait.await;
                    }
                }
                // By itself, or behind what it makes durable.
                let end = &up[..count];
                let commit = end.ends_with(b"\x03COMMIT") || end.ends_with(b";COMMIT");
                if commit && is(Mode::LoseCommit) {
                    return;
                }
                lost = commit && is(Mode::LoseAnswerToCommit);
                if server.write_all(&up[..count]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(count @ 1..) = read else { return };
                if lost || client.write_all(&down[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
