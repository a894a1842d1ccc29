//! A cluster that stands until its caller is done with it, for tests that are not written in Rust.

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use serde_json::json;
use testbed::{Cluster, ClusterOptions, Workdir, signals};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How many instances
    #[arg(long, default_value_t = 2)]
    instances: usize,
    /// A setting of the instances by its dotted name; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
}

static IS_DONE: AtomicBool = AtomicBool::new(false);

/// Starts it, says in one line of JSON where everything is, and stops it when the standard input ends.
pub(crate) fn main(arguments: &Arguments) -> Result<bool, String> {
    let mut options = ClusterOptions::new("cluster", arguments.instances);
    for setting in &arguments.settings {
        let parts = setting.split_once('=');
        let (name, value) =
            parts.ok_or_else(|| format!("--set {setting}: it must be NAME=VALUE"))?;
        options.settings.insert(name.to_owned(), value.to_owned());
    }
    let work = Workdir::temporary()?;
    let mut cluster = Cluster::start(work.path(), &options)?;
    let text = |path: &Path| path.display().to_string();
    let instances = cluster.instances.iter().map(|it| {
        let (data, log) = (text(&it.data), text(&it.log));
        json!({"label": it.label, "port": it.port, "pid": it.id(), "data": data, "log": log})
    });
    let where_it_is =
        json!({"url": cluster.url(), "instances": instances.collect::<serde_json::Value>()});
    let mut out = std::io::stdout().lock();
    writeln!(out, "{where_it_is}").and_then(|()| out.flush()).map_err(|error| error.to_string())?;
    std::thread::spawn(|| {
        // An error is the end, too.
        std::io::stdin().lock().lines().map_while(Result::ok).for_each(drop);
        IS_DONE.store(true, Ordering::Relaxed);
    });
    while !IS_DONE.load(Ordering::Relaxed) && !signals::stopped() {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(cluster.stop() == 0)
}
