//! An instance of a cluster beside an embedded one, each on the server's CPU in turn. MariaDB has the other, so what
//! it does counts as waiting and not as the server's cost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use testbed::{Cluster, ClusterOptions, RedisServer};

use super::load::Load;
use super::purchases::{Purchases, settle};
use super::row::{Row, Target};
use super::servers::{Id, Program, Settings, lasting, server_cpu};
use super::{Bench, SERVER_CPU, Topic, WRK_CPU, meter, pause};
use crate::report::thousands;

/// One build of the service, embedded and as the only instance of a cluster.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) suffix: &'static str,
    pub(super) embedded: Id,
    joins: Id,
    pub(super) instance: Id,
}

impl Side {
    /// Targets are for the build that is measured.
    const fn is_ours(&self) -> bool {
        self.suffix.is_empty()
    }

    fn target(&self, limit: f64) -> Option<Target> {
        self.is_ours().then_some(Target::AtMost(limit))
    }
}

impl Bench {
    /// Polls, joins and purchases of both.
    pub(super) fn cluster(&mut self) -> Result<(), String> {
        if !self.wants(Topic::Cluster) {
            return Ok(());
        }
        eprintln!("an instance on MariaDB, Redis and Kafka beside an embedded one");
        let mut sides = vec![self.side("", None)?];
        if let Some(older) = self.options.against.clone() {
            eprintln!("and the same of {}", older.display());
            sides.push(self.side(", older", Some(older))?);
        }
        self.polls_of(&sides)?;
        self.joins_of(&sides)?;
        for side in &sides {
            self.add_idle(side)?;
        }
        self.purchases(&sides)
    }

    fn side(&mut self, suffix: &'static str, build: Option<PathBuf>) -> Result<Side, String> {
        let named = |text: &str| format!("{text}{}", suffix.replace(", ", "-"));
        let mut options = ClusterOptions::new(&named("cluster"), 1);
        options.cpus = server_cpu();
        options.engine_cpus = vec![WRK_CPU];
        options.beside_cpus = vec![SERVER_CPU];
        options.settings = lasting();
        // With this, none of many clients is refused because a build makes one transaction of each purchase.
        options.settings.insert("store.mysql.acquire_timeout_ms".to_owned(), "5000".to_owned());
        options.program.clone_from(&build);
        let cluster = Box::new(Cluster::start(self.work.path(), &options)?);
        let instance = self.add_server(&named("cluster"), Program::Cluster(cluster));
        let embedded = self.filled_server(&named("main"), build.clone())?;
        self.pause_admission(instance)?;
        self.populate(instance)?;
        let joins = self.server(&named("joins"), build, Settings::new())?;
        Ok(Side { suffix, embedded, joins, instance })
    }

    fn polls_of(&mut self, sides: &[Side]) -> Result<(), String> {
        let began = Instant::now();
        let (mut loads, mut calls) = (Vec::new(), Vec::new());
        for side in sides {
            let suffix = side.suffix;
            loads.push(self.polls_of_new(&format!("poll, embedded{suffix}"), side.embedded)?);
            loads.push(self.polls_of_new(&format!("poll, cluster{suffix}"), side.instance)?);
            calls.push(self.at(side.instance).redis()?.calls()?);
        }
        self.interleave(&mut loads)?;
        for (side, (pair, before)) in sides.iter().zip(loads.chunks_exact_mut(2).zip(calls)) {
            let redis = self.at(side.instance).redis()?;
            let made = calls_per_second(&before, &redis.calls()?, began.elapsed());
            let idle = idle_calls(redis)?;
            let [embedded, clustered] = pair else { continue };
            clustered
                .of
                .notes
                .push(format!("{made:.1} Redis scripts/s, with and without polls ({idle:.1})"));
            self.add(Row::cost(&embedded.of));
            let row = Row::cost_beside(&clustered.of, &embedded.of);
            self.add(row.target(side.target(1.1)));
        }
        Ok(())
    }

    fn joins_of(&mut self, sides: &[Side]) -> Result<(), String> {
        let (mut loads, mut before): (Vec<Load>, Vec<_>) = (Vec::new(), Vec::new());
        for side in sides {
            let suffix = side.suffix;
            loads.push(Self::join_load(&format!("join, embedded{suffix}"), side.joins));
            loads.push(Self::join_load(&format!("join, cluster{suffix}"), side.instance));
            before.push(self.calls_and_joins(side)?);
        }
        self.interleave(&mut loads)?;
        for (side, (pair, before)) in sides.iter().zip(loads.chunks_exact(2).zip(before)) {
            let after = self.calls_and_joins(side)?;
            let each = (after.0 - before.0) / (after.1 - before.1);
            let row = Row::new(&format!("Redis calls per join{}", side.suffix), each, "", 4);
            let row = row.notes(["ticks and blocks included".to_owned()]);
            self.add(row.target(side.target(0.1)));
            let [embedded, clustered] = pair else { continue };
            self.add(Row::cost(&embedded.of));
            self.add(Row::cost_beside(&clustered.of, &embedded.of));
        }
        Ok(())
    }

    /// How often the instance has asked Redis, and how many numbers it has given.
    fn calls_and_joins(&self, side: &Side) -> Result<(f64, f64), String> {
        let server = self.at(side.instance);
        let count = |name: &str| {
            let counted = server.metric(name, "")?;
            counted.ok_or_else(|| format!("{} has no metric {name}", server.name))
        };
        Ok((count("boxoffice_redis_calls_total")?, count("boxoffice_queue_joined_total")?))
    }

    /// What a cluster costs while nobody asks it: so much it takes from the other one's rounds.
    fn add_idle(&mut self, side: &Side) -> Result<(), String> {
        let server = self.at(side.instance);
        settle(server)?;
        let before = meter::read(server, &[], &[])?;
        pause(3.0)?;
        let span = meter::Span::between(&before, &meter::read(server, &[], &[])?);
        let share = |seconds: f64| seconds / span.seconds * 100.0;
        let each: Vec<String> = span
            .cpu_seconds
            .iter()
            .map(|(name, seconds)| format!("{name} {:.1}%", share(*seconds)))
            .collect();
        let whole: f64 = span.cpu_seconds.iter().map(|(_, seconds)| seconds).sum();
        let statements = thousands(span.statements as f64 / span.seconds, 1);
        let row = Row::new(&format!("idle cluster{}", side.suffix), share(whole), "% of a CPU", 1);
        self.add(row.notes([each.join(", "), format!("{statements} statements/s")]));
        Ok(())
    }

    fn purchases(&mut self, sides: &[Side]) -> Result<(), String> {
        Purchases::measure(self, sides)
    }
}

fn calls_per_second(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
    time: Duration,
) -> f64 {
    let scripts = |calls: &BTreeMap<String, u64>| -> u64 {
        ["eval", "evalsha"].iter().filter_map(|name| calls.get(*name)).sum()
    };
    scripts(after).saturating_sub(scripts(before)) as f64 / time.as_secs_f64()
}

fn idle_calls(redis: &RedisServer) -> Result<f64, String> {
    let (calls, began) = (redis.calls()?, Instant::now());
    pause(2.0)?;
    Ok(calls_per_second(&calls, &redis.calls()?, began.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scripts_count_as_calls() {
        let calls = |all: &[(&str, u64)]| -> BTreeMap<String, u64> {
            all.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        let before = calls(&[("eval", 1), ("ping", 5)]);
        let after = calls(&[("eval", 2), ("evalsha", 9), ("ping", 50)]);
        let per_second = calls_per_second(&before, &after, Duration::from_secs(4));
        assert!((per_second - 2.5).abs() < 1e-9);
    }
}
