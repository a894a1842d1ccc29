//! A TCP proxy that fails on request: it stands between the service and one of its servers.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

const CHUNK: usize = 65_536;

/// What the proxy does with what comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It goes on.
    #[default]
    Pass,
    /// What the server answers comes so much later.
    Slow(Duration),
    /// It is kept and goes on later, in order, as where packets are sent again.
    Stall,
    /// It is swallowed, both ways; connections stay and new ones are accepted. What was open meanwhile stays dead
    /// afterwards, and the server never hears that its client has gone, as behind a firewall that forgot the
    /// connection.
    BlackHole,
    /// Connections are closed, new ones too.
    Cut,
    /// A commit of MySQL's protocol is not passed on; its connection is closed.
    LoseCommit,
    /// A commit is passed on, and the connection closed before the answer.
    LoseAnswerToCommit,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    mode: Mode,
    /// How often connections have been forgotten, and cut.
    forgotten: u64,
    cut: u64,
    over: bool,
}

/// A running proxy, on a thread of its own.
#[derive(Debug)]
pub struct FaultProxy {
    /// Where it listens.
    pub port: u16,
    state: watch::Sender<State>,
    thread: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Starts a proxy before a port of 127.0.0.1.
    pub fn start(target: u16) -> Result<Self, String> {
        let failed = |error: io::Error| format!("the proxy that fails does not start: {error}");
        let port = crate::ports::free_port()?;
        let listener = TcpListener::bind(("127.0.0.1", port)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (state, watching) = watch::channel(State::default());
        let thread = std::thread::Builder::new().name("fault proxy".to_owned());
        let thread = thread.spawn(move || {
            // With the runtime go all connections.
            runtime.block_on(serve(listener, target, watching));
        });
        Ok(Self { port, state, thread: Some(thread.map_err(failed)?) })
    }

    /// Changes what it does from now on.
    pub fn set(&self, mode: Mode) {
        self.state.send_modify(|state| {
            state.mode = mode;
            state.forgotten += u64::from(mode == Mode::BlackHole);
            state.cut += u64::from(mode == Mode::Cut);
        });
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.state.send_modify(|state| state.over = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, target: u16, mut state: watch::Receiver<State>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let pairs = state.clone();
    let accept = async {
        loop {
            if let Ok((client, _)) = listener.accept().await {
                tokio::spawn(Pair::run(client, target, pairs.clone()));
            }
        }
    };
    tokio::select! {
        () = accept => {}
        _ = state.wait_for(|state| state.over) => {}
    }
}

/// Why a pair of connections ends.
struct Closed;

impl From<io::Error> for Closed {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// One connection and its other half.
struct Pair {
    state: watch::Receiver<State>,
    born: State,
}

impl Pair {
    async fn run(client: TcpStream, target: u16, state: watch::Receiver<State>) {
        let born = *state.borrow();
        if born.mode == Mode::Cut {
            return;
        }
        let pair = Self { state: state.clone(), born };
        let mut cutting = state;
        tokio::select! {
            _ = pair.carry_both(client, target) => {}
            _ = cutting.wait_for(|now| now.cut > born.cut) => {}
        }
    }

    fn is_dead(&self) -> bool {
        self.born.mode == Mode::BlackHole || self.state.borrow().forgotten > self.born.forgotten
    }

    async fn until_it_moves(&self) -> Result<(), Closed> {
        let mut state = self.state.clone();
        state.wait_for(|now| now.mode != Mode::Stall).await.map(drop).map_err(|_| Closed)
    }

    async fn carry_both(&self, client: TcpStream, target: u16) -> Result<(), Closed> {
        let _ = client.set_nodelay(true);
        let (mut from_client, to_client) = client.into_split();
        if self.is_dead() {
            // Until the client gives up: nobody answers, and nobody hangs up.
            let mut chunk = vec![0; CHUNK];
            while from_client.read(&mut chunk).await? > 0 {}
            return Ok(());
        }
        self.until_it_moves().await?;
        let server = TcpStream::connect(("127.0.0.1", target)).await?;
        let _ = server.set_nodelay(true);
        let (from_server, to_server) = server.into_split();
        let asked = self.carry(from_client, to_server, false);
        let answered = self.carry(from_server, to_client, true);
        tokio::try_join!(asked, answered).map(drop)
    }

    async fn carry(
        &self,
        from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        is_answer: bool,
    ) -> Result<(), Closed> {
        let (feed, mut arrived) = mpsc::unbounded_channel();
        let feeding = async {
            read_on(from, feed).await;
            std::future::pending::<Infallible>().await
        };
        let writing = async {
            while let Some((at, chunk)) = arrived.recv().await {
                self.until_it_moves().await?;
                let mode = self.state.borrow().mode;
                if let (true, Mode::Slow(delay)) = (is_answer, mode) {
                    sleep_until(at + delay).await;
                }
                if self.is_dead() {
                    continue;
                }
                if chunk.is_empty() {
                    to.shutdown().await?;
                    return Ok(());
                }
                self.pass(&chunk, &mut to, is_answer).await?;
            }
            if self.is_dead() {
                // The client has given up; only the server is not to hear of it.
                std::future::pending::<Infallible>().await;
            }
            Err(Closed)
        };
        tokio::select! {
            written = writing => written,
            _ = feeding => Err(Closed),
        }
    }

    async fn pass(
        &self,
        chunk: &[u8],
        to: &mut OwnedWriteHalf,
        is_answer: bool,
    ) -> Result<(), Closed> {
        // By itself, or behind what it makes durable.
        let commit = !is_answer && (chunk.ends_with(b"\x03COMMIT") || chunk.ends_with(b";COMMIT"));
        let mode = self.state.borrow().mode;
        if commit && mode == Mode::LoseCommit {
            return Err(Closed);
        }
        to.write_all(chunk).await?;
        if commit && mode == Mode::LoseAnswerToCommit {
            return Err(Closed);
        }
        Ok(())
    }
}

/// Reads to the end; an empty chunk says that it has come.
async fn read_on(mut from: OwnedReadHalf, feed: mpsc::UnboundedSender<(Instant, Vec<u8>)>) {
    loop {
        let mut chunk = vec![0; CHUNK];
        let count = from.read(&mut chunk).await.unwrap_or(0);
        chunk.truncate(count);
        if feed.send((Instant::now(), chunk)).is_err() || count == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// A server that answers each byte with the same byte, and says when a client has gone.
    fn echo() -> (u16, std::sync::mpsc::Receiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (gone, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, gone) = (stream.unwrap(), gone.clone());
                std::thread::spawn(move || {
                    let mut chunk = [0; 64];
                    while let Ok(count @ 1..) = stream.read(&mut chunk) {
                        if stream.write_all(&chunk[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = gone.send(());
                });
            }
        });
        (port, ended)
    }

    fn connect(proxy: &FaultProxy) -> std::net::TcpStream {
        let stream = std::net::TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        stream
    }

    /// What comes back: the text, nothing for now, or the end.
    fn ask(stream: &mut std::net::TcpStream, text: &[u8]) -> Option<Vec<u8>> {
        if stream.write_all(text).is_err() {
            return Some(Vec::new());
        }
        hear(stream)
    }

    fn hear(stream: &mut std::net::TcpStream) -> Option<Vec<u8>> {
        let mut chunk = [0; 64];
        match stream.read(&mut chunk) {
            Ok(count) => Some(chunk[..count].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(_) => Some(Vec::new()),
        }
    }

    #[test]
    fn it_passes_waits_and_delays() {
        let (server, _) = echo();
        let proxy = FaultProxy::start(server).unwrap();
        let mut open = connect(&proxy);
        assert_eq!(ask(&mut open, b"a").unwrap(), b"a");
        proxy.set(Mode::Stall);
        let mut new = connect(&proxy);
        assert_eq!((ask(&mut open, b"b"), ask(&mut new, b"c")), (None, None));
        proxy.set(Mode::Pass);
        assert_eq!((hear(&mut open).unwrap(), hear(&mut new).unwrap()), (b"b".into(), b"c".into()));
        proxy.set(Mode::Slow(Duration::from_millis(150)));
        let began = Instant::now();
        assert_eq!(ask(&mut open, b"d").unwrap(), b"d");
        assert!(began.elapsed() >= Duration::from_millis(150), "{:?}", began.elapsed());
    }

    #[test]
    fn a_black_hole_keeps_what_it_swallowed_and_tells_the_server_nothing() {
        let (server, gone) = echo();
        let proxy = FaultProxy::start(server).unwrap();
        let mut open = connect(&proxy);
        assert_eq!(ask(&mut open, b"a").unwrap(), b"a");
        proxy.set(Mode::BlackHole);
        let mut new = connect(&proxy);
        assert_eq!((ask(&mut open, b"b"), ask(&mut new, b"c")), (None, None));
        proxy.set(Mode::Pass);
        // They stay dead; another one lives.
        assert_eq!((ask(&mut open, b"d"), ask(&mut new, b"e")), (None, None));
        assert_eq!(ask(&mut connect(&proxy), b"f").unwrap(), b"f");
        gone.recv_timeout(Duration::from_secs(5)).unwrap();
        drop(open);
        assert!(gone.recv_timeout(Duration::from_millis(300)).is_err());
        drop(proxy);
        gone.recv_timeout(Duration::from_secs(5)).unwrap();
    }

    #[test]
    fn connections_are_cut_and_commits_lost() {
        let (server, _) = echo();
        let proxy = FaultProxy::start(server).unwrap();
        let mut open = connect(&proxy);
        assert_eq!(ask(&mut open, b"a").unwrap(), b"a");
        proxy.set(Mode::Cut);
        assert_eq!(hear(&mut open).unwrap(), b"");
        assert_eq!(ask(&mut connect(&proxy), b"b").unwrap(), b"");
        for mode in [Mode::LoseCommit, Mode::LoseAnswerToCommit] {
            proxy.set(mode);
            let mut open = connect(&proxy);
            assert_eq!(ask(&mut open, b"INSERT").unwrap(), b"INSERT");
            assert_eq!(ask(&mut open, b"\x03COMMIT").unwrap(), b"", "{mode:?}");
        }
    }
}
