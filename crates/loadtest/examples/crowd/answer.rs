//! As much of HTTP/1.1 and of JSON as answers about a place need.

/// A whole answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
    /// Of head and body.
    pub(crate) length: usize,
    /// Whether the connection ends with it.
    pub(crate) closes: bool,
}

/// Reads the answer that `bytes` begin with; `None` while some of it is still to come.
///
/// # Errors
/// Where it is no answer that says how long it is.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<Answer<'_>>, &'static str> {
    let Some(head) = find(bytes, b"\r\n\r\n") else {
        let limit = 16 * 1024;
        return if bytes.len() < limit { Ok(None) } else { Err("a head without an end") };
    };
    let status = bytes
        .strip_prefix(b"HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(number)
        .ok_or("no status line")?;
    let (mut body, mut closes) = (None, false);
    for line in bytes[..head].split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            body = Some(number(value).ok_or("a Content-Length that is no number")? as usize);
        } else if name.eq_ignore_ascii_case(b"connection") {
            closes = value.eq_ignore_ascii_case(b"close");
        }
    }
    let begin = head + 4;
    let length = begin + body.ok_or("no Content-Length")?;
    let Some(body) = bytes.get(begin..length) else { return Ok(None) };
    Ok(Some(Answer { status: status as u16, body, length, closes }))
}

/// What an answer to a join or a poll says of a place.
#[derive(Debug, PartialEq)]
pub(crate) struct Place<'a> {
    pub(crate) status: &'a [u8],
    pub(crate) number: u64,
    pub(crate) poll_after_ms: u64,
}

pub(crate) fn place(body: &[u8]) -> Option<Place<'_>> {
    let digits = |key: &[u8]| {
        let rest = after(body, key)?;
        let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
        number(&rest[..end])
    };
    Some(Place {
        status: text(body, b"\"status\":\"")?,
        number: digits(b"\"waitingNumber\":")?,
        poll_after_ms: digits(b"\"pollAfterMs\":")?,
    })
}

pub(crate) fn token(body: &[u8]) -> Option<&[u8]> {
    text(body, b"\"token\":\"").filter(|token| !token.is_empty())
}

/// The text that `key` begins; none of those read here has anything in it that JSON escapes.
fn text<'a>(body: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let rest = after(body, key)?;
    Some(&rest[..rest.iter().position(|byte| *byte == b'"')?])
}

fn after<'a>(body: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    Some(&body[find(body, key)? + key.len()..])
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 85\r\n\r\n\
        {\"userId\":7,\"status\":\"WAITING\",\"waitingNumber\":12,\"etaSeconds\":3,\"pollAfterMs\":27272}";

    #[test]
    fn an_answer_is_whole_or_still_to_come() {
        for cut in 0..POLL.len() {
            assert_eq!(read(&POLL[..cut]), Ok(None), "{cut}");
        }
        let longer = [POLL, b"HTTP/1.1 "].concat();
        for bytes in [POLL, &longer] {
            let answer = read(bytes).unwrap().unwrap();
            assert_eq!((answer.status, answer.length, answer.closes), (200, POLL.len(), false));
            let expected = Place { status: b"WAITING", number: 12, poll_after_ms: 27_272 };
            assert_eq!(place(answer.body), Some(expected));
            assert_eq!(token(answer.body), None);
        }
    }

    #[test]
    fn what_is_no_answer_is_told_from_one_that_refuses() {
        let refused =
            b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
        let answer = read(refused).unwrap().unwrap();
        assert_eq!((answer.status, answer.closes), (503, true));
        assert_eq!(place(answer.body), None);
        for wrong in [
            &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            b"SSH-2.0-x\r\n\r\n",
            &[b'x'; 20_000],
        ] {
            assert!(read(wrong).is_err());
        }
    }

    #[test]
    fn a_join_has_a_token() {
        let body =
            br#"{"token":"eyJ.a-_b.c","status":"WAITING","waitingNumber":1,"pollAfterMs":1000}"#;
        assert_eq!(token(body), Some(&b"eyJ.a-_b.c"[..]));
        assert_eq!(token(br#"{"token":""}"#), None);
    }
}
