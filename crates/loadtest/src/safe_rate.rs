//! How many may be let in per second, and why.
//!
//! CPU is what a sale runs out of. Of what the service may use, a part is kept free; of the rest, the crowd
//! that waits takes its share by polling, and those who join theirs; what is left is for those who were let
//! in. So with `B` CPU seconds per second to plan with
//!
//! ```text
//! admissions per second = (B − waiting ÷ poll interval × CPU of a poll − joins per second × CPU of a join)
//!                         ÷ CPU of all requests of one buyer
//! ```
//!
//! and no more than the limit that a breakpoint run has found, with the same part kept free.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::model::SafeRate;
use crate::service::Service;
use testbed::signals;

/// What may be planned with: the rest is for what cannot be planned.
pub(crate) const HEADROOM: f64 = 0.7;
/// Share of the iterations of the workload `mix` that buy.
pub(crate) const BUYERS_OF_MIX: f64 = 0.3;

/// The crowd that is planned for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    pub(crate) waiting: f64,
    pub(crate) poll_every_seconds: f64,
    pub(crate) joins_per_second: f64,
}

/// CPU microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Costs {
    pub(crate) poll: f64,
    pub(crate) join: f64,
    pub(crate) buyer: f64,
}

/// Requests of one kind are made for so long.
const EACH: Duration = Duration::from_secs(2);
/// Buyers whose CPU is measured: users of the demo data, with a token each.
const BUYERS: usize = 1000;
/// At most so long; a slow service does fewer.
const BUYING: Duration = Duration::from_secs(5);
/// CPU time is counted in ticks of 10 ms: fewer buyers would be a guess.
const BUYERS_MIN: usize = 50;
const THREADS: usize = 4;
/// What they are called; nobody else's tokens look like that.
const TOKENS: &str = "loadtest_buyer_{n}";

impl Costs {
    /// Measures them on a fresh service with the demo data: requests of one kind only, one after the other on
    /// a few connections, and the CPU time that the service used meanwhile. At a high load a request costs
    /// somewhat less, because the kernel hands over several at a time, so this errs on the safe side.
    pub(crate) fn measure(service: &mut Service) -> Result<Self, String> {
        service.issue_tokens(BUYERS as u32, TOKENS)?;
        let url = service.url.clone();
        let token = join(&agent(), &url)?;
        let join = each(service, || {
            let (url, agent) = (url.clone(), agent());
            move |_| join(&agent, &url).map(drop)
        })?;
        let poll = each(service, || {
            let (url, token, agent) = (url.clone(), token.clone(), agent());
            move |_| {
                call(
                    agent
                        .get(format!("{url}/api/v1/waiting-queues"))
                        .header("QUEUE-TOKEN", &token)
                        .call(),
                    &[200],
                )
                .map(drop)
            }
        })?;
        let next = AtomicUsize::new(0);
        let before = service.cpu_seconds().ok_or("the service's CPU time cannot be read")?;
        let until = Instant::now() + BUYING;
        let bought: Result<Vec<usize>, String> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        let agent = agent();
                        let mut count = 0;
                        loop {
                            let buyer = next.fetch_add(1, Ordering::Relaxed) + 1;
                            if buyer > BUYERS || Instant::now() > until || signals::stopped() {
                                return Ok(count);
                            }
                            buy(&agent, &url, buyer)?;
                            count += 1;
                        }
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err("a buyer failed".to_owned())))
                .collect()
        });
        let bought: usize = bought?.iter().sum();
        let after = service.cpu_seconds().ok_or("the service's CPU time cannot be read")?;
        if signals::stopped() {
            return Err("stopped while the CPU of single requests was measured".to_owned());
        }
        if bought < BUYERS_MIN {
            return Err(format!("only {bought} buyers were done in {:.0} s", BUYING.as_secs_f64()));
        }
        Ok(Self { poll, join, buyer: (after - before) / bought as f64 * 1e6 })
    }
}

/// CPU microseconds of the service for each call of what `make` makes.
fn each<W: FnMut(usize) -> Result<(), String> + Send>(
    service: &mut Service,
    make: impl Fn() -> W,
) -> Result<f64, String> {
    let before = service.cpu_seconds().ok_or("the service's CPU time cannot be read")?;
    let until = Instant::now() + EACH;
    let counts: Result<Vec<usize>, String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let mut work = make();
                scope.spawn(move || {
                    let mut count = 0;
                    while Instant::now() < until && !signals::stopped() {
                        work(count)?;
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a caller failed".to_owned())))
            .collect()
    });
    let count: usize = counts?.iter().sum();
    let after = service.cpu_seconds().ok_or("the service's CPU time cannot be read")?;
    if count == 0 {
        Err("no request was answered in time".to_owned())
    } else {
        Ok((after - before) / count as f64 * 1e6)
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(30)))
        .http_status_as_error(false)
        .build()
        .into()
}

fn call(
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    expected: &[u16],
) -> Result<(u16, Value), String> {
    let mut answer = answer.map_err(|error| error.to_string())?;
    let status = answer.status().as_u16();
    let text = answer
        .body_mut()
        .with_config()
        .limit(1 << 26)
        .read_to_string()
        .map_err(|error| error.to_string())?;
    if !expected.contains(&status) {
        return Err(format!("status {status}: {}", text.chars().take(200).collect::<String>()));
    }
    serde_json::from_str(&text).map(|value| (status, value)).map_err(|error| error.to_string())
}

fn join(agent: &ureq::Agent, url: &str) -> Result<String, String> {
    let (_, answer) = call(
        agent.post(format!("{url}/api/v1/waiting-queues")).send_json(json!({ "userId": 1 })),
        &[201],
    )?;
    answer["token"].as_str().map(str::to_owned).ok_or_else(|| "a join without a token".to_owned())
}

/// Everything that somebody does who was let in: sessions, seats, reserve, pay.
fn buy(agent: &ureq::Agent, url: &str, buyer: usize) -> Result<(), String> {
    let token = TOKENS.replace("{n}", &buyer.to_string());
    let get = |path: &str| {
        call(agent.get(format!("{url}{path}")).header("QUEUE-TOKEN", &token).call(), &[200])
    };
    let post = |path: &str, body: Value, expected: &[u16]| {
        call(
            agent.post(format!("{url}{path}")).header("QUEUE-TOKEN", &token).send_json(body),
            expected,
        )
    };
    let id = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let (_, sessions) = get("/api/v1/concerts/1/sessions")?;
    let sessions = sessions["sessions"].as_array().ok_or("no sessions")?.clone();
    let session = sessions
        .get(buyer % sessions.len().max(1))
        .map(|one| id(&one["sessionId"]))
        .ok_or("no session")?;
    let path = format!("/api/v1/concerts/1/sessions/{session}");
    let (_, seats) = get(&format!("{path}/seats"))?;
    let seats = seats["availableSeats"].as_array().ok_or("no seats")?.clone();
    // Spread over the hall, so that hardly two of them want the same.
    let seat = seats.get(buyer * 7919 % seats.len().max(1)).ok_or("the demo data is sold out")?;
    let body = json!({ "userId": buyer, "seatIds": [seat["seatId"]] });
    let (status, made) = post(&format!("{path}/reservations"), body, &[201, 409])?;
    if status == 201 {
        post(
            "/api/v1/payments",
            json!({ "userId": buyer, "reservationId": made["reservationId"] }),
            &[201, 402],
        )?;
    }
    Ok(())
}

/// `None` where a cost is not known. Zero where the crowd alone uses everything up.
pub(crate) fn work_out(
    costs: &Costs,
    cpus: f64,
    crowd: &Crowd,
    knee: Option<f64>,
) -> Option<SafeRate> {
    // Nothing costs nothing: a zero is a measurement that failed.
    if [costs.poll, costs.join, costs.buyer, crowd.poll_every_seconds]
        .iter()
        .any(|&figure| figure.is_nan() || figure <= 0.0)
    {
        return None;
    }
    let budget = cpus * HEADROOM * 1e6;
    let polls = crowd.waiting / crowd.poll_every_seconds * costs.poll;
    let joins = crowd.joins_per_second * costs.join;
    let by_cpu = ((budget - polls - joins) / costs.buyer).max(0.0);
    let knee_limit_per_second = knee.map(|knee| knee * HEADROOM);
    Some(SafeRate {
        per_second: knee_limit_per_second.map_or(by_cpu, |limit| by_cpu.min(limit)),
        cpus,
        headroom: HEADROOM,
        poll_micros: costs.poll,
        join_micros: costs.join,
        buyer_micros: costs.buyer,
        waiting: crowd.waiting,
        poll_every_seconds: crowd.poll_every_seconds,
        joins_per_second: crowd.joins_per_second,
        knee_limit_per_second,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(costs: Costs, cpus: f64, waiting: f64, joins: f64, knee: Option<f64>) -> f64 {
        let crowd = Crowd { waiting, poll_every_seconds: 2.0, joins_per_second: joins };
        work_out(&costs, cpus, &crowd, knee).unwrap().per_second
    }

    #[test]
    fn what_is_left_of_the_cpu_goes_to_buyers() {
        let costs = Costs { poll: 50.0, join: 100.0, buyer: 1000.0 };
        for (cpus, waiting, joins, knee, expected) in [
            // 700,000 µs per second, and nobody else.
            (1.0, 0.0, 0.0, None, 700.0),
            (2.0, 0.0, 0.0, None, 1400.0),
            (0.5, 0.0, 0.0, None, 350.0),
            // 5,000 polls per second cost 250,000 µs.
            (1.0, 10_000.0, 0.0, None, 450.0),
            // 1,000 joins per second another 100,000 µs.
            (1.0, 10_000.0, 1000.0, None, 350.0),
            // A knee at 400 buyers per second leaves 280.
            (1.0, 10_000.0, 1000.0, Some(400.0), 280.0),
            // And one far away changes nothing.
            (1.0, 10_000.0, 1000.0, Some(4000.0), 350.0),
            // The crowd alone uses it up: 40,000 waiting cost 1,000,000 µs per second.
            (1.0, 40_000.0, 0.0, None, 0.0),
        ] {
            let found = rate(costs, cpus, waiting, joins, knee);
            assert!(
                (found - expected).abs() < 1e-6,
                "{cpus} {waiting} {joins} {knee:?}: {found}, not {expected}"
            );
        }
    }

    #[test]
    fn a_cost_that_was_not_measured_gives_no_rate() {
        let crowd = Crowd { waiting: 1.0, poll_every_seconds: 3.0, joins_per_second: 1.0 };
        let good = Costs { poll: 1.0, join: 1.0, buyer: 1.0 };
        assert!(work_out(&good, 1.0, &crowd, None).is_some());
        for bad in [
            Costs { poll: 0.0, ..good },
            Costs { join: 0.0, ..good },
            Costs { buyer: 0.0, ..good },
            Costs { buyer: f64::NAN, ..good },
            Costs { buyer: -1.0, ..good },
        ] {
            assert!(work_out(&bad, 1.0, &crowd, None).is_none(), "{bad:?}");
        }
        assert!(work_out(&good, 1.0, &Crowd { poll_every_seconds: 0.0, ..crowd }, None).is_none());
    }

    #[test]
    fn the_arithmetic_is_shown_in_full() {
        let costs = Costs { poll: 50.0, join: 100.0, buyer: 1000.0 };
        let crowd = Crowd { waiting: 10_000.0, poll_every_seconds: 2.0, joins_per_second: 1000.0 };
        let safe = work_out(&costs, 1.0, &crowd, Some(9_999.0)).unwrap();
        // Whoever reads the report can do the sum again.
        let again = (safe.cpus * safe.headroom * 1e6
            - safe.waiting / safe.poll_every_seconds * safe.poll_micros
            - safe.joins_per_second * safe.join_micros)
            / safe.buyer_micros;
        assert!((safe.per_second - again).abs() < 1e-9);
    }
}
