//! Loads of one kind of request, and rounds of them in turn.

use super::servers::{Id, Server};
use super::wrk::{Env, Figure, Order, Sample, Wrk, script};
use super::{Bench, QUEUE_PATH, WRK_CPU};

/// What is measured round by round.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) name: String,
    pub(super) server: Id,
    pub(super) samples: Vec<Sample>,
    /// Answers that were not as expected, and what else must not be.
    pub(super) unexpected: u64,
    pub(super) notes: Vec<String>,
}

impl Measured {
    pub(super) fn new(name: impl Into<String>, server: Id) -> Self {
        let (samples, notes) = (Vec::new(), Vec::new());
        Self { name: name.into(), server, samples, unexpected: 0, notes }
    }

    pub(super) fn median(&self, figure: Figure) -> f64 {
        figure.median(&self.samples)
    }

    /// Counts answers that were not `expect`, as far as wrk tells: 4xx and 5xx apart from the rest.
    pub(super) fn count_unexpected(&mut self, expect: u16, sample: &Sample) {
        let wrong = match expect {
            400.. => sample.requests - sample.not_ok.min(sample.requests),
            _ => sample.not_ok,
        };
        self.unexpected += wrong + sample.socket_errors;
        if sample.requests == 0 {
            self.unexpected += 1;
            self.notes.push("no answer at all".to_owned());
        }
    }

    /// Looks at every single status of a run that nobody measures.
    pub(super) fn look_at_statuses(&mut self, expect: u16, sample: &Sample) {
        let wrong = sample.statuses.iter().filter(|(status, _)| **status != expect);
        let wrong: u64 = wrong.map(|(_, count)| count).sum();
        if wrong > 0 || sample.statuses.is_empty() {
            self.unexpected += wrong.max(1);
            self.notes.push(format!("expected {expect}, got {:?}", sample.statuses));
        }
    }
}

/// A kind of request, as a row sends it.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) of: Measured,
    path: String,
    expect: u16,
    script: Option<&'static str>,
    pub(super) env: Env,
    /// Of every request, where there is no script: then wrk costs least.
    headers: Vec<(&'static str, String)>,
}

impl Load {
    pub(super) fn new(name: &str, server: Id, path: &str, expect: u16) -> Self {
        Self {
            of: Measured::new(name, server),
            path: path.to_owned(),
            expect,
            script: None,
            env: Vec::new(),
            headers: Vec::new(),
        }
    }

    pub(super) fn script(mut self, name: &'static str) -> Self {
        self.script = Some(name);
        self
    }

    pub(super) fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    pub(super) fn headers(mut self, all: &[(&'static str, &str)]) -> Self {
        self.headers = all.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self
    }

    /// Counts what was not expected of a round.
    pub(super) fn keep(&mut self, sample: Sample) {
        self.of.count_unexpected(self.expect, &sample);
        self.of.samples.push(sample);
    }
}

/// The load of that name.
pub(super) fn named<'a>(loads: &'a [Load], name: &str) -> Option<&'a Measured> {
    loads.iter().map(|load| &load.of).find(|of| of.name == name)
}

/// The same, where it must be there.
pub(super) fn must<'a>(loads: &'a [Load], name: &str) -> Result<&'a Measured, String> {
    named(loads, name).ok_or_else(|| format!("{name} was not measured"))
}

impl Bench {
    /// A second that nobody measures, in which every single status is looked at.
    pub(super) fn warm_up(&self, load: &mut Load) -> Result<(), String> {
        let server = self.at(load.of.server);
        let mut env = load.env.clone();
        // Where there is no script, the wrapper wraps an empty one.
        env.push(("WRK_SCRIPT", load.script.map_or_else(|| "/dev/null".to_owned(), script)));
        let order = self.order(load, 1, Some("statuses.lua"), &env);
        let sample = Wrk::start(&self.wrk, server, &order)?.result(server)?;
        load.of.look_at_statuses(load.expect, &sample);
        load.of.unexpected += sample.socket_errors;
        Ok(())
    }

    fn order<'a>(
        &self,
        load: &'a Load,
        seconds: u32,
        script: Option<&'a str>,
        env: &'a [(&'static str, String)],
    ) -> Order<'a> {
        Order {
            path: &load.path,
            seconds,
            connections: self.options.connections,
            script,
            env,
            headers: &load.headers,
            cpu: WRK_CPU,
        }
    }

    /// Rounds of all loads in turn.
    pub(super) fn interleave(&self, loads: &mut [Load]) -> Result<(), String> {
        for load in loads.iter_mut() {
            self.warm_up(load)?;
        }
        let rounds = self.options.rounds;
        for number in 1..=rounds {
            let mut costs = Vec::new();
            for load in loads.iter_mut() {
                let server = self.at(load.of.server);
                let order = self.order(load, self.options.seconds, load.script, &load.env);
                let sample = Wrk::start(&self.wrk, server, &order)?.result(server)?;
                costs.push(format!("{} {:.2}", load.of.name, Figure::Cost.of(&sample)));
                load.keep(sample);
            }
            let costs = costs.join(", ");
            eprintln!("  round {number} of {rounds}, CPU µs per request: {costs}");
        }
        Ok(())
    }

    /// Polls with these tokens in turn.
    pub(super) fn poll_load(
        &self,
        name: &str,
        server: Id,
        tokens: &[String],
    ) -> Result<Load, String> {
        Ok(Load::new(name, server, QUEUE_PATH, 200)
            .script("poll.lua")
            .env("WRK_PATH", QUEUE_PATH)
            .env("WRK_TOKENS", self.token_file(name, tokens)?))
    }

    /// Polls with the tokens of users who join for it.
    pub(super) fn polls_of_new(&self, name: &str, server: Id) -> Result<Load, String> {
        self.poll_load(name, server, &self.at(server).join(100)?)
    }

    /// Joins of users.
    pub(super) fn join_load(name: &str, server: Id) -> Load {
        Load::new(name, server, QUEUE_PATH, 201).script("join.lua")
    }
}

/// Waits until there is something to be seen of a server.
pub(super) fn wait_for<T>(
    server: &Server,
    seconds: f64,
    what: &str,
    mut look: impl FnMut(&Server) -> Result<Option<T>, String>,
) -> Result<T, String> {
    let until = crate::clock::now() + seconds;
    loop {
        if let Some(found) = look(server)? {
            return Ok(found);
        }
        if crate::clock::now() > until {
            return Err(format!("{what} within {seconds:.0} s"));
        }
        super::pause(0.1)?;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bench::servers::first_id;

    fn of(requests: u64, not_ok: u64, socket_errors: u64) -> Sample {
        Sample { requests, not_ok, socket_errors, ..Sample::default() }
    }

    #[test]
    fn what_was_not_expected_is_counted() {
        for (expect, sample, unexpected) in [
            (200, of(10, 0, 0), 0),
            (200, of(10, 3, 2), 5),
            // All of them were to be refused.
            (409, of(10, 10, 0), 0),
            (409, of(10, 8, 1), 3),
            (201, of(0, 0, 0), 1),
        ] {
            let mut measured = Measured::new("a", first_id());
            measured.count_unexpected(expect, &sample);
            assert_eq!(measured.unexpected, unexpected, "{expect} {sample:?}");
        }
    }

    #[test]
    fn every_status_is_looked_at() {
        for (statuses, unexpected) in [
            (BTreeMap::from([(304, 9)]), 0),
            (BTreeMap::from([(304, 9), (200, 4), (500, 1)]), 5),
            // Nothing came, or the script did not count.
            (BTreeMap::new(), 1),
        ] {
            let mut measured = Measured::new("a", first_id());
            let sample = Sample { statuses, ..Sample::default() };
            measured.look_at_statuses(304, &sample);
            assert_eq!(measured.unexpected, unexpected, "{sample:?}");
            assert_eq!(measured.notes.len(), usize::from(unexpected > 0));
        }
    }
}
