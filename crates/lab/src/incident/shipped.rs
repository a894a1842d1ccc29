//! The configuration that is shipped, as an incident uses it: how often Prometheus looks, and whom Alertmanager tells.

use std::path::Path;
use std::time::Duration;

use testbed::tools;

const PROMETHEUS: &str = "deploy/prometheus/prometheus.yml";
const ALERTMANAGER: &str = "deploy/alertmanager/alertmanager.yml";
/// The same with the hook that starts one more instance.
const SCALE_OUT: &str = "deploy/alertmanager/scale-out.yml";

/// What people put in before a sale.
const RECEIVER: &str = "http://set-the-receiver-in-alertmanager.yml.invalid/";
const HOOK: &str = "http://host.docker.internal:9095/hooks/scale-out";
const TOKEN: &str = "/run/secrets/scale_out_token";

/// The hook, and the file of the token that is shown there.
#[derive(Clone, Debug)]
pub(crate) struct Hook<'a> {
    pub(crate) url: &'a str,
    pub(crate) token: &'a Path,
}

/// Returns how often Prometheus asks the instances.
pub(crate) fn scrape_interval() -> Result<Duration, String> {
    let text = read(PROMETHEUS)?;
    seconds(&text, "scrape_interval")
        .ok_or_else(|| format!("{PROMETHEUS} has no scrape_interval in seconds"))
}

/// Returns the configuration of Alertmanager, which tells a webhook and, where there is one, the hook.
pub(crate) fn alertmanager(webhook: &str, hook: Option<&Hook<'_>>) -> Result<String, String> {
    let Some(hook) = hook else {
        return replaced(ALERTMANAGER, &[(RECEIVER, webhook)]);
    };
    let token = hook.token.display().to_string();
    replaced(SCALE_OUT, &[(RECEIVER, webhook), (HOOK, hook.url), (TOKEN, &token)])
}

fn read(file: &str) -> Result<String, String> {
    let path = tools::root().join(file);
    std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
}

fn replaced(file: &str, values: &[(&str, &str)]) -> Result<String, String> {
    let mut text = read(file)?;
    for (shipped, value) in values {
        if !text.contains(shipped) {
            return Err(format!("{file} has no longer {shipped}"));
        }
        text = text.replace(shipped, value);
    }
    Ok(text)
}

/// The first value of this name.
fn seconds(text: &str, name: &str) -> Option<Duration> {
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
        assert_eq!(seconds("a:\n  every: 10s\n", "every"), Some(Duration::from_secs(10)));
        assert_eq!(seconds("every_other: 10s\n", "every"), None);
        assert_eq!(seconds("every: soon\n", "every"), None);
        assert!(scrape_interval().is_ok_and(|every| every <= Duration::from_secs(5)));
    }

    #[test]
    fn whoever_is_to_be_told_stands_in_place_of_nobody() {
        let plain = alertmanager("http://there/", None).unwrap_or_default();
        assert!(plain.contains("http://there/") && !plain.contains(".invalid/\n"), "{plain}");
        let hook = Hook { url: "http://hook/", token: Path::new("/a/token") };
        let both = alertmanager("http://there/", Some(&hook)).unwrap_or_default();
        for wanted in ["http://there/", "http://hook/", "/a/token"] {
            assert!(both.contains(wanted), "{wanted}: {both}");
        }
        assert!(replaced(ALERTMANAGER, &[("nonsense", "")]).is_err());
    }
}
