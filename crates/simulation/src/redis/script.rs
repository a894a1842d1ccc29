//! Scripts, in an embedded Lua.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use mlua::{Function, Lua, MultiValue, Table, Value as Word};
use redis::Value;

use super::{Database, error};
use crate::mistakes::misread;

/// The scripts that the server knows, by their digests.
pub(super) struct Scripts {
    lua: Lua,
    known: BTreeMap<Vec<u8>, Function>,
}

impl Scripts {
    pub(super) fn new(database: Rc<RefCell<Database>>) -> mlua::Result<Self> {
        let lua = Lua::new();
        let commands = lua.create_table()?;
        let called = database.clone();
        let calls =
            lua.create_function(move |lua, words: MultiValue| match call(&called, &words)? {
                Value::ServerError(refused) => Err(mlua::Error::runtime(worded(&refused))),
                answer => to_lua(lua, answer),
            })?;
        let tried = database;
        let try_call =
            lua.create_function(move |lua, words: MultiValue| to_lua(lua, call(&tried, &words)?))?;
        commands.set("call", calls)?;
        commands.set("pcall", try_call)?;
        commands.set("error_reply", single(&lua, "err")?)?;
        commands.set("status_reply", single(&lua, "ok")?)?;
        lua.globals().set("redis", commands)?;
        Ok(Self { lua, known: BTreeMap::new() })
    }

    /// `SCRIPT LOAD`, `SCRIPT EXISTS`, `SCRIPT FLUSH`.
    pub(super) fn manage(&mut self, words: &[&[u8]]) -> Value {
        match words {
            [what, text] if what.eq_ignore_ascii_case(b"LOAD") => match self.learn(text) {
                Ok((digest, _)) => Value::BulkString(digest),
                Err(why) => error(&format!("ERR Error compiling script: {}", line(&why))),
            },
            [what, digests @ ..] if what.eq_ignore_ascii_case(b"EXISTS") => {
                let known = |digest: &&[u8]| Value::Int(self.known.contains_key(*digest).into());
                Value::Array(digests.iter().map(known).collect())
            }
            [what, ..] if what.eq_ignore_ascii_case(b"FLUSH") => {
                self.known.clear();
                Value::Okay
            }
            _ => error("ERR unknown subcommand"),
        }
    }

    /// `EVAL` and `EVALSHA`: the script, the number of keys, keys, arguments.
    pub(super) fn evaluate(&mut self, by_digest: bool, words: &[&[u8]]) -> Value {
        let [script, count, rest @ ..] = words else {
            return error("ERR wrong number of arguments for 'eval' command");
        };
        let count = std::str::from_utf8(count).ok().and_then(|count| count.parse::<usize>().ok());
        let Some(count) = count.filter(|count| *count <= rest.len()) else {
            return error("ERR Number of keys can't be greater than number of args");
        };
        let function = if by_digest {
            match self.known.get(*script) {
                Some(function) => function.clone(),
                None => return error("NOSCRIPT No matching script. Please use EVAL."),
            }
        } else {
            match self.learn(script) {
                Ok((_, function)) => function,
                Err(why) => return error(&format!("ERR Error compiling script: {}", line(&why))),
            }
        };
        let (keys, arguments) = rest.split_at(count);
        match self.run(&function, keys, arguments) {
            Ok(answer) => answer,
            Err(why) => error(&failure(&why)),
        }
    }

    fn learn(&mut self, text: &[u8]) -> mlua::Result<(Vec<u8>, Function)> {
        let as_text = String::from_utf8_lossy(text);
        let digest = redis::Script::new(&as_text).get_hash().as_bytes().to_vec();
        let function = self.lua.load(misread(&as_text)).set_name("@user_script").into_function()?;
        self.known.insert(digest.clone(), function.clone());
        Ok((digest, function))
    }

    fn run(&self, function: &Function, keys: &[&[u8]], arguments: &[&[u8]]) -> mlua::Result<Value> {
        let globals = self.lua.globals();
        globals.raw_set("KEYS", self.list(keys)?)?;
        globals.raw_set("ARGV", self.list(arguments)?)?;
        from_lua(function.call::<Word>(())?)
    }

    fn list(&self, words: &[&[u8]]) -> mlua::Result<Table> {
        let table = self.lua.create_table_with_capacity(words.len(), 0)?;
        for word in words {
            table.raw_push(self.lua.create_string(word)?)?;
        }
        Ok(table)
    }
}

/// What makes a table with this one field.
fn single(lua: &Lua, field: &'static str) -> mlua::Result<Function> {
    lua.create_function(move |lua, text: String| {
        let table = lua.create_table()?;
        // An error that is one word lacks its code.
        let lacks_code = field == "err" && !text.contains(' ');
        table.raw_set(field, if lacks_code { format!("ERR {text}") } else { text })?;
        Ok(table)
    })
}

fn call(database: &RefCell<Database>, words: &MultiValue) -> mlua::Result<Value> {
    let words: Vec<Vec<u8>> = words.iter().map(word).collect::<mlua::Result<_>>()?;
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    if words.is_empty() {
        return Err(mlua::Error::runtime(
            "Please specify at least one argument for this redis.call() call",
        ));
    }
    Ok(database.borrow_mut().execute(&words))
}

fn word(word: &Word) -> mlua::Result<Vec<u8>> {
    match word {
        Word::String(text) => Ok(text.as_bytes().to_vec()),
        Word::Integer(number) => Ok(number.to_string().into_bytes()),
        // As many digits as `%.17g` gives would differ for fractions only, which nobody sends.
        Word::Number(number) => Ok(number.to_string().into_bytes()),
        _ => {
            Err(mlua::Error::runtime("Lua redis lib command arguments must be strings or integers"))
        }
    }
}

fn worded(refused: &redis::ServerError) -> String {
    match refused.details() {
        Some(details) => format!("{} {details}", refused.code()),
        None => refused.code().to_owned(),
    }
}

fn to_lua(lua: &Lua, answer: Value) -> mlua::Result<Word> {
    Ok(match answer {
        Value::Nil => Word::Boolean(false),
        Value::Int(number) => lua_number(number),
        Value::BulkString(bytes) => Word::String(lua.create_string(bytes)?),
        Value::Array(parts) => {
            let table = lua.create_table_with_capacity(parts.len(), 0)?;
            for part in parts {
                table.raw_push(to_lua(lua, part)?)?;
            }
            Word::Table(table)
        }
        Value::Okay => status(lua, "ok", "OK")?,
        Value::SimpleString(text) => status(lua, "ok", &text)?,
        Value::ServerError(refused) => status(lua, "err", &worded(&refused))?,
        _ => Word::Nil,
    })
}

/// All numbers of Lua 5.1 are floating ones.
#[expect(clippy::cast_precision_loss, reason = "so does the server")]
const fn lua_number(number: i64) -> Word {
    Word::Number(number as f64)
}

fn status(lua: &Lua, field: &str, text: &str) -> mlua::Result<Word> {
    let table = lua.create_table()?;
    table.raw_set(field, text)?;
    Ok(Word::Table(table))
}

#[expect(clippy::cast_possible_truncation, reason = "so does the server")]
fn from_lua(word: Word) -> mlua::Result<Value> {
    Ok(match word {
        Word::Boolean(true) => Value::Int(1),
        Word::Integer(number) => Value::Int(number),
        Word::Number(number) => Value::Int(number as i64),
        Word::String(text) => Value::BulkString(text.as_bytes().to_vec()),
        Word::Table(table) => {
            if let Some(text) = table.raw_get::<Option<String>>("err")? {
                return Ok(error(&text));
            }
            if let Some(text) = table.raw_get::<Option<String>>("ok")? {
                return Ok(if text == "OK" { Value::Okay } else { Value::SimpleString(text) });
            }
            let mut parts = Vec::with_capacity(table.raw_len());
            // Up to the first that is nil.
            for index in 1.. {
                match table.raw_get::<Word>(index)? {
                    Word::Nil => break,
                    part => parts.push(from_lua(part)?),
                }
            }
            Value::Array(parts)
        }
        _ => Value::Nil,
    })
}

/// An error inside a script, as the server words it: a command's own where one was refused.
fn failure(why: &mlua::Error) -> String {
    match why {
        mlua::Error::CallbackError { cause, .. } => failure(cause),
        mlua::Error::RuntimeError(text) => {
            let text = text.lines().next().unwrap_or_default();
            let code = text.split(' ').next().unwrap_or_default();
            let has_code = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_uppercase());
            if has_code { text.to_owned() } else { format!("ERR {text}") }
        }
        why => format!("ERR {}", line(why)),
    }
}

/// The first line of an error; what follows is Lua's traceback.
fn line(why: &mlua::Error) -> String {
    why.to_string().lines().next().unwrap_or_default().to_owned()
}
