//! The simulated Redis is held against a real server: `redis-server` has to be there.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Client, Connection, Value};
use simulation::plan::{Group, Habit, Plan};
use simulation::random::Stream;
use simulation::redis::Server;
use simulation::world::run;

struct Real {
    process: Child,
    client: Client,
    _directory: tempfile::TempDir,
}

impl Real {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&socket)
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        let client = Client::open(format!("unix://{}", socket.display())).unwrap();
        Self { process, client, _directory: directory }
    }

    fn connect(&self) -> Connection {
        let began = Instant::now();
        loop {
            match self.client.get_connection() {
                Ok(connection) => return connection,
                Err(error) if began.elapsed() > Duration::from_secs(10) => panic!("{error}"),
                Err(_) => std::thread::yield_now(),
            }
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn ask(connection: &mut Connection, words: &[Vec<u8>]) -> Value {
    let mut command = redis::Cmd::new();
    words.iter().for_each(|word| {
        command.arg(word.as_slice());
    });
    let packed = command.get_packed_command();
    redis::ConnectionLike::req_packed_command(connection, &packed).unwrap()
}

/// An error's first word is what callers act on; its text names the version's ways.
fn comparable(value: Value) -> Value {
    match value {
        Value::ServerError(error) => Value::SimpleString(format!("error {}", error.code())),
        Value::Array(parts) => Value::Array(parts.into_iter().map(comparable).collect()),
        other => other,
    }
}

fn draw(dice: &mut Stream, entries: &mut u64) -> Vec<Vec<u8>> {
    let keys = ["a", "b", "c"];
    let fields = ["x", "y", "z", "w"];
    let numbers = ["0", "1", "7", "-3", "12345678901", "text"];
    let key = *dice.pick(&keys);
    let (field, other) = (*dice.pick(&fields), *dice.pick(&fields));
    let (number, more) = (*dice.pick(&numbers), *dice.pick(&numbers));
    *entries += 1;
    let id = format!("{}-0", if dice.percent(90) { *entries } else { 1 });
    let words: Vec<&str> = match dice.below(24) {
        0 => vec!["GET", key],
        1 => vec!["SET", key, number],
        2 => vec!["SET", key, number, "NX", "PX", "100000"],
        3 => vec!["SET", key, number, "XX"],
        4 => vec!["DEL", key, *dice.pick(&keys)],
        5 => vec!["HGET", key, field],
        6 => vec!["HSET", key, field, number],
        7 => vec!["HSET", key, field, number, other, more],
        8 => vec!["HMGET", key, field, other],
        9 => vec!["HGETALL", key],
        10 => vec!["HVALS", key],
        11 => vec!["HDEL", key, field, other],
        12 => vec!["INCR", key],
        13 => vec!["XADD", key, &id, "e", number],
        14 => vec!["XRANGE", key, "-", "+"],
        15 => vec!["XRANGE", key, &id, "+"],
        16 => vec!["EXISTS", key],
        17 => vec!["EXPIRE", key, "1000"],
        18 => vec!["HINCRBY", key, field, "5"],
        19 => vec!["HLEN", key],
        20 => vec!["HEXISTS", key, field],
        21 => vec!["XLEN", key],
        22 => vec![
            "EVAL",
            "local v = redis.call('HGET', KEYS[1], ARGV[1]) \
             return { v, tonumber(v or '2.9'), #KEYS, v == false, redis.status_reply('FINE') }",
            "1",
            key,
            field,
        ],
        _ => vec!["EVAL", "return { 1, 'two', { 3.7, nil, 5 }, redis.error_reply('NO') }", "0"],
    };
    words.into_iter().map(|word| word.as_bytes().to_vec()).collect()
}

#[test]
fn commands_are_answered_as_a_real_server_answers_them() {
    let real = Real::start();
    let mut connection = real.connect();
    for seed in 0..40 {
        let mut dice = Stream::new(seed, "commands", 0);
        let mut server = Server::new(seed).unwrap();
        ask(&mut connection, &[b"FLUSHALL".to_vec()]);
        let mut entries = 0;
        for step in 0..500 {
            let words = draw(&mut dice, &mut entries);
            let borrowed: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let simulated = comparable(server.execute(&borrowed, 1_000_000_000 + step));
            let expected = comparable(ask(&mut connection, &words));
            let shown: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
            assert_eq!(simulated, expected, "seed {seed}, step {step}: {}", shown.join(" "));
        }
    }
}

/// Words of the simulated server, as run ids and times, and what the real one says in their place.
#[derive(Default)]
struct Names(BTreeMap<Vec<u8>, Vec<u8>>);

impl Names {
    fn same(&mut self, simulated: &Value, real: &Value) -> bool {
        match (simulated, real) {
            (Value::Array(one), Value::Array(other)) => {
                one.len() == other.len()
                    && one.iter().zip(other).all(|(one, other)| self.same(one, other))
            }
            // A time in milliseconds.
            (Value::Int(one), Value::Int(other)) => {
                one == other || (*one > 1_000_000_000_000 && *other > 1_000_000_000_000)
            }
            (Value::BulkString(one), Value::BulkString(other)) => {
                let learnt = self.0.entry(one.clone()).or_insert_with(|| {
                    // Generations are long, and nothing else is.
                    if one.len() >= 40 { other.clone() } else { one.clone() }
                });
                learnt == other
            }
            (Value::ServerError(one), Value::ServerError(other)) => one.code() == other.code(),
            (one, other) => one == other,
        }
    }

    fn translate(&self, word: &[u8]) -> Vec<u8> {
        self.0.get(word).cloned().unwrap_or_else(|| word.to_vec())
    }
}

/// All that instances say in a history is said to a real server as well, as fast as they do.
#[test]
fn scripts_are_answered_as_a_real_server_answers_them() {
    let real = Real::start();
    let mut connection = real.connect();
    let mut plan = Plan::calm(1).lasts(8).with(Group {
        count: 300,
        from_ms: 300,
        over_ms: 7_000,
        at: None,
        habit: Habit { leaves: 20, buys: 50, ..Habit::WAITS },
    });
    // What ends after 90 ms would end a little earlier or later there.
    plan.turn = Duration::ZERO;
    plan.records = true;
    let calls = run(&plan, false).unwrap().calls;
    assert!(calls.len() > 300, "{} calls", calls.len());
    let mut names = Names::default();
    let began = Instant::now();
    for (number, call) in calls.iter().enumerate() {
        std::thread::sleep(Duration::from_micros(call.at_us).saturating_sub(began.elapsed()));
        let words: Vec<Vec<u8>> = call.words.iter().map(|word| names.translate(word)).collect();
        let answer = ask(&mut connection, &words);
        let shown: Vec<_> = words[2..].iter().map(|word| String::from_utf8_lossy(word)).collect();
        assert!(
            names.same(&call.answer, &answer),
            "call {number}: {}\nsimulated {:?}\nreal {answer:?}",
            shown.join(" "),
            call.answer
        );
    }
}
