//! How often the shipped configuration looks, and how long it waits before it tells anybody.

use std::time::Duration;

use testbed::tools;

/// How often Prometheus asks the instances.
pub(crate) fn scrape_interval() -> Result<Duration, String> {
    seconds("deploy/prometheus/prometheus.yml", "scrape_interval")
}

/// How long Alertmanager waits for more of the same before it tells of it.
pub(crate) fn group_wait() -> Result<Duration, String> {
    seconds("deploy/alertmanager/alertmanager.yml", "group_wait")
}

/// The first value of this name in a file.
fn seconds(file: &str, name: &str) -> Result<Duration, String> {
    let path = tools::root().join(file);
    let text =
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    find(&text, name).ok_or_else(|| format!("{file} has no {name} in seconds"))
}

fn find(text: &str, name: &str) -> Option<Duration> {
    let value = text.lines().find_map(|line| {
        let (key, value) = line.trim().split_once(':')?;
        (key == name).then(|| value.trim().strip_suffix('s')?.parse().ok())?
    })?;
    Duration::try_from_secs_f64(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shipped_is_read() {
        assert_eq!(find("a:\n  group_wait: 10s\n", "group_wait"), Some(Duration::from_secs(10)));
        assert_eq!(find("group_wait_more: 10s\n", "group_wait"), None);
        assert_eq!(find("group_wait: soon\n", "group_wait"), None);
        assert!(scrape_interval().is_ok_and(|every| every <= Duration::from_secs(5)));
        assert!(group_wait().is_ok());
    }
}
