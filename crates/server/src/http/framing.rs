//! Where the requests in the bytes of a connection begin and end, and that they say so without doubt.
//!
//! hyper reads what it can: line feeds alone, `gzip, chunked`, a length beside `chunked`, a head without
//! `Host`. Whoever stands before the service may read the same bytes otherwise, and then one client
//! writes the beginning of another's request. So every head is looked at before hyper gets it, and what
//! can be read in two ways is refused. It costs a search for line feeds and a look at first letters.
//!
//! What does not belong here: everything that hyper refuses by itself.

use std::mem;

use memchr::memchr;

/// Longest line that is looked at. Before it comes to that, hyper refuses a head, a chunk's extensions
/// and trailers.
const LINE_MAX: usize = 32 * 1024;

/// Unfinished lines up to this keep their memory for the next one.
const LINE_KEPT: usize = 1_024;

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    BareLineFeed,
    LineTooLong,
    NoHost,
    SecondHost,
    TransferEncoding,
    ContentLength,
    LengthOfChunks,
}

impl Flaw {
    /// What the client is told.
    pub(super) const fn detail(self) -> &'static str {
        match self {
            Self::BareLineFeed => "a line ends with a line feed alone; lines end with CR and LF",
            Self::LineTooLong => "a line is too long",
            Self::NoHost => "the request has no Host header",
            Self::SecondHost => "the request has two Host headers",
            Self::TransferEncoding => "the only Transfer-Encoding is chunked, once, with HTTP/1.1",
            Self::ContentLength => "the Content-Length is no number, or comes twice",
            Self::LengthOfChunks => "the request has both a Transfer-Encoding and a Content-Length",
        }
    }
}

/// Follows the requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
    /// The line that has begun, as far as it came in earlier pieces.
    line: Vec<u8>,
    head: Head,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Lines of a head, or nothing yet.
    #[default]
    Head,
    /// So many bytes of a body.
    Body(u64),
    /// The line with the size of a chunk.
    ChunkSize,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The end of the line after a chunk.
    ChunkEnd,
    /// Lines after the last chunk.
    Trailers,
    /// Nothing that could be followed. hyper refuses it, and the connection ends.
    Lost,
}

/// What is known of the head that is being read.
#[derive(Debug, Default)]
struct Head {
    begun: bool,
    is_http_1_1: bool,
    has_host: bool,
    is_chunked: bool,
    length: Option<u64>,
}

impl Framing {
    /// Looks at the next bytes of the connection.
    ///
    /// # Errors
    /// What is wrong, and at which of the bytes that is certain.
    pub(super) fn look_at(&mut self, bytes: &[u8]) -> Result<(), (usize, Flaw)> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match &mut self.state {
                State::Body(left) | State::Chunk(left) => {
                    let skipped = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= skipped as u64;
                    at += skipped;
                    match self.state {
                        State::Body(0) => self.state = State::Head,
                        State::Chunk(0) => self.state = State::ChunkEnd,
                        _ => {}
                    }
                }
                State::Lost => return Ok(()),
                State::Head | State::ChunkSize | State::ChunkEnd | State::Trailers => {
                    let Some(end) = memchr(b'\n', rest) else {
                        if self.line.len() + rest.len() > LINE_MAX {
                            return Err((at, Flaw::LineTooLong));
                        }
                        self.line.extend_from_slice(rest);
                        return Ok(());
                    };
                    let taken = if self.line.is_empty() {
                        self.take_line(&rest[..end])
                    } else {
                        let mut line = mem::take(&mut self.line);
                        line.extend_from_slice(&rest[..end]);
                        let taken = self.take_line(&line);
                        if line.capacity() <= LINE_KEPT {
                            line.clear();
                            self.line = line;
                        }
                        taken
                    };
                    at += end;
                    taken.map_err(|flaw| (at, flaw))?;
                    at += 1;
                }
            }
        }
        Ok(())
    }

    /// Takes a line without its line feed.
    fn take_line(&mut self, line: &[u8]) -> Result<(), Flaw> {
        let Some((b'\r', line)) = line.split_last() else { return Err(Flaw::BareLineFeed) };
        self.state = match self.state {
            State::Head if !line.is_empty() => return self.head.take_line(line, &mut self.state),
            // Lines without anything may come before a request.
            State::Head if !self.head.begun => State::Head,
            State::Head => mem::take(&mut self.head).end()?,
            State::ChunkSize => match chunk_size(line) {
                Some(0) => State::Trailers,
                Some(size) => State::Chunk(size),
                None => State::Lost,
            },
            State::ChunkEnd if line.is_empty() => State::ChunkSize,
            State::Trailers if line.is_empty() => State::Head,
            State::Trailers => State::Trailers,
            State::ChunkEnd | State::Body(_) | State::Chunk(_) | State::Lost => State::Lost,
        };
        Ok(())
    }
}

impl Head {
    fn take_line(&mut self, line: &[u8], state: &mut State) -> Result<(), Flaw> {
        if !self.begun {
            self.begun = true;
            self.is_http_1_1 = line.ends_with(b" HTTP/1.1");
            if !self.is_http_1_1 && !line.ends_with(b" HTTP/1.0") {
                *state = State::Lost;
            }
            return Ok(());
        }
        match line[0] {
            b'h' | b'H' => {
                let is_host = value(line, "host").is_some();
                if is_host && mem::replace(&mut self.has_host, true) {
                    return Err(Flaw::SecondHost);
                }
            }
            b'c' | b'C' => {
                if let Some(length) = value(line, "content-length") {
                    let length = number(length, 10).ok_or(Flaw::ContentLength)?;
                    if self.length.replace(length).is_some() {
                        return Err(Flaw::ContentLength);
                    }
                }
            }
            b't' | b'T' => {
                if let Some(coding) = value(line, "transfer-encoding") {
                    // Names of codings are not case-sensitive.
                    let is_right = self.is_http_1_1 && coding.eq_ignore_ascii_case(b"chunked");
                    if !is_right || mem::replace(&mut self.is_chunked, true) {
                        return Err(Flaw::TransferEncoding);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What follows the head.
    fn end(self) -> Result<State, Flaw> {
        if self.is_http_1_1 && !self.has_host {
            return Err(Flaw::NoHost);
        }
        match (self.is_chunked, self.length) {
            (true, Some(_)) => Err(Flaw::LengthOfChunks),
            (true, None) => Ok(State::ChunkSize),
            (false, None | Some(0)) => Ok(State::Head),
            (false, Some(length)) => Ok(State::Body(length)),
        }
    }
}

/// The value of a header line, where it has this name.
fn value<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (found, value) = line.split_at_checked(name.len())?;
    let value = value.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name.as_bytes()).then(|| trimmed(value))
}

/// Without the spaces and tabs around it.
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A number without a sign.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    if text.starts_with('+') { None } else { u64::from_str_radix(text, radix).ok() }
}

/// The size in a line before a chunk; extensions may follow it.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|byte| *byte == b';').next()?;
    number(trimmed(size), 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    /// What is found where the bytes come in pieces of this size.
    fn in_pieces(text: &str, size: usize) -> Result<State, (usize, Flaw)> {
        let mut framing = Framing::default();
        for (count, piece) in text.as_bytes().chunks(size).enumerate() {
            framing.look_at(piece).map_err(|(at, flaw)| (count * size + at, flaw))?;
        }
        Ok(framing.state)
    }

    /// The same, whatever the pieces.
    fn found(text: &str) -> Result<State, (usize, Flaw)> {
        let whole = in_pieces(text, text.len().max(1));
        for size in [1, 2, 3, 5, 7, 16] {
            assert_eq!(in_pieces(text, size), whole, "{text:?} in pieces of {size}");
        }
        whole
    }

    #[test]
    fn requests_are_followed_one_after_another() {
        let post = |more: &str| format!("POST / HTTP/1.1\r\nHost: x\r\n{more}");
        let chunked = post("transfer-encoding: Chunked\r\n\r\n");
        for (text, state) in [
            (String::new(), State::Head),
            (GET.repeat(3), State::Head),
            (format!("\r\n\r\n{GET}"), State::Head),
            ("GET / HTTP/1.0\r\n\r\n".into(), State::Head),
            // Line feeds in bodies are nobody's concern.
            (post("Content-Length: 4\r\n\r\na\n\n\n") + GET, State::Head),
            (post("content-length:\t10 \r\n\r\n\n"), State::Body(9)),
            (post("Content-Length: 0\r\n\r\n") + GET, State::Head),
            (
                chunked.clone() + "3\r\n\n\n\n\r\nA;x=y\r\n\n234567890\r\n0\r\n\r\n" + GET,
                State::Head,
            ),
            (chunked.clone() + "0\r\nX: y\r\n\r\n" + GET, State::Head),
            (chunked.clone() + "5\r\nab", State::Chunk(3)),
            (chunked.clone() + "5\r\nabcde", State::ChunkEnd),
            // What hyper refuses is left to it.
            (chunked.clone() + "x\r\n", State::Lost),
            (chunked.clone() + "+5\r\n", State::Lost),
            (chunked + "1\r\nab\r\n", State::Lost),
            ("PRI * HTTP/2.0\r\n\r\n".into(), State::Lost),
            ("garbage\r\n\r\n".into(), State::Lost),
            // Names that only begin alike.
            (post("Hosts: a\r\nContent-Lengths: x\r\nTransfer-Encodings: x\r\n\r\n"), State::Head),
        ] {
            assert_eq!(found(&text), Ok(state), "{text:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_found() {
        use Flaw::{
            BareLineFeed, ContentLength, LengthOfChunks, NoHost, SecondHost, TransferEncoding,
        };
        let head = |lines: &str| format!("POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
        for (text, flaw) in [
            ("GET / HTTP/1.1\r\n\r\n".into(), NoHost),
            ("GET / HTTP/1.1\r\nX-Host: x\r\n\r\n".into(), NoHost),
            (head("HOST: x\r\n"), SecondHost),
            ("GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n".into(), SecondHost),
            ("GET / HTTP/1.1\nHost: x\r\n\r\n".into(), BareLineFeed),
            ("GET / HTTP/1.1\r\nHost: x\n\r\n".into(), BareLineFeed),
            ("GET / HTTP/1.1\r\nHost: x\r\n\n".into(), BareLineFeed),
            (format!("\n{GET}"), BareLineFeed),
            (format!("{GET}GET / HTTP/1.1\nHost: x\r\n\r\n"), BareLineFeed),
            (head("Transfer-Encoding: gzip, chunked\r\n"), TransferEncoding),
            (head("Transfer-Encoding: identity\r\n"), TransferEncoding),
            (head("Transfer-Encoding:\r\n"), TransferEncoding),
            (head("Transfer-Encoding: chunked, chunked\r\n"), TransferEncoding),
            (
                head("Transfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
                TransferEncoding,
            ),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), TransferEncoding),
            (head("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n"), LengthOfChunks),
            (head("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), LengthOfChunks),
            (head("Content-Length: 1\r\nContent-Length: 1\r\n"), ContentLength),
            (head("Content-Length: 1, 1\r\n"), ContentLength),
            (head("Content-Length: +1\r\n"), ContentLength),
            (head("Content-Length:\r\n"), ContentLength),
            (head("Content-Length: 18446744073709551616\r\n"), ContentLength),
            (head("Transfer-Encoding: chunked\r\n") + "1\na", BareLineFeed),
        ] {
            assert_eq!(found(&text).map_err(|(_, flaw)| flaw), Err(flaw), "{text:?}");
        }
        // It is certain at the byte that ends the line.
        assert_eq!(found("GET / HTTP/1.1\nHost"), Err((14, BareLineFeed)));
        let long = format!("GET /{} ", "x".repeat(LINE_MAX));
        assert_eq!(in_pieces(&long, 4_096).map_err(|(_, flaw)| flaw), Err(Flaw::LineTooLong));
    }
}
