//! What the service, the generator and the machine use up, every second.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use testbed::process::{cpu_seconds, machine_cpu_seconds, memory_bytes};

/// Sums since the start of each, except memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) at_ms: f64,
    pub(crate) server_cpu: Option<f64>,
    pub(crate) engine_cpu: Option<f64>,
    pub(crate) generator_cpu: Option<f64>,
    pub(crate) machine_cpu: Option<f64>,
    pub(crate) server_rss: Option<u64>,
    pub(crate) server_peak_rss: Option<u64>,
    pub(crate) generator_peak_rss: Option<u64>,
}

/// The service's own figures at one moment, all instances together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scrape {
    pub(crate) at_ms: f64,
    pub(crate) values: BTreeMap<String, f64>,
}

/// All that was sampled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    pub(crate) usage: Vec<Usage>,
    pub(crate) scrapes: Vec<Scrape>,
}

/// Whom to watch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    pub(crate) servers: Vec<u32>,
    pub(crate) engines: Vec<u32>,
    pub(crate) generator: u32,
    /// Base addresses of the instances.
    pub(crate) urls: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    samples: Arc<Mutex<Samples>>,
    threads: Vec<JoinHandle<()>>,
}

pub(crate) fn now_ms() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64() * 1000.0)
}

impl Sampler {
    /// Samples until it is stopped. The scrapes have a thread of their own: an overloaded service answers
    /// late, and what `/proc` says must not wait for that.
    pub(crate) fn start(watched: Watched) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let samples = Arc::new(Mutex::new(Samples::default()));
        let urls = watched.urls.clone();
        let usage_into = Arc::clone(&samples);
        let scrape_into = Arc::clone(&samples);
        let threads = vec![
            every_second(Arc::clone(&stop), move || {
                let usage = usage(&watched);
                usage_into.lock().unwrap_or_else(PoisonError::into_inner).usage.push(usage);
            }),
            every_second(Arc::clone(&stop), move || {
                if let Some(scrape) = scrape(&urls) {
                    scrape_into.lock().unwrap_or_else(PoisonError::into_inner).scrapes.push(scrape);
                }
            }),
        ];
        Self { stop, samples, threads }
    }

    /// Takes a last sample of each and gives all of them.
    pub(crate) fn stop(self) -> Samples {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.clone()
    }
}

fn every_second(stop: Arc<AtomicBool>, mut work: impl FnMut() + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut next = Instant::now();
        loop {
            let last = stop.load(Ordering::Relaxed);
            work();
            if last {
                return;
            }
            next += Duration::from_secs(1);
            // What was missed is not made up for.
            next = next.max(Instant::now());
            while Instant::now() < next && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    })
}

fn usage(watched: &Watched) -> Usage {
    // A sum without one of its parts would be a fall.
    let sum = |ids: &[u32]| {
        ids.iter().map(|&id| cpu_seconds(id)).sum::<Option<f64>>().filter(|_| !ids.is_empty())
    };
    let memory = |field: &str| {
        let all = watched.servers.iter().map(|&id| memory_bytes(id, field)).sum::<Option<u64>>();
        all.filter(|_| !watched.servers.is_empty())
    };
    Usage {
        at_ms: now_ms(),
        server_cpu: sum(&watched.servers),
        engine_cpu: sum(&watched.engines),
        generator_cpu: cpu_seconds(watched.generator),
        machine_cpu: machine_cpu_seconds(),
        server_rss: memory("VmRSS"),
        server_peak_rss: memory("VmHWM"),
        generator_peak_rss: memory_bytes(watched.generator, "VmHWM"),
    }
}

/// `None` where one of them does not answer: a sum without it would be wrong.
pub(crate) fn scrape(urls: &[String]) -> Option<Scrape> {
    let mut values = BTreeMap::new();
    for url in urls {
        // A connection of its own each time: an idle one would be closed by the service just as it is used.
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(5)))
            .build()
            .into();
        let mut response = agent.get(format!("{url}/metrics")).call().ok()?;
        let text = response.body_mut().read_to_string().ok()?;
        for (name, value) in parse(&text) {
            let shared = SHARED.contains(&name.split('{').next().unwrap_or_default());
            let all = values.entry(name).or_insert(0.0);
            *all = if shared { value.max(*all) } else { *all + value };
        }
    }
    (!urls.is_empty()).then(|| Scrape { at_ms: now_ms(), values })
}

/// Levels of what instances share: each tells the whole of it.
const SHARED: [&str; 4] = [
    "boxoffice_queue_waiting",
    "boxoffice_queue_active",
    "boxoffice_queue_serving",
    "boxoffice_events_pending",
];

/// Samples of a scrape by name with labels, without the buckets of histograms.
pub(crate) fn parse(text: &str) -> Vec<(String, f64)> {
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let bare = name.split('{').next().unwrap_or(name);
        if bare.ends_with("_bucket") {
            continue;
        }
        if let Ok(value) = value.parse() {
            found.push((name.to_owned(), value));
        }
    }
    found
}

impl Scrape {
    /// Sum over the labels of a metric; `None` where there is none of that name.
    pub(crate) fn sum(&self, name: &str) -> Option<f64> {
        let of_name = self.values.iter().filter(|(key, _)| key.split('{').next() == Some(name));
        of_name.map(|(_, value)| *value).reduce(|a, b| a + b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_read_without_its_buckets() {
        let text = "# HELP x y\n# TYPE x counter\nx_total{class=\"a b\"} 3\nx_total{class=\"c\"} 4\nh_bucket{le=\"1.0\"} 9\n\
                    h_sum 0.25\nbad line\n# EOF\n";
        let values: BTreeMap<String, f64> = parse(text).into_iter().collect();
        assert_eq!(values.len(), 3, "{values:?}");
        let scrape = Scrape { at_ms: 0.0, values };
        assert_eq!(scrape.sum("x_total"), Some(7.0));
        assert_eq!(scrape.sum("h_sum"), Some(0.25));
        assert_eq!(scrape.sum("x"), None);
    }

    #[test]
    fn our_own_use_can_be_read() {
        let id = std::process::id();
        let before = cpu_seconds(id).unwrap();
        let until = Instant::now() + Duration::from_millis(60);
        while Instant::now() < until {}
        assert!(cpu_seconds(id).unwrap() > before);
        assert!(memory_bytes(id, "VmRSS").unwrap() > 1_000_000);
        assert!(machine_cpu_seconds().unwrap() > 0.0);
        assert_eq!(cpu_seconds(0), None);
    }
}
