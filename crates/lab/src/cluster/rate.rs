//! The rate of admission and the bound of active users are the cluster's, not each instance's.

use serde_json::json;
use testbed::Instance;

use super::swarm::{Client, Join, Rush, joins, poll, request};
use super::{Check, Checks, INSTANCES, QUEUES, pause};
use crate::clock;
use crate::witness::Seconds;

const PER_SECOND: f64 = 50.0;
const BOUND: usize = 100;
const LEAVING: usize = 30;

/// Says what is wrong with how many were admitted, and with how far the instances say that they are.
fn judge_rate(admitted: f64, elapsed: Seconds, serving: &[u64]) -> Vec<String> {
    let mut wrong = Vec::new();
    let due = PER_SECOND * elapsed;
    // What a tick admits, seen a tick late at either end.
    if (admitted - due).abs() > PER_SECOND * 0.5 {
        wrong.push(format!("{admitted:.0} were admitted instead of {due:.0}"));
    }
    if serving.iter().any(|one| *one != serving[0]) {
        wrong.push(format!("the instances are apart: {serving:?}"));
    }
    wrong
}

/// Says what is wrong with how many were active, whenever somebody looked.
fn judge_bound(seen: &[usize]) -> Option<String> {
    let right = seen.iter().all(|count| *count == BOUND);
    (!right).then(|| format!("{seen:?} active instead of {BOUND}"))
}

fn serving(instance: &Instance, queue: &str) -> Result<u64, String> {
    // The public document may be a second old; this one is not.
    let listed = instance.admin("GET", "/admin/v1/queues", None)?;
    let queues = listed["queues"].as_array();
    let found = queues.and_then(|all| all.iter().find(|it| it["queue"] == queue));
    found
        .and_then(|it| it["serving"].as_u64())
        .ok_or_else(|| format!("{} does not list the queue {queue}", instance.label))
}

impl Checks<'_> {
    pub(super) fn rate(&mut self) -> Result<(), String> {
        self.rate_of_all()?;
        self.bound_of_all()?;
        let broken = self.metric("boxoffice_invariant_violations_total", "")?;
        self.found
            .expect(broken == 0.0, || format!("{broken} violations of invariants were counted"));
        Ok(())
    }

    fn rate_of_all(&mut self) -> Result<(), String> {
        const ADMITTED: &str = "boxoffice_queue_admitted_total";
        let seconds = if self.options.quick { 6.0 } else { 15.0 };
        self.queue("rated", &json!({"admitPerSecond": PER_SECOND as u64}))?;
        let rush = Rush { queue: "rated", total: 2_000, connections: 30, threads: 1 };
        joins(&self.ports(), rush)?;
        // Nobody polls, so after ten seconds numbers are passed over: what counts is who was admitted.
        let (begin, before) = (clock::now(), self.metric(ADMITTED, "rated")?);
        pause(seconds)?;
        let admitted = self.metric(ADMITTED, "rated")? - before;
        let elapsed = clock::now() - begin;
        self.first().admin("POST", "/admin/v1/queues/rated/pause", None)?;
        pause(0.5)?;
        let serving: Vec<u64> = self
            .cluster
            .instances
            .iter()
            .map(|instance| serving(instance, "rated"))
            .collect::<Result<_, _>>()?;
        let text = format!(
            "{admitted:.0} admitted in {elapsed:.1} s by {INSTANCES} instances together: {:.1}/s",
            admitted / elapsed
        );
        self.found.record(Check::Rate, &format!("{PER_SECOND} a second"), text);
        self.found.wrong(judge_rate(admitted, elapsed, &serving));
        Ok(())
    }

    fn bound_of_all(&mut self) -> Result<(), String> {
        self.queue("bounded", &json!({"admitPerSecond": 2_000, "maxActive": BOUND}))?;
        let rush = Rush { queue: "bounded", total: 1_000, connections: 30, threads: 1 };
        let mut joins = joins(&self.ports(), rush)?.made;
        joins.sort_by_key(|join| join.number);
        let clients = self.ports().into_iter().map(Client::connect);
        let mut clients = clients.collect::<Result<Vec<_>, _>>()?;
        pause(2.0)?;
        let mut seen = vec![self.active(&mut clients, &joins)?];
        pause(1.0)?;
        seen.push(self.active(&mut clients, &joins)?);
        let mut gone = 0;
        for leaving in joins.chunks(LEAVING).take(3) {
            // Some leave, each at an instance of its own.
            for join in leaving {
                let leave = request("DELETE", QUEUES, &[("QUEUE-TOKEN", &join.token)], None);
                let instance = self.random.usize(..clients.len());
                let answer = clients[instance].send(&leave)?;
                self.found.expect(answer.status() == 204, || {
                    format!("leaving was answered {}", answer.status())
                });
            }
            gone += leaving.len();
            pause(1.0)?;
            seen.push(self.active(&mut clients, &joins)?);
        }
        let text = format!("{seen:?} active at {INSTANCES} instances together, as {gone} left");
        self.found.record(Check::Rate, &format!("max_active {BOUND}"), text);
        self.found.wrong(judge_bound(&seen));
        Ok(())
    }

    /// How many of all tickets are active, each asked at one of the instances.
    fn active(&mut self, clients: &mut [Client], joins: &[Join]) -> Result<usize, String> {
        let mut count = 0;
        for join in joins {
            let instance = self.random.usize(..clients.len());
            let answer = clients[instance].send(&poll(&join.token))?;
            count += usize::from(answer.json()?["status"] == "ACTIVATED");
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_that_is_each_instances_is_found() {
        assert_eq!(judge_rate(300.0, 6.0, &[400, 400, 400]), [""; 0]);
        assert_eq!(judge_rate(325.0, 6.0, &[400, 400, 400]), [""; 0]);
        let found = judge_rate(900.0, 6.0, &[400, 400, 400]);
        assert_eq!(found, ["900 were admitted instead of 300"]);
        assert_eq!(judge_rate(100.0, 6.0, &[1, 1, 1]), ["100 were admitted instead of 300"]);
        let found = judge_rate(300.0, 6.0, &[400, 400, 405]);
        assert_eq!(found, ["the instances are apart: [400, 400, 405]"]);
    }

    #[test]
    fn a_bound_that_is_passed_or_not_reached_is_found() {
        assert_eq!(judge_bound(&[100, 100]), None);
        assert_eq!(judge_bound(&[100, 101]).unwrap(), "[100, 101] active instead of 100");
        assert_eq!(judge_bound(&[99]).unwrap(), "[99] active instead of 100");
    }
}
