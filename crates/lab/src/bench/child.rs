//! A program that says something while it runs, and is not asked how it does: who measures sleeps meanwhile.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rustix::process::Signal;
use testbed::{Process, signals};

/// Where something was said.
#[derive(Clone, Copy, Debug)]
enum Stream {
    Out,
    Error,
}

/// What came of listening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Something,
    Nothing,
    /// It has closed both streams: it has ended, or is about to.
    End,
}

/// A running program.
#[derive(Debug)]
pub(super) struct Child {
    process: Process,
    pieces: Receiver<(Stream, Vec<u8>)>,
    pub(super) out: Vec<u8>,
    pub(super) err: Vec<u8>,
}

impl Child {
    /// Starts it. What it complains about goes to `errors`, and is heard where that is a pipe.
    pub(super) fn start(name: &str, mut command: Command, errors: Stdio) -> Result<Self, String> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut process = Process::spawn(name, command)?;
        let (to, pieces) = channel();
        let pipes = process.child();
        listen(pipes.stdout.take(), Stream::Out, to.clone());
        listen(pipes.stderr.take(), Stream::Error, to);
        Ok(Self { process, pieces, out: Vec::new(), err: Vec::new() })
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(super) fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Asks it to come to an end (SIGINT).
    pub(super) fn interrupt(&self) {
        self.process.signal(Signal::INT);
    }

    /// Waits for what it says next.
    pub(super) fn hear(&mut self, patience: Duration) -> Heard {
        match self.pieces.recv_timeout(patience) {
            Ok((Stream::Out, piece)) => self.out.extend(piece),
            Ok((Stream::Error, piece)) => self.err.extend(piece),
            Err(RecvTimeoutError::Timeout) => return Heard::Nothing,
            Err(RecvTimeoutError::Disconnected) => return Heard::End,
        }
        Heard::Something
    }

    /// Waits for its end. Returns its exit code.
    pub(super) fn finish(&mut self) -> Result<i32, String> {
        while self.hear(Duration::from_millis(250)) != Heard::End {
            if signals::stopped() {
                return Err("stopped by hand".to_owned());
            }
        }
        let ended = self.process.wait(Duration::from_secs(10));
        ended.map(|ended| ended.code).ok_or_else(|| format!("{} does not end", self.process.name))
    }

    /// What it has said to its standard output.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// What it has complained about.
    pub(super) fn complaints(&self) -> String {
        String::from_utf8_lossy(&self.err).into_owned()
    }
}

fn listen(from: Option<impl Read + Send + 'static>, stream: Stream, to: Sender<(Stream, Vec<u8>)>) {
    let Some(mut from) = from else { return };
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            if to.send((stream, chunk[..count].to_vec())).is_err() {
                return;
            }
        }
    });
}
