//! The commands.

use redis::Value;

use super::data::{Fields, Kept, LogEntry, Stream};
use super::{Database, error};

const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
const NO_NUMBER: &str = "ERR value is not an integer or out of range";
/// A real server forgets entries of a log by whole nodes, where it may do so about.
const STREAM_NODE: usize = 100;

type Answer = Result<Value, Value>;

fn refuse<T>(text: &str) -> Result<T, Value> {
    Err(error(text))
}

fn number(word: &[u8]) -> Result<i64, Value> {
    let text = std::str::from_utf8(word).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| error(NO_NUMBER))
}

fn text(bytes: &[u8]) -> Value {
    Value::BulkString(bytes.to_vec())
}

fn count(count: usize) -> Value {
    Value::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

impl Database {
    pub(super) fn execute(&mut self, words: &[&[u8]]) -> Value {
        let name = words[0].to_ascii_uppercase();
        let rest = &words[1..];
        self.run(&name, rest).unwrap_or_else(|error| error)
    }

    fn run(&mut self, name: &[u8], rest: &[&[u8]]) -> Answer {
        match (name, rest) {
            (b"GET", [key]) => match self.data.get(key) {
                None => Ok(Value::Nil),
                Some(Kept::Text(value)) => Ok(text(value)),
                Some(_) => refuse(WRONG_TYPE),
            },
            (b"SET", [key, value, options @ ..]) => self.set(key, value, options),
            (b"DEL", keys) => Ok(count(keys.iter().filter(|key| self.data.remove(key)).count())),
            (b"EXISTS", keys) => {
                Ok(count(keys.iter().filter(|key| self.data.get(key).is_some()).count()))
            }
            (b"INCR", [key]) => self.add(key, 1),
            (b"INCRBY", [key, by]) => self.add(key, number(by)?),
            (b"EXPIRE", [key, seconds]) => {
                let ms = number(seconds)?.saturating_mul(1_000);
                Ok(self.expire_in(key, ms))
            }
            (b"PEXPIRE", [key, ms]) => {
                let ms = number(ms)?;
                Ok(self.expire_in(key, ms))
            }
            (b"PTTL", [key]) => Ok(Value::Int(match self.data.expiry(key) {
                None => -2,
                Some(None) => -1,
                Some(Some(at)) => (at.saturating_sub(self.now_us) / 1_000) as i64,
            })),
            (b"HGET", [key, field]) => {
                let fields = self.hash(key)?;
                Ok(find(fields, field).map_or(Value::Nil, text))
            }
            (b"HMGET", [key, wanted @ ..]) => {
                let fields = self.hash(key)?;
                let found = wanted.iter().map(|field| find(fields, field).map_or(Value::Nil, text));
                Ok(Value::Array(found.collect()))
            }
            (b"HGETALL", [key]) => {
                let fields = self.hash(key)?;
                Ok(Value::Array(
                    fields.iter().flat_map(|(field, value)| [text(field), text(value)]).collect(),
                ))
            }
            (b"HVALS", [key]) => {
                let fields = self.hash(key)?;
                Ok(Value::Array(fields.iter().map(|(_, value)| text(value)).collect()))
            }
            (b"HKEYS", [key]) => {
                let fields = self.hash(key)?;
                Ok(Value::Array(fields.iter().map(|(field, _)| text(field)).collect()))
            }
            (b"HLEN", [key]) => Ok(count(self.hash(key)?.len())),
            (b"HEXISTS", [key, field]) => {
                Ok(Value::Int(find(self.hash(key)?, field).is_some().into()))
            }
            (b"HSET", [key, pairs @ ..]) if !pairs.is_empty() && pairs.len() % 2 == 0 => {
                let fields = self.hash_mut(key)?;
                let mut added = 0;
                for pair in pairs.chunks(2) {
                    added += usize::from(put(fields, pair[0], pair[1]));
                }
                Ok(count(added))
            }
            (b"HINCRBY", [key, field, by]) => {
                let by = number(by)?;
                let fields = self.hash_mut(key)?;
                let before = match find(fields, field) {
                    Some(value) => {
                        number(value).map_err(|_| error("ERR hash value is not an integer"))?
                    }
                    None => 0,
                };
                let after = before + by;
                put(fields, field, after.to_string().as_bytes());
                Ok(Value::Int(after))
            }
            (b"HDEL", [key, gone @ ..]) => {
                self.hash(key)?;
                let Some(Kept::Hash(fields)) = self.data.get_mut(key) else {
                    return Ok(Value::Int(0));
                };
                let before = fields.len();
                fields.retain(|(field, _)| !gone.contains(&field.as_slice()));
                let removed = before - fields.len();
                if fields.is_empty() {
                    self.data.remove(key);
                }
                Ok(count(removed))
            }
            (b"XADD", [key, rest @ ..]) => self.add_entry(key, rest),
            (b"XLEN", [key]) => match self.data.get(key) {
                None => Ok(Value::Int(0)),
                Some(Kept::Stream(stream)) => Ok(count(stream.entries.len())),
                Some(_) => refuse(WRONG_TYPE),
            },
            (b"XRANGE", [key, first, last]) => self.range(key, first, last),
            (b"TIME", []) => {
                let (seconds, micros) = (self.now_us / 1_000_000, self.now_us % 1_000_000);
                Ok(Value::Array(vec![
                    text(seconds.to_string().as_bytes()),
                    text(micros.to_string().as_bytes()),
                ]))
            }
            (b"INFO", [section]) => match section.to_ascii_lowercase().as_slice() {
                b"server" => Ok(text(
                    format!("# Server\r\nredis_version:7.0.0\r\nrun_id:{}\r\n", self.run_id)
                        .as_bytes(),
                )),
                b"replication" => Ok(text(
                    format!(
                        "# Replication\r\nrole:master\r\nmaster_replid:{}\r\n",
                        self.replication_id
                    )
                    .as_bytes(),
                )),
                _ => Ok(text(b"")),
            },
            (b"FLUSHALL" | b"FLUSHDB", _) => {
                self.data.clear();
                Ok(Value::Okay)
            }
            (b"PING", []) => Ok(Value::SimpleString("PONG".into())),
            (name, _) => refuse(&format!(
                "ERR unknown command or wrong number of arguments for '{}'",
                String::from_utf8_lossy(name)
            )),
        }
    }

    fn set(&mut self, key: &[u8], value: &[u8], options: &[&[u8]]) -> Answer {
        let (mut only_new, mut only_old, mut expires_us, mut keeps) = (false, false, None, false);
        let mut options = options.iter();
        while let Some(option) = options.next() {
            match option.to_ascii_uppercase().as_slice() {
                b"NX" => only_new = true,
                b"XX" => only_old = true,
                b"KEEPTTL" => keeps = true,
                unit @ (b"PX" | b"EX") => {
                    let time = options.next().ok_or_else(|| error("ERR syntax error"))?;
                    let time = number(time)?;
                    let ms = if unit == b"EX" { time.saturating_mul(1_000) } else { time };
                    if ms <= 0 {
                        return refuse("ERR invalid expire time in 'set' command");
                    }
                    expires_us = Some(self.later(ms));
                }
                _ => return refuse("ERR syntax error"),
            }
        }
        let exists = self.data.get(key).is_some();
        if (only_new && exists) || (only_old && !exists) {
            return Ok(Value::Nil);
        }
        let before = if keeps { self.data.expiry(key).flatten() } else { None };
        self.data.put(key, Kept::Text(value.to_vec()));
        if let Some(at_us) = expires_us.or(before) {
            self.data.set_expiry(key, at_us);
        }
        Ok(Value::Okay)
    }

    fn add(&mut self, key: &[u8], by: i64) -> Answer {
        let kept = self.data.get_or_make(key, || Kept::Text(b"0".to_vec()));
        let Kept::Text(value) = kept else { return refuse(WRONG_TYPE) };
        let after = number(value)? + by;
        *value = after.to_string().into_bytes();
        Ok(Value::Int(after))
    }

    const fn later(&self, ms: i64) -> u64 {
        // A real server counts milliseconds.
        (self.now_us / 1_000).saturating_add_signed(ms) * 1_000
    }

    fn expire_in(&mut self, key: &[u8], ms: i64) -> Value {
        if ms <= 0 {
            return Value::Int(self.data.remove(key).into());
        }
        let at_us = self.later(ms);
        Value::Int(self.data.set_expiry(key, at_us).into())
    }

    fn hash(&self, key: &[u8]) -> Result<&Fields, Value> {
        match self.data.get(key) {
            None => Ok(const { &Vec::new() }),
            Some(Kept::Hash(fields)) => Ok(fields),
            Some(_) => refuse(WRONG_TYPE),
        }
    }

    fn hash_mut(&mut self, key: &[u8]) -> Result<&mut Fields, Value> {
        match self.data.get_or_make(key, || Kept::Hash(Vec::new())) {
            Kept::Hash(fields) => Ok(fields),
            _ => refuse(WRONG_TYPE),
        }
    }

    fn add_entry(&mut self, key: &[u8], rest: &[&[u8]]) -> Answer {
        let (most, id, fields) = match rest {
            [option, b"~", most, id, fields @ ..] if option.eq_ignore_ascii_case(b"MAXLEN") => {
                (Some(number(most)?.unsigned_abs() as usize), id, fields)
            }
            [id, fields @ ..] => (None, id, fields),
            [] => return refuse("ERR wrong number of arguments for 'xadd' command"),
        };
        if fields.is_empty() || fields.len() % 2 == 1 {
            return refuse("ERR wrong number of arguments for 'xadd' command");
        }
        let id = entry_id(id, 0)?;
        let Kept::Stream(stream) = self.data.get_or_make(key, || Kept::Stream(Stream::default()))
        else {
            return refuse(WRONG_TYPE);
        };
        if id <= stream.last {
            return refuse(
                "ERR The ID specified in XADD is equal or smaller than the target stream top item",
            );
        }
        stream.last = id;
        stream.entries.push_back((id, fields.iter().map(|field| field.to_vec()).collect()));
        if let Some(most) = most {
            while stream.entries.len() >= most + STREAM_NODE {
                stream.entries.drain(..STREAM_NODE);
            }
        }
        Ok(text(format!("{}-{}", id.0, id.1).as_bytes()))
    }

    fn range(&self, key: &[u8], first: &[u8], last: &[u8]) -> Answer {
        let stream = match self.data.get(key) {
            None => return Ok(Value::Array(Vec::new())),
            Some(Kept::Stream(stream)) => stream,
            Some(_) => return refuse(WRONG_TYPE),
        };
        let first = if first == b"-" { (0, 0) } else { entry_id(first, 0)? };
        let last = if last == b"+" { (u64::MAX, u64::MAX) } else { entry_id(last, u64::MAX)? };
        let from = stream.entries.partition_point(|(id, _)| *id < first);
        let found = stream.entries.range(from..).take_while(|(id, _)| *id <= last);
        let entry = |(id, fields): &LogEntry| {
            let id = text(format!("{}-{}", id.0, id.1).as_bytes());
            Value::Array(vec![id, Value::Array(fields.iter().map(|field| text(field)).collect())])
        };
        Ok(Value::Array(found.map(entry).collect()))
    }
}

fn entry_id(word: &[u8], lacking: u64) -> Result<(u64, u64), Value> {
    const INVALID: &str = "ERR Invalid stream ID specified as stream command argument";
    let parse = |text: &str| text.parse::<u64>().map_err(|_| error(INVALID));
    let text = std::str::from_utf8(word).map_err(|_| error(INVALID))?;
    match text.split_once('-') {
        Some((first, second)) => Ok((parse(first)?, parse(second)?)),
        None => Ok((parse(text)?, lacking)),
    }
}

fn find<'f>(fields: &'f [(Vec<u8>, Vec<u8>)], wanted: &[u8]) -> Option<&'f [u8]> {
    fields.iter().find(|(field, _)| field == wanted).map(|(_, value)| value.as_slice())
}

/// Returns whether the field is new.
fn put(fields: &mut Fields, field: &[u8], value: &[u8]) -> bool {
    if let Some((_, old)) = fields.iter_mut().find(|(name, _)| name == field) {
        old.clear();
        old.extend_from_slice(value);
        return false;
    }
    fields.push((field.to_vec(), value.to_vec()));
    true
}
