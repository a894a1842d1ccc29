//! A Redis server, as far as the scripts of the sequencer need one.
//!
//! It knows about twenty commands and runs scripts in an embedded Lua 5.1. It is held against a real
//! server by a differential test.

mod command;
mod data;
mod script;

use std::cell::RefCell;
use std::rc::Rc;

use redis::Value;

pub use self::data::Data;
use self::script::Scripts;
use crate::digest::Digest;

/// A server.
pub struct Server {
    database: Rc<RefCell<Database>>,
    scripts: Scripts,
}

/// What commands work on.
pub struct Database {
    data: Data,
    /// The server's clock, in microseconds since 1970.
    now_us: u64,
    run_id: String,
    replication_id: String,
    out_of_memory: bool,
}

/// An error as the server words it.
pub(crate) fn error(text: &str) -> Value {
    redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).unwrap_or(Value::Nil)
}

impl Server {
    /// A server that has just been started. `identity` makes its run id; no two starts have the same.
    ///
    /// # Errors
    /// Where Lua cannot be set up.
    pub fn new(identity: u64) -> mlua::Result<Self> {
        let database = Rc::new(RefCell::new(Database {
            data: Data::default(),
            now_us: 0,
            run_id: id_of(identity),
            replication_id: id_of(!identity),
            out_of_memory: false,
        }));
        let scripts = Scripts::new(database.clone())?;
        Ok(Self { database, scripts })
    }

    /// Executes a command, given as its words, when the server's clock shows `now_us`.
    pub fn execute(&mut self, words: &[&[u8]], now_us: u64) -> Value {
        {
            let mut database = self.database.borrow_mut();
            database.now_us = now_us;
            database.data.expire(now_us);
        }
        let Some(name) = words.first() else { return error("ERR empty command") };
        match name.to_ascii_uppercase().as_slice() {
            name @ (b"EVAL" | b"EVALSHA") => {
                if self.database.borrow().out_of_memory {
                    return error("OOM command not allowed when used memory > 'maxmemory'.");
                }
                self.scripts.evaluate(name == b"EVALSHA", &words[1..])
            }
            b"SCRIPT" => self.scripts.manage(&words[1..]),
            _ => self.database.borrow_mut().execute(words),
        }
    }

    /// A copy of the data, as a replica or a file on the disk has it.
    pub fn snapshot(&self) -> Data {
        self.database.borrow().data.clone()
    }

    /// How many keys there are.
    pub fn keys(&self) -> u64 {
        self.database.borrow().data.len() as u64
    }

    /// Starts the server anew, with this data and another run id, and a new term as a master.
    ///
    /// # Errors
    /// Where Lua cannot be set up.
    pub fn restart(&mut self, identity: u64, data: Data) -> mlua::Result<()> {
        {
            let mut database = self.database.borrow_mut();
            database.data = data;
            database.run_id = id_of(identity);
            database.replication_id = id_of(!identity);
        }
        self.scripts = Scripts::new(self.database.clone())?;
        Ok(())
    }

    /// Whether there is no memory left for what scripts write.
    pub fn set_out_of_memory(&self, out: bool) {
        self.database.borrow_mut().out_of_memory = out;
    }

    /// Takes all keys and values into a digest.
    pub fn digest(&self, digest: &mut Digest) {
        self.database.borrow().data.digest(digest);
    }
}

fn id_of(identity: u64) -> String {
    let words = [1, 2, 3].map(|part| crate::random::mix(identity.wrapping_add(part)));
    let text = format!("{:016x}{:016x}{:016x}", words[0], words[1], words[2]);
    text[..40].to_owned()
}
