//! The service's own log: `tracing` to standard error.
//!
//! What does not belong here: metrics, and what is logged.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};

/// Starts logging as configured: text where standard error is a terminal, JSON elsewhere, unless
/// the format is set.
///
/// A process has one subscriber; a second call leaves the first in place, so that tests may all
/// call this. Directives that do not parse fall back to `info`: [`crate::config::Config::load`]
/// has refused them already.
pub fn init(config: &LogConfig) {
    let filter = EnvFilter::try_new(&config.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = std::io::stderr().is_terminal();
    let text = match config.format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let result = if text {
        builder.with_ansi(terminal).finish().try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).finish().try_init()
    };
    if result.is_err() {
        tracing::debug!("logging was already started");
    }
}

/// Whether filter directives parse.
///
/// # Errors
/// The parser's message.
pub fn check_directives(directives: &str) -> Result<(), String> {
    EnvFilter::builder().parse(directives).map(|_| ()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_is_fine() {
        init(&LogConfig::default());
        init(&LogConfig { level: "debug".into(), format: LogFormat::Json });
    }

    #[test]
    fn directives_are_checked() {
        assert!(check_directives("info,boxoffice::http=debug").is_ok());
        assert!(check_directives("boxoffice=loud").is_err());
    }
}
